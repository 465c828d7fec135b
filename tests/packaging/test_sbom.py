"""The bill of materials of an image names all that its lock names, all that its base holds, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.utils import canonicalize_name

from scripts import sbom
from tests.lib.containerfiles import IMAGES
from tests.lib.locks import pins

RELEASE = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n'
STATUS = """\
Package: libgcc-s1
Status: install ok installed
Priority: optional
Architecture: amd64
Multi-Arch: same
Source: gcc-12
Version: 12.2.0-14+deb12u1
Description: GCC support library
 Shared version of the support library.
 .
 A library of internal subroutines.

Package: bsdutils
Status: install ok installed
Architecture: amd64
Source: util-linux (2.38.1-5+deb12u3)
Version: 1:2.38.1-5+deb12u3

Package: adduser
Status: install ok installed
Architecture: all
Version: 3.134

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1.0
"""
FILES = {
    "/var/lib/dpkg/status": STATUS,
    "/etc/os-release": RELEASE,
    "/opt/venv/pyvenv.cfg": "home = /usr/bin\nversion = 3.11.2\n",
}


def test_every_image_has_one() -> None:
    assert sbom.IMAGES == IMAGES


@pytest.mark.parametrize("image", IMAGES)
def test_what_is_locked_is_there_with_the_hashes_of_its_files(image: str, tmp_path: Path) -> None:
    found = sbom.locked(image, tmp_path)
    assert found["bomFormat"] == "CycloneDX"
    assert {canonicalize_name(one["name"]): one["version"] for one in found["components"]} == pins(image)
    for component in found["components"]:
        assert component["purl"].startswith("pkg:pypi/")
        hashes = [known for reference in component["externalReferences"] for known in reference["hashes"]]
        assert {known["alg"] for known in hashes} == {"SHA-256"}, component["name"]


def test_what_the_base_holds_goes_by_its_package_and_its_source() -> None:
    found = {one["name"]: PackageURL.from_string(one["purl"]) for one in sbom.debian(STATUS, RELEASE)}
    assert set(found) == {"libgcc-s1", "bsdutils", "adduser"}
    assert all((url.type, url.namespace) == ("deb", "debian") for url in found.values())
    assert found["bsdutils"].version == "1:2.38.1-5+deb12u3"
    assert found["bsdutils"].qualifiers == {
        "arch": "amd64",
        "distro": "debian-12",
        "upstream": "util-linux@2.38.1-5+deb12u3",
    }
    assert dict(found["libgcc-s1"].qualifiers)["upstream"] == "gcc-12@12.2.0-14+deb12u1"
    assert found["adduser"].qualifiers == {"arch": "all", "distro": "debian-12"}


def test_the_document_keeps_to_the_schema(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def read(_: str, path: str, *__: str) -> str:
        return FILES[path]

    monkeypatch.setattr(sbom, "read_file", read)
    text = sbom.write("operator", "localhost/modelwright/operator:dev", tmp_path).read_text()
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert error is None, str(error)[:300]
    document: dict[str, Any] = json.loads(text)
    names = {one["name"] for one in document["components"]}
    assert {"kopf", "libgcc-s1", "python"} <= names


def test_the_folder_is_not_committed() -> None:
    assert sbom.FOLDER.relative_to(sbom.ROOT).parts[0] + "/" in (sbom.ROOT / ".gitignore").read_text().splitlines()
