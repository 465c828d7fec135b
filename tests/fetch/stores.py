"""One real server for each scheme, behind one interface, for the contract that all sources keep."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlencode, urlsplit

import obstore
from obstore.store import AzureStore, S3Store

from devcluster import parts, paths, ports
from tests.fetch.harness import folder_digest, sha256
from tests.servers.gcs import GcsServer
from tests.servers.http_faults import FaultServer, Page
from tests.servers.hub import HubServer

AZURITE = Path(__file__).parent.parent / "servers" / "azurite"


class Store:
    """A started server. `secret(url)` is the credentials Secret that reaches it at `url` (its own, or a proxy's)."""

    scheme: ClassVar[str]
    folders: ClassVar[bool] = True  # a prefix can be an artifact
    remote: ClassVar[bool] = True  # reached over the network
    pinned: ClassVar[bool] = False  # the store's own digest counts

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"modelwright-{self.scheme}-"))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        raise NotImplementedError

    @property
    def address(self) -> tuple[str, int]:
        split = urlsplit(self.url)
        return str(split.hostname), int(split.port or 0)

    def secret(self, url: str) -> dict[str, str]:
        raise NotImplementedError

    def wrong_secret(self, url: str) -> dict[str, str]:
        raise NotImplementedError

    def canaries(self, secret: Mapping[str, str]) -> list[str]:
        """Texts that must never be printed."""
        return [value for name, value in secret.items() if "ENDPOINT" not in name and name != "REGISTRY_INSECURE"]

    def put(self, name: str, files: Mapping[str, bytes]) -> None:
        """Stores the files below `name`, in place of what was there."""
        raise NotImplementedError

    def uri(self, name: str, path: str = "", url: str = "") -> str:
        """The artifact's uri: the folder `name`, or the one file in it. `url` matters where the uri holds the host."""
        raise NotImplementedError

    def digest(self, files: Mapping[str, bytes], uri: str) -> str:
        """What a resolve must find for a folder of these files."""
        return folder_digest(files)

    def _spawn(self, command: list[str], port: int, environment: Mapping[str, str] | None = None) -> None:
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=self.folder,
            )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if self._process.poll() is not None:
                    break
                time.sleep(0.05)
        raise RuntimeError(f"{command[0]} did not start: {(self.folder / 'log').read_text()[-2000:]}")


class S3(Store):
    """versitygw over a folder."""

    scheme = "s3"

    def start(self) -> None:
        parts.build(["versitygw"])
        self._port = ports.free_ports(1)[0]
        (self.folder / "data" / "models").mkdir(parents=True)
        (self.folder / "meta").mkdir()
        self._spawn(
            [
                str(parts.binary_path("versitygw")),
                "--access=test-access-key",
                "--secret=Canary-S3-Secret-Key",
                f"--port=127.0.0.1:{self._port}",
                "--keep-alive",
                "--quiet",
                "posix",
                f"--sidecar={self.folder / 'meta'}",
                str(self.folder / "data"),
            ],
            self._port,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def secret(self, url: str) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "test-access-key",
            "AWS_SECRET_ACCESS_KEY": "Canary-S3-Secret-Key",
            "AWS_ENDPOINT_URL": url,
            "AWS_REGION": "us-east-1",
        }

    def wrong_secret(self, url: str) -> dict[str, str]:
        return {**self.secret(url), "AWS_SECRET_ACCESS_KEY": "Canary-Wrong-Secret-Key"}

    def _client(self) -> S3Store:
        secret = self.secret(self.url)
        return S3Store(
            "models",
            endpoint=self.url,
            region="us-east-1",
            access_key_id=secret["AWS_ACCESS_KEY_ID"],
            secret_access_key=secret["AWS_SECRET_ACCESS_KEY"],
            client_options={"allow_http": True},
        )

    def put(self, name: str, files: Mapping[str, bytes]) -> None:
        client = self._client()
        for page in obstore.list(client, name + "/"):
            obstore.delete(client, [meta["path"] for meta in page])
        for path, body in files.items():
            obstore.put(client, f"{name}/{path}", body)

    def uri(self, name: str, path: str = "", url: str = "") -> str:
        return f"s3://models/{name}" + (f"/{path}" if path else "")


