"""The checks of `doctor` as data: each is a function from what was read to what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import ModuleType

from modelwright.cli.doctor.facts import Facts, NotPermitted, NotRead


class Level(StrEnum):
    """How bad a finding is, as it is printed."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"
    HIDDEN = "not permitted"


@dataclass(frozen=True)
class Finding:
    """What a check has to say of one object. `cure`: a command or a field; empty only for OK."""

    level: Level
    about: str
    text: str
    cure: str = ""


def fault(about: str, text: str, cure: str) -> Finding:
    """Something does not work, or will not."""
    return Finding(Level.FAULT, about, text, cure)


def warning(about: str, text: str, cure: str) -> Finding:
    """Something may be wrong, or is on purpose."""
    return Finding(Level.WARNING, about, text, cure)


def fine(text: str, about: str = "") -> Finding:
    """What is as it must be, where the words depend on what was read."""
    return Finding(Level.OK, about, text)


Check = Callable[[Facts], Iterable[Finding]]
EachNamespace = Callable[[Facts, str], Iterable[Finding]]


@dataclass(frozen=True)
class Registered:
    """A check, with what is printed when it finds nothing. `section`: the module that it is in."""

    name: str
    section: str
    well: str
    run: Callable[[Facts], Iterator[Finding]]


CHECKS: dict[str, Registered] = {}
"""By name."""


def check(name: str, well: str) -> Callable[[Check], Check]:
    """Registers a check of the cluster. `well`: what is true when it finds nothing."""

    def registered(function: Check) -> Check:
        CHECKS[name] = Registered(name, function.__module__, well, lambda facts: _run(lambda: function(facts)))
        return function

    return registered


def each_namespace(name: str, well: str) -> Callable[[EachNamespace], EachNamespace]:
    """Registers a check that is run for each namespace with Models: what is hidden in one hides no other."""

    def registered(function: EachNamespace) -> EachNamespace:
        def all_of_them(facts: Facts) -> Iterator[Finding]:
            for namespace in facts.namespaces:
                yield from _run(lambda namespace=namespace: function(facts, namespace))  # type: ignore[misc]

        CHECKS[name] = Registered(name, function.__module__, well, all_of_them)
        return function

    return registered


def _run(function: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    try:
        yield from function()
    except NotPermitted as error:
        yield Finding(Level.HIDDEN, "", str(error), "ask somebody who may, or for that right")
    except NotRead as error:
        yield warning("", f"could not be read: {error}", "try again")


def diagnose(facts: Facts, sections: Sequence[ModuleType]) -> list[tuple[str, Finding]]:
    """What the checks of these modules have to say, in their order; one finding at least for each check, with its
    name."""
    order = [section.__name__ for section in sections]
    found = []
    for registered in sorted(CHECKS.values(), key=lambda each: order.index(each.section)):
        findings = list(dict.fromkeys(registered.run(facts)))
        found += [(registered.name, finding) for finding in findings or [fine(registered.well)]]
    return found
