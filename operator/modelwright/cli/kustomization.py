"""Checks that a kustomization consists of local files only. kubectl clones repositories and fetches addresses that a
kustomization names, without an option to forbid it; the checked manifests may come from an untrusted change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelwright.cli import yaml_source

FILE_NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_LOCAL_PATH = re.compile(r"[\w./ ,+~-]+")
_FOLDER_FIELDS = ("resources", "bases", "components")
_PLUGIN_FIELDS = ("generators", "transformers", "validators", "configurations", "crds")
_TEXT_FIELDS = frozenset(
    {
        "annotations",
        "commonAnnotations",
        "commonLabels",
        "images",
        "labels",
        "literals",
        "metadata",
        "namePrefix",
        "namespace",
        "nameSuffix",
        "options",
        "patch",
        "replicas",
    }
)
"""Fields whose strings are plain texts, never addresses."""


class NotLocal(Exception):
    """The kustomization, or one it includes, names something remote; the message says where and what."""


def is_kustomization(folder: Path) -> bool:
    """Return whether the folder has a kustomization."""
    return any((folder / name).is_file() for name in FILE_NAMES)


def require_local(folder: Path) -> None:
    """Raise NotLocal unless `kubectl kustomize` would read local files only. Raises OSError for unreadable files."""
    todo, seen = [folder.resolve()], set()
    while todo:
        here = todo.pop()
        if here in seen:
            continue
        seen.add(here)
        for file in (here / name for name in FILE_NAMES if (here / name).is_file()):
            try:
                contents = [each.content for each in yaml_source.read_documents(file.read_text())]
            except ValueError:
                raise NotLocal(f"{file} is not YAML") from None
            for content in contents:
                if isinstance(content, dict):
                    todo += _referenced_folders(file, content)


def _referenced_folders(file: Path, content: dict[Any, Any]) -> Iterator[Path]:
    """Yield the other folders that a kustomization includes."""
    for field in (*_FOLDER_FIELDS, *_PLUGIN_FIELDS):
        for entry in _list_strings(content.get(field)):
            if "\n" in entry and field in _PLUGIN_FIELDS:
                _refuse_address(file, field, entry)
                continue
            place = file.parent / entry
            # kustomize takes github.com/... for a repository, even when such a path exists.
            if not _LOCAL_PATH.fullmatch(entry) or "github.com" in entry.lower() or not place.exists():
                raise NotLocal(f"{file}: {field}: {entry!a} is no local file or folder")
            if place.is_dir():
                yield place.resolve()
            elif field in _PLUGIN_FIELDS:
                _refuse_address(file, f"{field}: {entry}", place.read_text())
    rest = {
        key: value for key, value in content.items() if key not in (*_FOLDER_FIELDS, *_PLUGIN_FIELDS, *_TEXT_FIELDS)
    }
    for field, value in rest.items():
        for entry in _list_strings(value):
            if "\n" not in entry:
                _refuse_address(file, str(field), entry)


def _list_strings(value: Any) -> Iterator[str]:
    """Yield all strings of a value, except those of plain text fields."""
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, list):
            todo += each
        elif isinstance(each, dict):
            todo += [inner for key, inner in each.items() if key not in _TEXT_FIELDS]


def _refuse_address(file: Path, field: str, text: str) -> None:
    address = re.search(r"\S*://\S*", text)
    if address is not None:
        raise NotLocal(f"{file}: {field}: {address[0][:200]!a} is an address")
