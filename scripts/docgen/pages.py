"""All generated documentation pages: the field reference, the reasons, the metrics and the decision tables."""

from __future__ import annotations

from pathlib import Path

from modelwright.cli.crd import diff_files, write_files
from scripts.docgen import field_reference
from scripts.docgen.metrics_page import render_page as render_metrics_page
from scripts.docgen.rollout_page import render_rollout_page
from scripts.docgen.run_page import render_run_page

FOLDERS = (("docs/reference", "*.md"),)
"""Folders in which every file of the pattern is generated."""


def render_doc_pages() -> dict[str, str]:
    """Render every page: path from the root of the repository -> text."""
    return {
        "docs/concepts/rollout-states.md": render_rollout_page(),
        "docs/concepts/run-states.md": render_run_page(),
        "docs/reference/metrics.md": render_metrics_page(),
        **{f"docs/reference/{name}": text for name, text in field_reference.render_pages().items()},
    }


def write_pages(root: Path) -> list[str]:
    """Write every page below `root` and remove strays; return the paths that changed."""
    return write_files(root, render_doc_pages(), FOLDERS)


def diff_pages(root: Path) -> str:
    """Return a diff of the committed and the generated pages; empty when they agree."""
    return diff_files(root, render_doc_pages(), FOLDERS)
