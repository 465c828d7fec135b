"""Imports objects by a provider, and says of everything in them what became of it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any

from modelwright.cli import lint
from modelwright.cli.imports import providers
from modelwright.cli.imports.documents import Context, Document, Imported, Options, Provider, document, flattened
from modelwright.cli.imports.fields import Json, Unreadable, dotted, left_out


def registry() -> dict[str, Provider]:
    """Providers by name: each module of the package `providers` has one."""
    modules = sorted(module.name for module in pkgutil.iter_modules(providers.__path__))
    found = [importlib.import_module(f"{providers.__name__}.{name}").PROVIDER for name in modules]
    return {provider.name: provider for provider in found}


def imported(provider: Provider, values: Iterable[Any], options: Options) -> tuple[list[Imported], dict[str, int]]:
    """What each object of the provider becomes, in order; and how many objects of each other kind were passed over."""
    read: list[Document | Imported] = []
    others: dict[str, int] = {}
    for value in flattened(values):
        if not provider.owns(value):
            kind = str(value.get("kind", "without a kind")) if isinstance(value, Mapping) else ""
            if kind:
                others[kind] = others.get(kind, 0) + 1
            continue
        try:
            read.append(document(value))
        except Unreadable as error:
            read.append(Imported(str(value["kind"]), "without a name", (), (), (str(error),)))
    context = Context([each for each in read if isinstance(each, Document)], options)
    converted = {id(each): _converted(provider, each, context) for each in context.documents}
    found = [_finished(provider, each, *converted[id(each)]) if isinstance(each, Document) else each for each in read]
    return found, others


def _converted(provider: Provider, each: Document, context: Context) -> tuple[list[Json], str]:
    if each.kind in provider.parts:
        return [], ""
    if each.kind in provider.advice:
        each.advise(provider.advice[each.kind])
        return [], ""
    try:
        return list(provider.kinds[each.kind](each, context)), ""
    except Unreadable as error:
        return [], f"can't be read as {provider.title} has it: {error}"
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        # What is in a file was checked by no API server.
        return [], f"can't be read as {provider.title} has it ({type(error).__name__}: {error})"


def _finished(provider: Provider, each: Document, objects: list[Json], unread: str) -> Imported:
    if unread:
        return Imported(each.kind, each.name, (), (), (unread,))
    if each.kind in provider.parts and not each.parts_of:
        each.advise(provider.parts[each.kind])
    rest = list(left_out(each.fields, provider.hints))
    said = [*each.fields.ledger.notes, *rest]
    notes = [f"{dotted(path)}: {text}" if path else text for path, text in said]
    notes += [f"is a part of {what}" for what in each.parts_of]
    refused = [*_refused(objects)]
    kept, drafts = ((), tuple(objects)) if refused else (tuple(objects), ())
    return Imported(each.kind, each.name, kept, drafts, (*notes, *refused), bool(each.parts_of))


def _refused(objects: Iterable[Json]) -> Iterable[str]:
    """What the API or lint has against them."""
    for obj in objects:
        for text, level in lint.check(obj):
            if level == "error":
                yield f"{obj['kind']} {obj['metadata']['name']} would be refused: {text}"
