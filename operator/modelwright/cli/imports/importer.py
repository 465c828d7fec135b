"""Imports objects by a provider, and says of everything in them what became of it."""

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
    """Providers by name: each module of the package `providers` has one."""
    modules = sorted(module.name for module in pkgutil.iter_modules(providers.__path__))
    found = [importlib.import_module(f"{providers.__name__}.{name}").PROVIDER for name in modules]
    return {provider.name: provider for provider in found}


def import_objects(
    provider: Provider, values: Iterable[Any], options: ImportOptions
) -> tuple[list[ImportedObject], dict[str, int]]:
    """What each object of the provider becomes, in order; and how many objects of each other kind were passed over."""
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
    found = [
        _build_result(provider, each, *converted[id(each)]) if isinstance(each, ForeignObject) else each
        for each in read
    ]
    return found, others


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
        # What is in a file was checked by no API server.
        return [], f"can't be read as {provider.title} has it ({type(error).__name__}: {error})"


def _build_result(provider: Provider, each: ForeignObject, objects: list[Json], unread: str) -> ImportedObject:
    if unread:
        return ImportedObject(each.kind, each.name, (), (), (unread,))
    if each.kind in provider.parts and not each.part_of:
        each.add_advice(provider.parts[each.kind])
    rest = list(list_unused(each.fields, provider.hints))
    said = [*each.fields.ledger.notes, *rest]
    notes = [f"{format_path(path)}: {text}" if path else text for path, text in said]
    notes += [f"is a part of {what}" for what in each.part_of]
    refused = [*_list_refusals(objects)]
    kept, drafts = ((), tuple(objects)) if refused else (tuple(objects), ())
    return ImportedObject(each.kind, each.name, kept, drafts, (*notes, *refused), bool(each.part_of))


def _list_refusals(objects: Iterable[Json]) -> Iterable[str]:
    """What the API or lint has against them."""
    for obj in objects:
        for text, level in manifest_lint.check_object(obj):
            if level == "error":
                yield f"{obj['kind']} {obj['metadata']['name']} would be refused: {text}"
