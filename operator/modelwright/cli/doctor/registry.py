"""The checks of `doctor` as data: each is a function from what was read to what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import ModuleType

from modelwright.cli.doctor.facts import Facts, NotPermitted, ReadFailed


class Severity(StrEnum):
    """How bad a finding is, as it is printed."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"
    HIDDEN = "not permitted"


@dataclass(frozen=True)
class DoctorFinding:
    """What a check has to say of one object. `cure`: a command or a field; empty only for OK."""

    level: Severity
    about: str
    text: str
    cure: str = ""


def fault_finding(about: str, text: str, cure: str) -> DoctorFinding:
    """Something does not work, or will not."""
    return DoctorFinding(Severity.FAULT, about, text, cure)


def warning_finding(about: str, text: str, cure: str) -> DoctorFinding:
    """Something may be wrong, or is on purpose."""
    return DoctorFinding(Severity.WARNING, about, text, cure)


def ok_finding(text: str, about: str = "") -> DoctorFinding:
    """What is as it must be, where the words depend on what was read."""
    return DoctorFinding(Severity.OK, about, text)


ClusterCheck = Callable[[Facts], Iterable[DoctorFinding]]
NamespaceCheck = Callable[[Facts, str], Iterable[DoctorFinding]]


@dataclass(frozen=True)
class RegisteredCheck:
    """A check, with what is printed when it finds nothing. `section`: the module that it is in."""

    name: str
    section: str
    ok_text: str
    run: Callable[[Facts], Iterator[DoctorFinding]]


CHECKS: dict[str, RegisteredCheck] = {}
"""By name."""


def cluster_check(name: str, well: str) -> Callable[[ClusterCheck], ClusterCheck]:
    """Registers a check of the cluster. `well`: what is true when it finds nothing."""

    def registered(function: ClusterCheck) -> ClusterCheck:
        CHECKS[name] = RegisteredCheck(
            name, function.__module__, well, lambda facts: _run_check(lambda: function(facts))
        )
        return function

    return registered


def namespace_check(name: str, well: str) -> Callable[[NamespaceCheck], NamespaceCheck]:
    """Registers a check that is run for each namespace with Models: what is hidden in one hides no other."""

    def registered(function: NamespaceCheck) -> NamespaceCheck:
        def all_of_them(facts: Facts) -> Iterator[DoctorFinding]:
            for namespace in facts.namespaces:
                yield from _run_check(lambda namespace=namespace: function(facts, namespace))  # type: ignore[misc]

        CHECKS[name] = RegisteredCheck(name, function.__module__, well, all_of_them)
        return function

    return registered


def _run_check(function: Callable[[], Iterable[DoctorFinding]]) -> Iterator[DoctorFinding]:
    try:
        yield from function()
    except NotPermitted as error:
        yield DoctorFinding(Severity.HIDDEN, "", str(error), "ask somebody who may, or for that right")
    except ReadFailed as error:
        yield warning_finding("", f"could not be read: {error}", "try again")


def run_checks(facts: Facts, sections: Sequence[ModuleType]) -> list[tuple[str, DoctorFinding]]:
    """What the checks of these modules have to say, in their order; one finding at least for each check, with its
    name."""
    order = [section.__name__ for section in sections]
    found = []
    for registered in sorted(CHECKS.values(), key=lambda each: order.index(each.section)):
        findings = list(dict.fromkeys(registered.run(facts)))
        found += [(registered.name, finding) for finding in findings or [ok_finding(registered.ok_text)]]
    return found
