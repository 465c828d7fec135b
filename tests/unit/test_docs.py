"""The documentation: links lead somewhere, and manifests in it are what the API accepts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelwright.api.crd.definition import KINDS
from modelwright.cli.manifest_lint import lint_files

ROOT = Path(__file__).parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "charts").rglob("*.md"),
    ROOT / "devcluster" / "README.md",
]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
OURS = re.compile(r"^ *apiVersion: modelwright\.dev/", re.MULTILINE)


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", [p for p in PAGES if BLOCK.search(p.read_text())], ids=ids)
def test_manifests_are_accepted(page: Path) -> None:
    blocks = [(f"block {number}", text) for number, text in enumerate(BLOCK.findall(page.read_text()), start=1)]
    assert [finding for finding in lint_files(blocks, None) if finding.is_error] == []


@pytest.mark.parametrize("page", [p for p in PAGES if OURS.search(p.read_text())], ids=ids)
def test_no_manifest_is_passed_over(page: Path) -> None:
    """One in a block of another language, or an indented one, would be judged by nobody."""
    text = page.read_text()
    judged = "\n".join([*BLOCK.findall(text), *SHELL.findall(text)])
    assert len(OURS.findall(judged)) == len(OURS.findall(text))


def test_glossary_has_every_kind_in_alphabetical_order() -> None:
    words = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs/concepts/glossary.md").read_text(), re.MULTILINE)[1:]
    assert {kind.__name__ for kind in KINDS} <= set(words)
    assert words == sorted(words, key=str.lower)


@pytest.mark.parametrize("page", [page for page in PAGES if "docs" in page.parts and "adr" not in page.parts], ids=ids)
def test_modules_that_a_page_names_exist(page: Path) -> None:
    modules = re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", page.read_text())
    folders = (ROOT, ROOT / "operator" / "modelwright", page.parent)
    assert [module for module in modules if not any((folder / module).exists() for folder in folders)] == []