class Az(Store):
    """Azurite from npm."""

    scheme = "az"
    _ACCOUNT = "canaryaccount"
    _KEY = base64.b64encode(b"Canary-Azure-Account-Key-0123456").decode()

    def start(self) -> None:
        self._port = ports.free_ports(1)[0]
        self._spawn(
            [
                "node",
                str(azurite()),
                "--silent",
                "--inMemoryPersistence",
                "--skipApiVersionCheck",
                "--disableTelemetry",
                "--blobHost=127.0.0.1",
                f"--blobPort={self._port}",
            ],
            self._port,
            {"AZURITE_ACCOUNTS": f"{self._ACCOUNT}:{self._KEY}"},
        )
        self._create_container()

    def _create_container(self) -> None:
        """obstore can't create containers: one signed request can."""
        date = formatdate(usegmt=True)
        path = f"/{self._ACCOUNT}/models"
        headers = f"x-ms-date:{date}\nx-ms-version:2021-08-06\n"
        text = f"PUT{chr(10) * 12}{headers}/{self._ACCOUNT}{path}\nrestype:container"
        signature = base64.b64encode(hmac.digest(base64.b64decode(self._KEY), text.encode(), "sha256")).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}?restype=container",
            method="PUT",
            headers={
                "x-ms-date": date,
                "x-ms-version": "2021-08-06",
                "Authorization": f"SharedKey {self._ACCOUNT}:{signature}",
            },
        )
        urllib.request.urlopen(request, timeout=10).close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def secret(self, url: str) -> dict[str, str]:
        return {"AZURE_STORAGE_ACCOUNT_KEY": self._KEY, "AZURE_ENDPOINT_URL": f"{url}/{self._ACCOUNT}"}

    def wrong_secret(self, url: str) -> dict[str, str]:
        return {
            **self.secret(url),
            "AZURE_STORAGE_ACCOUNT_KEY": base64.b64encode(b"Canary-Wrong-Account-Key-0123456").decode(),
        }

    @property
    def endpoint(self) -> str:
        return f"{self.url}/{self._ACCOUNT}"

    def sas(self) -> str:
        """A signature that lets its bearer read and list the container for an hour."""
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        version = "2020-12-06"
        fields = ["rl", "", until, f"/blob/{self._ACCOUNT}/models", "", "", "", version, "c", *[""] * 7]
        signature = base64.b64encode(hmac.digest(base64.b64decode(self._KEY), "\n".join(fields).encode(), "sha256"))
        return urlencode({"sp": "rl", "se": until, "sv": version, "sr": "c", "sig": signature.decode()})

    def client(self) -> AzureStore:
        return AzureStore(
            "models",
            account_name=self._ACCOUNT,
            account_key=self._KEY,
            endpoint=f"{self.url}/{self._ACCOUNT}",
            client_options={"allow_http": True},
        )

    def put(self, name: str, files: Mapping[str, bytes]) -> None:
        client = self.client()
        for page in obstore.list(client, name + "/"):
            for meta in page:
                obstore.delete(client, meta["path"])

        async def upload() -> None:
            limit = asyncio.Semaphore(16)

            async def one(path: str, body: bytes) -> None:
                async with limit:
                    await obstore.put_async(client, f"{name}/{path}", body)

            await asyncio.gather(*(one(path, body) for path, body in files.items()))

        asyncio.run(upload())

    def uri(self, name: str, path: str = "", url: str = "") -> str:
        return f"az://{self._ACCOUNT}/models/{name}" + (f"/{path}" if path else "")


