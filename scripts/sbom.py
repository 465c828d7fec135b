"""Writes a software bill of materials for each image: `make sbom`.

pip's packages are read from the image's lock, with the hashes of their files; Debian's packages from the image
itself.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from packageurl import PackageURL

from devcluster import ClusterError
from devcluster.images import NATIVE, build_image, read_file
from devcluster.progress import LiveProgress

ROOT = Path(__file__).resolve().parent.parent
IMAGES = tuple(sorted(path.parent.name for path in ROOT.glob("images/*/Containerfile")))
FOLDER = ROOT / "build" / "sbom"

Json = dict[str, Any]


def locked(image: str, folder: Path) -> Json:
    """Build the CycloneDX document of an image's locked packages, with the hashes of their files."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{image}.cdx.json"
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", "--pyproject", str(ROOT / "pyproject.toml")]
    command += ["--output-reproducible", "--output-format", "JSON", "--output-file", str(place)]
    subprocess.run([*command, str(ROOT / "requirements" / f"{image}.txt")], check=True)
    document: Json = json.loads(place.read_text())
    return document


def debian(status: str, release: str) -> list[Json]:
    """Build components for the installed packages in dpkg's status file; `release` is the text of os-release."""
    system = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', release, re.MULTILINE))
    components = []
    for stanza in re.split(r"\n\n+", status.strip()):
        package = HeaderParser().parsestr(stanza)
        if package["Status"] != "install ok installed":
            continue
        name, version = package["Package"], package["Version"]
        source, _, source_version = (package["Source"] or name).partition(" ")
        qualifiers = {"arch": package["Architecture"], "distro": f"{system['ID']}-{system['VERSION_ID']}"}
        if package["Source"]:
            # Debian's advisories name source packages.
            qualifiers["upstream"] = f"{source}@{source_version.strip('()') or version}"
        components.append(_component(PackageURL("deb", system["ID"], name, version, qualifiers)))
    return components


def python(settings: str) -> Json:
    """Build the component for the interpreter of a virtual environment, from its pyvenv.cfg."""
    version = re.search(r"^version\s*=\s*(\S+)", settings, re.MULTILINE)
    if version is None:
        raise ValueError(f"no version of Python in {settings!r}")
    cpe = f"cpe:2.3:a:python:python:{version[1]}:*:*:*:*:*:*:*"
    return _component(PackageURL("generic", None, "python", version[1])) | {"cpe": cpe}


def write(image: str, tag: str, folder: Path, architecture: str = NATIVE) -> Path:
    """Write the document of an image built as `tag`. Raises ClusterError when the image can't be read."""
    document = locked(image, folder)
    document["components"] += [
        *debian(read_file(tag, "/var/lib/dpkg/status", architecture), read_file(tag, "/etc/os-release", architecture)),
        python(read_file(tag, "/opt/venv/pyvenv.cfg", architecture)),
    ]
    place = folder / f"{image}.cdx.json"
    place.write_text(json.dumps(document, indent=2) + "\n")
    return place


def merged(documents: Sequence[Json]) -> Json:
    """Merge documents: for an index of images for several architectures."""
    first = documents[0]
    components = {each["bom-ref"]: each for document in documents for each in document["components"]}
    return {**first, "components": list(components.values())}


def _component(url: PackageURL) -> Json:
    return {
        "bom-ref": url.to_string(),
        "name": url.name,
        "purl": url.to_string(),
        "type": "library",
        "version": url.version,
    }


def main() -> int:
    """Write all documents. Exit status 1 when an image can't be built or read."""
    try:
        with LiveProgress("images") as progress:
            for image in IMAGES:
                tag = f"localhost/modelwright/{image}:dev"
                build_image(ROOT / "images" / image / "Containerfile", tag, context=ROOT, progress=progress)
                print(write(image, tag, FOLDER).relative_to(ROOT))
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
