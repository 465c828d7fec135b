"""Images in a registry with signatures of cosign's format."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from pathlib import Path

from scripts.registry import MANIFEST, Image, Login, Registry, digest_of

PASSWORD = "Canary-Registry-Password"


def openssl(folder: Path, arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True)


def push(host: str, repository: str, content: bytes = b"hello", architecture: str = "amd64") -> tuple[Registry, Image]:
    """A small image, as buildah would push it."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        entry = tarfile.TarInfo("hello")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    packed = gzip.compress(layer.getvalue(), mtime=0)
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer.getvalue())]},
        }
    ).encode()
    kinds = {"application/vnd.oci.image.config.v1+json": config, "application/vnd.oci.image.layer.v1.tar+gzip": packed}
    described = [{"mediaType": kind, "size": len(data), "digest": digest_of(data)} for kind, data in kinds.items()]
    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": MANIFEST, "config": described[0], "layers": described[1:]}
    ).encode()
    image = Image(host, repository, digest_of(manifest))
    registry = Registry(image, Login("reader", PASSWORD), plain_http=True)
    for data in kinds.values():
        registry.put_blob(data)
    registry.put_manifest(image.digest, manifest)
    return registry, image