def azurite() -> Path:
    """Azurite's program for blobs, installed once per version, as its lock file says."""
    lock = json.loads((AZURITE / "package-lock.json").read_text())
    version = lock["packages"]["node_modules/azurite"]["version"]
    folder = paths.cache() / f"npm-azurite-{version}"
    program = folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    with paths.locked(paths.cache() / "locks" / "azurite.lock"):
        if not program.exists():
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copyfile(AZURITE / name, folder / name)
            done = subprocess.run(
                ["npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode or not program.exists():
                raise RuntimeError(f"npm ci of azurite {version} failed: {done.stderr[-2000:]}")
    return program


class Gs(Store):
    """A local endpoint that speaks Google Cloud Storage's XML API."""

    scheme = "gs"

    def start(self) -> None:
        self.server = GcsServer().start()
        self.server.buckets["models"] = {}
        key = subprocess.run(["openssl", "genrsa", "2048"], capture_output=True, text=True, check=True).stdout
        self._key = key

    def stop(self) -> None:
        self.server.stop()
        super().stop()

    @property
    def url(self) -> str:
        return self.server.url

    def _account(self, email: str) -> str:
        return json.dumps(
            {
                "type": "service_account",
                "client_email": email,
                "private_key_id": "Canary-Key-Id",
                "private_key": self._key,
                "token_uri": "http://127.0.0.1:9/token",
            }
        )

    def secret(self, url: str) -> dict[str, str]:
        return {"GOOGLE_APPLICATION_CREDENTIALS_JSON": self._account(self.server.issuer), "GOOGLE_ENDPOINT_URL": url}

    def wrong_secret(self, url: str) -> dict[str, str]:
        return {
            "GOOGLE_APPLICATION_CREDENTIALS_JSON": self._account("stranger@test.iam.gserviceaccount.com"),
            "GOOGLE_ENDPOINT_URL": url,
        }

    def canaries(self, secret: Mapping[str, str]) -> list[str]:
        return ["Canary-Key-Id", *(line for line in self._key.splitlines() if not line.startswith("-"))]

    def put(self, name: str, files: Mapping[str, bytes]) -> None:
        bucket = self.server.buckets["models"]
        for old in [key for key in bucket if key.startswith(name + "/")]:
            del bucket[old]
        bucket.update({f"{name}/{path}": body for path, body in files.items()})

    def uri(self, name: str, path: str = "", url: str = "") -> str:
        return f"gs://models/{name}" + (f"/{path}" if path else "")


class Http(Store):
    """A web server that can do ranges; HTTP has no folders."""

    scheme = "http"
    folders = False

    def start(self) -> None:
        self.server = FaultServer().start()

    def stop(self) -> None:
        self.server.stop()
        super().stop()

    @property
    def url(self) -> str:
        return self.server.url

    def secret(self, url: str) -> dict[str, str]:
        return {"HTTP_AUTHORIZATION": "Bearer Canary-Http-Token", "HTTP_HOSTS": url}

    def wrong_secret(self, url: str) -> dict[str, str]:
        return {"HTTP_AUTHORIZATION": "Bearer Canary-Wrong-Token", "HTTP_HOSTS": url}

    def canaries(self, secret: Mapping[str, str]) -> list[str]:
        return [secret["HTTP_AUTHORIZATION"].removeprefix("Bearer ")]

    def put(self, name: str, files: Mapping[str, bytes]) -> None:
        for path, body in files.items():
            self.server.pages[f"/{name}/{path}"] = Page(body, authorization="Bearer Canary-Http-Token")

    def uri(self, name: str, path: str = "", url: str = "") -> str:
        return f"{url or self.url}/{name}/{path}"


class Pvc(Store):
    """A folder, as the kubelet mounts one."""

    scheme = "pvc"
    remote = False

    def start(self) -> None:
        (self.folder / "claim").mkdir()

    @property
    def url(self) -> str:
        return ""

    def secret(self, url: str) -> dict[str, str]:
        return {}

    def put(self, name: str, files: Mapping[str, bytes]) -> None:
        base = self.folder / "claim" / name
        shutil.rmtree(base, ignore_errors=True)
        for path, body in files.items():
            (base / path).parent.mkdir(parents=True, exist_ok=True)
            (base / path).write_bytes(body)

    def uri(self, name: str, path: str = "", url: str = "") -> str:
        return f"pvc://claim/{name}" + (f"/{path}" if path else "")


class Hf(Store):
    """A local endpoint that speaks the Hub's API."""

    scheme = "hf"
    pinned = True

    def start(self) -> None:
        self.server = HubServer().start()

    def stop(self) -> None:
        self.server.stop()
        super().stop()

    @property
    def url(self) -> str:
        return self.server.url

    def secret(self, url: str) -> dict[str, str]:
        return {"HF_TOKEN": self.server.token, "HF_ENDPOINT": url}

    def wrong_secret(self, url: str) -> dict[str, str]:
        return {"HF_TOKEN": "hf_CanaryWrongToken", "HF_ENDPOINT": url}

    def put(self, name: str, files: Mapping[str, bytes]) -> None:
        self.server.commit(f"team/{name}", dict(files))
        self.server.models[f"team/{name}"].private = True

    def uri(self, name: str, path: str = "", url: str = "") -> str:
        return f"hf://team/{name}"

    def digest(self, files: Mapping[str, bytes], uri: str) -> str:
        return "git:" + self.server.models[uri.removeprefix("hf://")].branches["main"]


class Oci(Store):
    """The CNCF distribution registry, with a user and password."""

    scheme = "oci"
    pinned = True
    # htpasswd knows bcrypt only; this is "Canary-Registry-Password"
    _HTPASSWD = "reader:$2b$04$IFi1N2V9tsKPOTKUfwdCOOcS/iY0T9uz3ekp.c.HFmL1v.7FKoaOy"

    def start(self) -> None:
        parts.build(["registry"])
        self._port = ports.free_ports(1)[0]
        self._digests: dict[str, str] = {}
        (self.folder / "config.yml").write_text(
            f"""version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {self.folder / "data"}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{self._port}"}}
auth: {{htpasswd: {{realm: test, path: {self.folder / "htpasswd"}}}}}
"""
        )
        (self.folder / "htpasswd").write_text(self._HTPASSWD + "\n")
        self._spawn(
            [str(parts.binary_path("registry")), "serve", str(self.folder / "config.yml")],
            self._port,
            {"OTEL_TRACES_EXPORTER": "none"},
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def _docker_config(self, url: str, password: str) -> dict[str, str]:
        auth = base64.b64encode(f"reader:{password}".encode()).decode()
        return {
            ".dockerconfigjson": json.dumps({"auths": {urlsplit(url).netloc: {"auth": auth}}}),
            "REGISTRY_INSECURE": "true",
        }

    def secret(self, url: str) -> dict[str, str]:
        return self._docker_config(url, "Canary-Registry-Password")

    def wrong_secret(self, url: str) -> dict[str, str]:
        return self._docker_config(url, "Canary-Wrong-Password")

    def canaries(self, secret: Mapping[str, str]) -> list[str]:
        entry = next(iter(json.loads(secret[".dockerconfigjson"])["auths"].values()))
        return [entry["auth"], base64.b64decode(entry["auth"]).decode().partition(":")[2]]

    def _send(self, method: str, url: str, body: bytes | None = None, kind: str = "application/octet-stream") -> Any:
        auth = base64.b64encode(b"reader:Canary-Registry-Password").decode()
        request = urllib.request.Request(
            url,
            body,
            {
                "Authorization": f"Basic {auth}",
                "Content-Type": kind,
                "Accept": "*/*, application/vnd.oci.image.manifest.v1+json",
            },
            method=method,
        )
        return urllib.request.urlopen(request, timeout=30)

    def blob(self, repository: str, body: bytes) -> str:
        """Pushes a blob; returns its digest."""
        with self._send("POST", f"{self.url}/v2/{repository}/blobs/uploads/", b"") as answer:
            place = answer.headers["Location"]
        separator = "&" if "?" in place else "?"
        self._send("PUT", f"{place}{separator}digest={sha256(body)}", body).close()
        return sha256(body)

    def manifest(self, repository: str, manifest: Mapping[str, Any], tag: str = "latest") -> str:
        """Pushes a manifest or index; returns its digest."""
        body = json.dumps(manifest).encode()
        self._send("PUT", f"{self.url}/v2/{repository}/manifests/{tag}", body, manifest["mediaType"]).close()
        return "sha256:" + hashlib.sha256(body).hexdigest()

    def layers(self, repository: str, layers: list[tuple[str, bytes, dict[str, str]]], tag: str = "latest") -> str:
        """Pushes an artifact of layers (media type, content, annotations); returns the manifest's digest."""
        empty = b"{}"
        return self.manifest(
            repository,
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "artifactType": "application/vnd.modelwright.test",
                "config": {
                    "mediaType": "application/vnd.oci.empty.v1+json",
                    "digest": self.blob(repository, empty),
                    "size": 2,
                },
                "layers": [
                    {
                        "mediaType": kind,
                        "digest": self.blob(repository, body),
                        "size": len(body),
                        "annotations": annotations,
                    }
                    for kind, body, annotations in layers
                ],
            },
            tag,
        )

    def put(self, name: str, files: Mapping[str, bytes]) -> None:
        title = "org.opencontainers.image.title"
        layers = [("application/octet-stream", body, {title: path}) for path, body in files.items()]
        self._digests[name] = self.layers(f"models/{name}", layers)

    def uri(self, name: str, path: str = "", url: str = "") -> str:
        return f"oci://{urlsplit(url or self.url).netloc}/models/{name}"

    def digest(self, files: Mapping[str, bytes], uri: str) -> str:
        return self._digests[uri.rpartition("/")[2]]


STORES: tuple[type[Store], ...] = (S3, Az, Gs, Http, Pvc, Hf, Oci)
