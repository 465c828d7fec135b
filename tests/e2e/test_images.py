"""The images as they run: what the operator's holds is what its bill of materials says."""

from __future__ import annotations

import json
from pathlib import Path

from packageurl import PackageURL
from packaging.utils import canonicalize_name

from demo import platform
from scripts import sbom
from tests.e2e.lib.space import ModelwrightCluster

LIST = """
import importlib.metadata, json, platform
installed = {each.name: each.version for each in importlib.metadata.distributions()}
print(json.dumps({"python": platform.python_version(), **installed}))
"""


def test_the_bill_of_materials_says_what_runs(world: ModelwrightCluster, tmp_path: Path) -> None:
    document = json.loads(sbom.write("operator", "localhost/modelwright/operator:dev", tmp_path).read_text())
    urls = [PackageURL.from_string(component["purl"]) for component in document["components"]]
    said = {canonicalize_name(url.name): url.version for url in urls if url.type != "deb"}
    command = ("exec", "deployment/modelwright", "-n", platform.SYSTEM, "--", "python", "-c", LIST)
    runs = {canonicalize_name(name): version for name, version in json.loads(world.kubectl.run(*command)).items()}
    assert said == runs
    assert "libc6" in {url.name for url in urls if url.type == "deb"}
