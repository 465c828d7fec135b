"""Builds the five images, skipping those that are unchanged, and pushes them: `make images`, `make push`."""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path

import yaml

from demo.platform import image_values
from devcluster import ClusterError
from devcluster.images import build_image, publish
from devcluster.progress import Shown

ROOT = Path(__file__).resolve().parent.parent
VALUES = ROOT / "build/images.yaml"
NAMES = ("operator", "fetch", "mlserver", "trainer", "datacheck")


def main() -> int:
    """Exit status 1 when a build or push fails; the message names its log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--push", metavar="REGISTRY", help="such as registry.example.com/modelwright")
    parser.add_argument("--tag", default=tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])
    parser.add_argument("--plain-http", action="store_true", help="the registry speaks no TLS")
    given = parser.parse_args()
    if given.push is not None and not given.push.strip("/"):
        parser.error("where to? make push REGISTRY=registry.example.com/modelwright")
    local = {name: f"localhost/modelwright/{name}:dev" for name in NAMES}
    try:
        with Shown("images") as progress:
            for name, tag in local.items():
                build_image(ROOT / "images" / name / "Containerfile", tag, context=ROOT, progress=progress)
            if given.push is None:
                print("\n".join(local.values()))
                return 0
            registry = given.push.rstrip("/")
            pushed = {
                name: publish(tag, f"{registry}/{name}:{given.tag}", plain_http=given.plain_http, progress=progress)
                for name, tag in local.items()
            }
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    VALUES.parent.mkdir(exist_ok=True)
    VALUES.write_text(yaml.safe_dump(image_values(pushed), sort_keys=False))
    print("\n".join(pushed.values()))
    print(f"helm upgrade --install modelwright charts/modelwright ... --values {VALUES.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
