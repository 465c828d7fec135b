"""Reads and moves the sections of CHANGELOG.md, in the format of Keep a Changelog. Pure functions of its text."""

from __future__ import annotations

import re
from datetime import date

_UNRELEASED = "## [Unreleased]"


class NoSection(Exception):
    """The section is missing or empty; the text names it."""


def versions(text: str) -> list[str]:
    """List the versions that have a section, in the order of the file, without Unreleased."""
    return [name for name in re.findall(r"^## \[([^\]]+)\]", text, re.MULTILINE) if name != "Unreleased"]


def section(text: str, name: str) -> str:
    """Return the body of a section, without its heading and with a final newline. Raises NoSection."""
    match = re.search(rf"^## \[{re.escape(name)}\][^\n]*\n(.*?)(?=^## \[|\Z)", text, re.MULTILINE | re.DOTALL)
    if match is None:
        raise NoSection(f"CHANGELOG.md has no section `## [{name}]`")
    if not re.search(r"^- ", match[1], re.MULTILINE):
        raise NoSection(f"the section `## [{name}]` of CHANGELOG.md has no entry: there is nothing to release")
    return match[1].strip("\n") + "\n"


def released(text: str, version: str, day: date) -> str:
    """Return the text with the unreleased entries under `version`, below a new, empty Unreleased. Raises NoSection."""
    section(text, "Unreleased")
    return text.replace(f"{_UNRELEASED}\n", f"{_UNRELEASED}\n\n## [{version}] - {day.isoformat()}\n", 1)
