"""The bill of materials of an image names all that its lock names, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from scripts import sbom
from tests.packaging.test_images import IMAGES
from tests.packaging.test_locks import pins


def test_every_image_has_one() -> None:
    assert sbom.IMAGES == IMAGES


@pytest.mark.parametrize("image", IMAGES)
def test_it_is_the_lock(image: str, tmp_path: Path) -> None:
    found = json.loads(sbom.write(image, tmp_path).read_text())
    assert found["bomFormat"] == "CycloneDX"
    assert {canonicalize_name(one["name"]): one["version"] for one in found["components"]} == pins(image)
    for component in found["components"]:
        assert component["purl"].startswith("pkg:pypi/")
        hashes = [known for reference in component["externalReferences"] for known in reference["hashes"]]
        assert {known["alg"] for known in hashes} == {"SHA-256"}, component["name"]


def test_the_folder_is_not_committed() -> None:
    assert sbom.FOLDER.relative_to(sbom.ROOT).parts[0] + "/" in (sbom.ROOT / ".gitignore").read_text().splitlines()
