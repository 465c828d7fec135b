"""Registry of `doctor`'s checks: each is a function from facts to findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import ModuleType

from modelwright.cli.doctor.facts import Facts, NotPermitted, ReadFailed


class Severity(StrEnum):
    """Severity of a finding, as printed."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"
    HIDDEN = "not permitted"


@dataclass(frozen=True)
class DoctorFinding:
    """A finding about one object. `cure`: a command or a field; empty only for OK."""

    level: Severity
    about: str
    text: str
    cure: str = ""


def fault_finding(about: str, text: str, cure: str) -> DoctorFinding:
    """Build a finding for something that does not work, or will not."""
    return DoctorFinding(Severity.FAULT, about, text, cure)


def warning_finding(about: str, text: str, cure: str) -> DoctorFinding:
    """Build a finding for something that may be wrong, or intended."""
    return DoctorFinding(Severity.WARNING, about, text, cure)


def ok_finding(text: str, about: str = "") -> DoctorFinding:
    """Build a finding for a correct state whose text depends on the facts."""
    return DoctorFinding(Severity.OK, about, text)


ClusterCheck = Callable[[Facts], Iterable[DoctorFinding]]
NamespaceCheck = Callable[[Facts, str], Iterable[DoctorFinding]]


@dataclass(frozen=True)
class RegisteredCheck:
    """A check, with the text for no findings. `section`: the module that defines it."""

    name: str
    section: str
    ok_text: str
    run: Callable[[Facts], Iterator[DoctorFinding]]


CHECKS: dict[str, RegisteredCheck] = {}
"""All checks by name."""


def cluster_check(name: str, well: str) -> Callable[[ClusterCheck], ClusterCheck]:
    """Register a check of the cluster. `well`: the text for no findings."""

    def registered(function: ClusterCheck) -> ClusterCheck:
        CHECKS[name] = RegisteredCheck(
            name, function.__module__, well, lambda facts: _run_check(lambda: function(facts))
        )
        return function

    return registered


def namespace_check(name: str, well: str) -> Callable[[NamespaceCheck], NamespaceCheck]:
    """Register a check that runs for each namespace with Models, so that one unreadable namespace does not hide the
    others."""

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
        yield DoctorFinding(Severity.HIDDEN, "", str(error), "ask for that right, or a user who has it")
    except ReadFailed as error:
        yield warning_finding("", f"could not be read: {error}", "try again")


def run_checks(facts: Facts, sections: Sequence[ModuleType]) -> list[tuple[str, DoctorFinding]]:
    """Run the checks of these modules in order. Each yields at least one finding, paired with the check's name."""
    order = [section.__name__ for section in sections]
    results = []
    for registered in sorted(CHECKS.values(), key=lambda each: order.index(each.section)):
        findings = list(dict.fromkeys(registered.run(facts)))
        results += [(registered.name, finding) for finding in findings or [ok_finding(registered.ok_text)]]
    return results
