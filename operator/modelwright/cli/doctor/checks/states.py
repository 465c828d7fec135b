"""What Models, versions, policies and trainings say of themselves, with the cure of each reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from modelwright.api.cures import CURES
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.version import Stage
from modelwright.cli.doctor.facts import Facts, Json, place
from modelwright.cli.doctor.registry import Finding, Level, each_namespace, fault, warning

LONG: Final = timedelta(minutes=5)
"""Something that is waited for longer than this is in the way."""
_WHY: Final = "kubectl modelwright why {name} -n {namespace} has the evidence"
_BAD: Final[Mapping[tuple[str, str], Level]] = {
    ("Stalled", "True"): Level.FAULT,
    ("Available", "False"): Level.FAULT,
    ("Monitored", "False"): Level.WARNING,
    ("EndpointApplied", "False"): Level.WARNING,
    ("Decidable", "False"): Level.WARNING,
    ("EvidenceAsked", "False"): Level.WARNING,
}
"""Conditions that say that something is wrong, by type and status."""
_WAITS: Final = ("Reconciling", "True")


@each_namespace("Models", "no Model is Stalled or waits for something that does not come")
def models(facts: Facts, namespace: str) -> Iterator[Finding]:
    """Conditions of Models."""
    for obj in facts.within("models", namespace):
        yield from _conditions(facts.now, obj)


@each_namespace("versions", "no ModelVersion in use is Stalled")
def versions(facts: Facts, namespace: str) -> Iterator[Finding]:
    """Conditions of versions; those that were rejected are not in use."""
    for obj in facts.within("modelversions", namespace):
        if (obj.get("status") or {}).get("stage") not in (Stage.REJECTED, Stage.QUARANTINED):
            yield from _conditions(facts.now, obj)


@each_namespace("policies", "no RolloutPolicy or RetrainingPolicy is Stalled")
def policies(facts: Facts, namespace: str) -> Iterator[Finding]:
    """Conditions of policies."""
    for plural in ("rolloutpolicies", "retrainingpolicies"):
        for obj in facts.within(plural, namespace):
            yield from _conditions(facts.now, obj)


@each_namespace("trainings", "the latest run of each RetrainingPolicy did not fail")
def trainings(facts: Facts, namespace: str) -> Iterator[Finding]:
    """The newest TrainingRun of each policy."""
    newest: dict[str, Json] = {}
    for run in facts.within("trainingruns", namespace):
        policy = run["spec"]["policyRef"]["name"]
        before = newest.get(policy)
        if before is None or _created(run) > _created(before):
            newest[policy] = run
    for run in newest.values():
        status = run.get("status") or {}
        if status.get("state") == "Failed":
            text = f"has failed: {status.get('reason')}: {status.get('message')}"
            yield warning(place(run), text, _cure(run, status.get("reason")))


def _conditions(now: datetime, obj: Json) -> Iterator[Finding]:
    reported = (obj.get("status") or {}).get("conditions") or ()
    seen: set[str] = set()
    for entry in sorted(reported, key=lambda entry: entry["type"] != "Stalled"):
        reason, kind = entry.get("reason", ""), (entry["type"], entry["status"])
        level = _BAD.get(kind)
        if kind == _WAITS and reason in CURES and now - _time(entry) > LONG:
            level = Level.WARNING
        if level is None or reason in seen:
            continue
        seen.add(reason)
        text = f"{entry['type']} is {entry['status']}: {reason}: {entry.get('message', '')}"
        known = reason in CURES or kind != ("Stalled", "True")
        # Stalled by evidence or by people: the version is refused, and nothing is misconfigured.
        yield (fault if level is Level.FAULT and known else warning)(place(obj), text, _cure(obj, reason))


def _cure(obj: Json, reason: Any) -> str:
    if reason in CURES:
        return CURES[Reason(reason)]
    return _WHY.format(**obj["metadata"])


def _time(entry: Json) -> datetime:
    return datetime.fromisoformat(entry["lastTransitionTime"])


def _created(obj: Json) -> str:
    return str(obj["metadata"].get("creationTimestamp", ""))
