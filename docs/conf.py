"""Sphinx settings of the documentation site: `make docs` builds it from the same Markdown as on GitHub.

The build loads nothing. Pages with diagrams load Mermaid from jsDelivr in the browser, because it is too large for this
repository. Without it, a diagram is shown as text. SPHINXOPTS="-D mermaid_use_local=URL" sets another address.
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
# The source folder is the whole repository, so that links between its pages work; other folders are excluded.
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
    "Start": list(dict.fromkeys([*FIRST, *PAGES])),
    "Concepts": ["docs/concepts/*"],
    "How to": ["docs/how-to/install", "docs/how-to/strategies", "docs/how-to/*"],
    "Reference": ["docs/reference/README", "docs/reference/*", "charts/*/README"],
    "Runbooks": ["docs/runbooks/README", "docs/runbooks/*"],
    "Decisions": ["docs/adr/README", "docs/adr/*"],
    "Project": ["docs/figures/*", "examples/*/README", "CONTRIBUTING", "SECURITY", "CHANGELOG"],
}


def add_contents(_: Any, name: str, source: list[str]) -> None:
    """Add the table of contents to the first page; in the file, GitHub would show the directive as text."""
    if name == root_doc:
        source[0] += "".join(
            f"\n```{{toctree}}\n:caption: {caption}\n:hidden:\n:glob:\n\n"
            + "".join(f"/{page}\n" for page in pages)
            + "```\n"
            for caption, pages in CONTENTS.items()
        )


def setup(app: Any) -> None:
    """Register the hook; Sphinx calls this."""
    app.connect("source-read", add_contents)
