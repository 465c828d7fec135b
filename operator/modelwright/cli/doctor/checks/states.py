"""Checks the status of Models, versions, policies and training runs, with the cure of each reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from modelwright.api.reasons import Reason
from modelwright.api.remedies import REMEDIES
from modelwright.api.v1alpha1.version import Stage
from modelwright.cli.doctor.facts import Facts, Json, describe_object
from modelwright.cli.doctor.registry import DoctorFinding, Severity, fault_finding, namespace_check, warning_finding

WAIT_LIMIT: Final = timedelta(minutes=5)
"""A longer wait is reported."""
_WHY_HINT: Final = "kubectl modelwright why {name} -n {namespace} has the evidence"
_CONDITION_LEVELS: Final[Mapping[tuple[str, str], Severity]] = {
    ("Stalled", "True"): Severity.FAULT,
    ("Available", "False"): Severity.FAULT,
    ("Monitored", "False"): Severity.WARNING,
    ("EndpointApplied", "False"): Severity.WARNING,
    ("Decidable", "False"): Severity.WARNING,
    ("EvidenceAsked", "False"): Severity.WARNING,
}
"""Conditions that report a problem, by type and status."""
_WAITING: Final = ("Reconciling", "True")


@namespace_check("Models", "no Model is Stalled or waits for something that does not come")
def check_models(facts: Facts, namespace: str) -> Iterator[DoctorFinding]:
    """Check conditions of Models."""
    for obj in facts.in_namespace("models", namespace):
        yield from _check_conditions(facts.now, obj)


@namespace_check("versions", "no ModelVersion in use is Stalled")
def check_versions(facts: Facts, namespace: str) -> Iterator[DoctorFinding]:
    """Check conditions of versions; rejected ones are not in use."""
    for obj in facts.in_namespace("modelversions", namespace):
        if (obj.get("status") or {}).get("stage") not in (Stage.REJECTED, Stage.QUARANTINED):
            yield from _check_conditions(facts.now, obj)


@namespace_check("policies", "no RolloutPolicy or RetrainingPolicy is Stalled")
def check_policies(facts: Facts, namespace: str) -> Iterator[DoctorFinding]:
    """Check conditions of policies."""
    for plural in ("rolloutpolicies", "retrainingpolicies"):
        for obj in facts.in_namespace(plural, namespace):
            yield from _check_conditions(facts.now, obj)


@namespace_check("trainings", "the latest run of each RetrainingPolicy did not fail")
def check_trainings(facts: Facts, namespace: str) -> Iterator[DoctorFinding]:
    """Check the newest TrainingRun of each policy."""
    newest: dict[str, Json] = {}
    for run in facts.in_namespace("trainingruns", namespace):
        policy = run["spec"]["policyRef"]["name"]
        before = newest.get(policy)
        if before is None or _creation_time(run) > _creation_time(before):
            newest[policy] = run
    for run in newest.values():
        status = run.get("status") or {}
        if status.get("state") == "Failed":
            text = f"has failed: {status.get('reason')}: {status.get('message')}"
            yield warning_finding(describe_object(run), text, _find_cure(run, status.get("reason")))


def _check_conditions(now: datetime, obj: Json) -> Iterator[DoctorFinding]:
    reported = (obj.get("status") or {}).get("conditions") or ()
    reported_reasons: set[str] = set()
    for entry in sorted(reported, key=lambda entry: entry["type"] != "Stalled"):
        reason, kind = entry.get("reason", ""), (entry["type"], entry["status"])
        level = _CONDITION_LEVELS.get(kind)
        if kind == _WAITING and reason in REMEDIES and now - _transition_time(entry) > WAIT_LIMIT:
            level = Severity.WARNING
        if level is None or reason in reported_reasons:
            continue
        reported_reasons.add(reason)
        text = f"{entry['type']} is {entry['status']}: {reason}: {entry.get('message', '')}"
        known = reason in REMEDIES or kind != ("Stalled", "True")
        # Stalled by evidence or by a user: the version is refused, and no configuration is wrong.
        yield (fault_finding if level is Severity.FAULT and known else warning_finding)(
            describe_object(obj), text, _find_cure(obj, reason)
        )


def _find_cure(obj: Json, reason: Any) -> str:
    if reason in REMEDIES:
        return REMEDIES[Reason(reason)]
    return _WHY_HINT.format(**obj["metadata"])


def _transition_time(entry: Json) -> datetime:
    return datetime.fromisoformat(entry["lastTransitionTime"])


def _creation_time(obj: Json) -> str:
    return str(obj["metadata"].get("creationTimestamp", ""))
