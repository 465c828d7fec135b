"""Builds the five images with Docker or buildah, skipping those that are unchanged: `make images`."""

from __future__ import annotations

import sys
from pathlib import Path

from devcluster import ClusterError
from devcluster.images import build_image
from devcluster.progress import Shown

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("operator", "fetch", "mlserver", "trainer", "datacheck")


def main() -> int:
    """Exit status 1 when a build fails; the message names its log."""
    try:
        with Shown("images") as progress:
            for name in NAMES:
                tag = f"localhost/modelwright/{name}:dev"
                build_image(ROOT / "images" / name / "Containerfile", tag, context=ROOT, progress=progress)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
