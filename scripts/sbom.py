"""Writes a software bill of materials for each image, from its lock: `make sbom`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES = tuple(sorted(path.parent.name for path in ROOT.glob("images/*/Containerfile")))
FOLDER = ROOT / "build" / "sbom"


def write(image: str, folder: Path) -> Path:
    """The CycloneDX document of an image: every package that is locked, with the hashes of its files."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{image}.cdx.json"
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", "--pyproject", str(ROOT / "pyproject.toml")]
    command += ["--output-reproducible", "--output-format", "JSON", "--output-file", str(place)]
    subprocess.run([*command, str(ROOT / "requirements" / f"{image}.txt")], check=True)
    return place


def main() -> None:
    for image in IMAGES:
        print(write(image, FOLDER).relative_to(ROOT))


if __name__ == "__main__":
    main()
