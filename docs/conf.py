"""Sphinx's settings of the documentation site: `make docs` builds it from the Markdown that is read on GitHub too.

Nothing is loaded while it builds. Pages with drawings load Mermaid from jsDelivr when they are read: it is too big to
be kept here. Without it, a drawing is shown as its text. SPHINXOPTS="-D mermaid_use_local=URL" names another place.
"""

from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

project = "Modelwright"
author = "The Modelwright authors"
root_doc = "docs/README"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/*.md",
    "docs/**/*.md",
    "examples/*/README.md",
    "charts/*/README.md",
]
SEARCHED = ("docs", "examples", "charts")
# The source folder is the whole repository, so that links between its pages work: the rest isn't searched.
exclude_patterns = [path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in SEARCHED]
extensions = ["myst_parser", "sphinxcontrib.mermaid"]
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
html_theme = "furo"
html_title = "Modelwright"
html_extra_path = ["site"]
html_copy_source = False

FIRST = ["README", "docs/why", "docs/quickstart", "docs/comparison"]
PAGES = sorted(f"docs/{page.stem}" for page in (ROOT / "docs").glob("*.md") if page.stem != "README")
CONTENTS = {
    "Begin": list(dict.fromkeys([*FIRST, *PAGES])),
    "Concepts": ["docs/concepts/*"],
    "How to": ["docs/how-to/install", "docs/how-to/strategies", "docs/how-to/*"],
    "Reference": ["docs/reference/README", "docs/reference/*", "charts/*/README"],
    "Runbooks": ["docs/runbooks/README", "docs/runbooks/*"],
    "Decisions": ["docs/adr/README", "docs/adr/*"],
    "Project": ["docs/figures/*", "examples/*/README", "CONTRIBUTING", "SECURITY", "CHANGELOG"],
}


def add_contents(_: Any, name: str, source: list[str]) -> None:
    """Adds the table of contents to the first page: on GitHub the directive would be shown as it is written."""
    if name == root_doc:
        source[0] += "".join(
            f"\n```{{toctree}}\n:caption: {caption}\n:hidden:\n:glob:\n\n"
            + "".join(f"/{page}\n" for page in pages)
            + "```\n"
            for caption, pages in CONTENTS.items()
        )


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_contents)
