"""Certificates and kubeconfigs of a cluster, made with the openssl command (P-256: keys in milliseconds)."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from devcluster.errors import ClusterError


@dataclass(frozen=True)
class Identity:
    """A certificate and its key."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """A certificate authority in a folder that also keeps every certificate it signs."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def key(self) -> Path:
        return self.folder / "ca.key"

    @classmethod
    def create(cls, folder: Path) -> Authority:
        folder.mkdir(parents=True, exist_ok=True)
        authority = cls(folder)
        if not authority.certificate.exists():
            _openssl(
                *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650"),
                *("-subj", "/CN=modelwright-devcluster", "-keyout", str(authority.key)),
                *("-out", str(authority.certificate)),
            )
        return authority

    def sign(self, name: str, user: str, group: str = "", addresses: Iterable[str] = ()) -> Identity:
        """Sign a certificate for a client (user and group), also valid for serving when addresses are given."""
        identity = Identity(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        if identity.certificate.exists():
            return identity
        subject = (f"/O={group}" if group else "") + f"/CN={user}"
        names = ",".join(f"{'IP' if _is_ip(address) else 'DNS'}:{address}" for address in addresses)
        extensions = ["-addext", f"subjectAltName={names}"] if names else []
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650"),
            *("-CA", str(self.certificate), "-CAkey", str(self.key), "-subj", subject, *extensions),
            *("-addext", "basicConstraints=critical,CA:FALSE", "-addext", "keyUsage=digitalSignature"),
            *("-addext", "extendedKeyUsage=clientAuth,serverAuth"),
            *("-keyout", str(identity.key), "-out", str(identity.certificate)),
        )
        return identity


def service_account_key(folder: Path) -> Path:
    """Create the key that signs ServiceAccount tokens."""
    key = folder / "service-account.key"
    if not key.exists():
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key))
    return key


def kubeconfig(file: Path, server: str, authority: Authority, identity: Identity) -> Path:
    """Write a kubeconfig with embedded certificates, so that it may be copied anywhere (JSON is YAML)."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "modelwright",
        "clusters": [
            {
                "name": "modelwright",
                "cluster": {"server": server, "certificate-authority-data": _base64(authority.certificate)},
            }
        ],
        "users": [
            {
                "name": "modelwright",
                "user": {
                    "client-certificate-data": _base64(identity.certificate),
                    "client-key-data": _base64(identity.key),
                },
            }
        ],
        "contexts": [{"name": "modelwright", "context": {"cluster": "modelwright", "user": "modelwright"}}],
    }
    file.touch(mode=0o600)
    file.write_text(json.dumps(config, indent=1) + "\n")
    return file


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def _is_ip(address: str) -> bool:
    return address.replace(".", "").isdigit()


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
