"""The runbooks: each command in a page's section Diagnosis runs as it is written there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.lib.rollouts import Story
from tests.e2e.lib.shell import ROOT, environment
from tests.e2e.lib.space import Space

PAGES = sorted((ROOT / "docs" / "runbooks").glob("Modelwright*.md"))
# What a reader puts in: a Model of theirs, its versions; and a line that each log has, for one that none should.
READERS = (("MODEL", "told"), ("OLD", "told-1"), ("NEW", "told-2"), ('"level": "error"', '"level": "info"'))


def looks(page: Path) -> list[str]:
    """Commands of the section Diagnosis, except those that name an object which doesn't exist here."""
    text = page.read_text().partition("## Diagnosis\n")[2].partition("\n## ")[0]
    return [each for each in re.findall(r"`(kubectl [^`]+)`", text) if "NAME" not in each and "..." not in each]


@pytest.fixture(scope="module")
def shell(shared_space: Space, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of somebody in the namespace of a Model on its way from one version to another."""
    story = Story(shared_space, "told")
    story.prepare({"steps": [{"weight": 10, "hold": "1h"}, {"weight": 100}]}, {}, deadline="2h")
    story.wants(2)
    story.until(2, "Progressing", step=0)
    folder = tmp_path_factory.mktemp("shell")
    variables = environment(shared_space.world.cluster, folder / "bin")
    variables["KUBECONFIG"] = shutil.copy(variables["KUBECONFIG"], folder / "kubeconfig")
    here = ["kubectl", "config", "set-context", "--current", f"--namespace={shared_space.name}"]
    subprocess.run(here, env=variables, check=True)
    return variables


@pytest.mark.parametrize("page", [page for page in PAGES if looks(page)], ids=lambda page: page.stem)
def test_what_a_page_has_one_look_at_is_there(page: Path, shell: dict[str, str]) -> None:
    for command in looks(page):
        for placeholder, own in READERS:
            command = command.replace(placeholder, own)
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            env=shell,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert done.stdout.strip(), f"{command} says nothing; {done.stderr}"
