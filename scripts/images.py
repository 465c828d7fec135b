"""Builds the five images, skipping unchanged ones, and pushes them with the quickstart's sample models: `make
images`, `make push`.

With a key, the images are signed by digest, and their bill of materials and provenance are attached, also signed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from securesystemslib.signer import CryptoSigner

from demo.platform import image_values
from devcluster import ClusterError
from devcluster.images import NATIVE, base_of, build_image, publish
from devcluster.progress import LiveProgress, Progress
from scripts import provenance, samples, sbom, signing
from scripts.registry import Image, Registry, RegistryError, find_login

ROOT = Path(__file__).resolve().parent.parent
VALUES = ROOT / "build/images.yaml"
PROVENANCE = ROOT / "build/provenance"
NAMES = ("operator", "fetch", "mlserver", "trainer", "datacheck")
Json = dict[str, Any]
NOT_SIGNED = "the images are not signed: their origin cannot be verified. Sign them: make push SIGN_KEY=release.key"


@dataclass(frozen=True)
class Signing:
    """The signing key, and the facts of the build."""

    signer: CryptoSigner
    source: provenance.Source
    builder: str
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Signing | None:
        """Read SIGN_KEY, SIGN_PASSWORD and BUILDER_ID; None without a key. Raises BadKey and NoSource."""
        key = environment.get("SIGN_KEY")
        if not key:
            return None
        signer = signing.private_key(Path(key), environment.get("SIGN_PASSWORD", ""))
        return cls(signer, provenance.source(ROOT), environment.get("BUILDER_ID") or provenance.BUILDER)

    def apply(self, name: str, reference: str, tag: str, *, plain_http: bool) -> str:
        """Sign a pushed image, attach its statements and verify them; return a line to print."""
        predicate = self.predicate(name, tag)
        PROVENANCE.mkdir(parents=True, exist_ok=True)
        (PROVENANCE / f"{name}.json").write_text(json.dumps(predicate, indent=2) + "\n")
        bill = json.loads(sbom.write(name, local_tag(name), sbom.FOLDER).read_text())
        image = Image.parse(reference)
        return self.attach(Registry(image, find_login(image), plain_http=plain_http), image, predicate, bill)

    def attach(self, registry: Registry, image: Image, predicate: Json, bill: Json) -> str:
        """Sign an image or index with its provenance and bill of materials, verify them, and return a line to print."""
        statements = [
            provenance.statement(image, provenance.SLSA, predicate),
            provenance.statement(image, provenance.CYCLONEDX, bill),
        ]
        signing.sign(registry, image, self.signer, statements)
        return signing.describe(image, signing.verify(registry, image, self.signer.public_key))

    def predicate(self, name: str, tag: str, architecture: str = NATIVE) -> Json:
        """Build the provenance of an image, in SLSA's format."""
        base, digest = base_of(containerfile(name), architecture=architecture)
        return provenance.provenance(
            provenance.Build(
                name,
                tag,
                self.source,
                base,
                digest,
                provenance.materials(ROOT, name),
                self.builder,
                self.began,
                datetime.now(UTC),
            )
        )


def containerfile(name: str) -> Path:
    return ROOT / "images" / name / "Containerfile"


def local_tag(name: str) -> str:
    return f"localhost/modelwright/{name}:dev"


def main() -> int:
    """Build, and push if requested. Exit status 1 when a build, push or signature fails; the message names its log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--push", metavar="REGISTRY", help="such as registry.example.com/modelwright")
    parser.add_argument("--tag", default=tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])
    parser.add_argument("--plain-http", action="store_true", help="the registry speaks no TLS")
    options = parser.parse_args()
    if options.push is not None and not options.push.strip("/"):
        parser.error("where to? make push REGISTRY=registry.example.com/modelwright")
    try:
        sealed = Signing.from_environment(os.environ) if options.push else None
        with LiveProgress("images") as progress:
            for name in NAMES:
                build_image(containerfile(name), local_tag(name), context=ROOT, progress=progress)
            if options.push is None:
                print("\n".join(map(local_tag, NAMES)))
                return 0
            pushed = push(options.push.rstrip("/"), options.tag, plain_http=options.plain_http, progress=progress)
            described = [
                sealed.apply(name, reference, options.tag, plain_http=options.plain_http)
                for name, reference in pushed.items()
                if sealed
            ]
            artifacts = samples.push(options.push.rstrip("/"), samples.train(), plain_http=options.plain_http)
            write_values(pushed)
    except (ClusterError, RegistryError, signing.BadKey, signing.NotSigned, provenance.NoSource) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join([*(described or pushed.values()), *(f"sample: oci://{each}" for each in artifacts)]))
    if sealed is None:
        print(NOT_SIGNED, file=sys.stderr)
    print(f"helm upgrade --install modelwright charts/modelwright ... --values {VALUES.relative_to(ROOT)}")
    return 0


def push(registry: str, tag: str, *, plain_http: bool, progress: Progress) -> dict[str, str]:
    """Push all images; return their references by digest."""
    return {
        name: publish(local_tag(name), f"{registry}/{name}:{tag}", plain_http=plain_http, progress=progress)
        for name in NAMES
    }


def write_values(pushed: Mapping[str, str]) -> None:
    """Write the pushed images as values for the chart. This is the last step, so that the values name only signed
    images."""
    VALUES.parent.mkdir(exist_ok=True)
    VALUES.write_text(yaml.safe_dump(image_values(pushed), sort_keys=False))


if __name__ == "__main__":
    sys.exit(main())
