"""Imports objects with a provider, and reports the treatment of every field."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any

from modelwright.cli import manifest_lint
from modelwright.cli.imports import providers
from modelwright.cli.imports.fields import Json, UnreadableField, format_path, list_unused
from modelwright.cli.imports.foreign_objects import (
    ForeignObject,
    ImportContext,
    ImportedObject,
    ImportOptions,
    Provider,
    flatten_lists,
    read_foreign_object,
)


def load_providers() -> dict[str, Provider]:
    """Load the providers by name: each module of the package `providers` defines one."""
    modules = sorted(module.name for module in pkgutil.iter_modules(providers.__path__))
    loaded = [importlib.import_module(f"{providers.__name__}.{name}").PROVIDER for name in modules]
    return {provider.name: provider for provider in loaded}


def import_objects(
    provider: Provider, values: Iterable[Any], options: ImportOptions
) -> tuple[list[ImportedObject], dict[str, int]]:
    """Convert each object of the provider, in order; also count the skipped objects of other kinds."""
    read: list[ForeignObject | ImportedObject] = []
    others: dict[str, int] = {}
    for value in flatten_lists(values):
        if not provider.owns(value):
            kind = str(value.get("kind", "without a kind")) if isinstance(value, Mapping) else ""
            if kind:
                others[kind] = others.get(kind, 0) + 1
            continue
        try:
            read.append(read_foreign_object(value))
        except UnreadableField as error:
            read.append(ImportedObject(str(value["kind"]), "without a name", (), (), (str(error),)))
    context = ImportContext([each for each in read if isinstance(each, ForeignObject)], options)
    converted = {id(each): _convert_object(provider, each, context) for each in context.objects}
    results = [
        _build_result(provider, each, *converted[id(each)]) if isinstance(each, ForeignObject) else each
        for each in read
    ]
    return results, others


def _convert_object(provider: Provider, each: ForeignObject, context: ImportContext) -> tuple[list[Json], str]:
    if each.kind in provider.parts:
        return [], ""
    if each.kind in provider.advice:
        each.add_advice(provider.advice[each.kind])
        return [], ""
    try:
        return list(provider.kinds[each.kind](each, context)), ""
    except UnreadableField as error:
        return [], f"can't be read as {provider.title} has it: {error}"
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        # No API server has validated the content of a file.
        return [], f"can't be read as {provider.title} has it ({type(error).__name__}: {error})"


def _build_result(provider: Provider, each: ForeignObject, objects: list[Json], unread: str) -> ImportedObject:
    if unread:
        return ImportedObject(each.kind, each.name, (), (), (unread,))
    if each.kind in provider.parts and not each.part_of:
        each.add_advice(provider.parts[each.kind])
    unused = list(list_unused(each.fields, provider.hints))
    notes_by_path = [*each.fields.ledger.notes, *unused]
    notes = [f"{format_path(path)}: {text}" if path else text for path, text in notes_by_path]
    notes += [f"is a part of {owner}" for owner in each.part_of]
    refused = [*_list_refusals(objects)]
    kept, drafts = ((), tuple(objects)) if refused else (tuple(objects), ())
    return ImportedObject(each.kind, each.name, kept, drafts, (*notes, *refused), bool(each.part_of))


def _list_refusals(objects: Iterable[Json]) -> Iterable[str]:
    """Yield the errors that the API or lint would report."""
    for obj in objects:
        for text, level in manifest_lint.check_object(obj):
            if level == "error":
                yield f"{obj['kind']} {obj['metadata']['name']} would be refused: {text}"
