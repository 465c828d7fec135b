"""What must hold of the conditions of every Model and ModelVersion at every moment (kstatus and our own rules)."""

from typing import Any

from modelwright.api.reasons import Reason

Object = dict[str, Any]
MORE: dict[str, set[str]] = {"Model": {"Available"}, "RolloutPolicy": {"Decidable", "EvidenceAsked"}}
"""Conditions that each object of a kind has beside those of kstatus."""
MAYBE = {"ModelVersion": {"Verified"}, "Model": {"EvidenceAsked"}, "ModelRollout": {"EvidenceAsked"}}
"""Conditions that some objects of a kind have: a version whose Model asks for signatures, what goes by a policy."""


def faults(obj: Object, before: Object | None = None) -> list[str]:
    """What is wrong with the status of `obj`, which followed the state `before` of the same object."""
    status = obj.get("status") or {}
    found = conditions(obj)
    if not status:
        return []
    who = f"{obj['kind']} {obj['metadata']['namespace']}/{obj['metadata']['name']}"
    wrong = []
    wanted = {"Ready", "Reconciling", "Stalled"} | MORE.get(obj["kind"], set())
    if found.keys() - MAYBE.get(obj["kind"], set()) != wanted:
        wrong.append(f"conditions are {sorted(found)}")
        return [f"{who}: {text}" for text in wrong]
    ready, reconciling, stalled = (found[t]["status"] == "True" for t in ("Ready", "Reconciling", "Stalled"))
    if reconciling and stalled:
        wrong.append("Reconciling and Stalled at once")
    if ready == (reconciling or stalled):
        wrong.append(f"Ready is {ready}, Reconciling {reconciling}, Stalled {stalled}")
    observed = status.get("observedGeneration")
    if observed is None or observed > obj["metadata"]["generation"]:
        wrong.append(f"observedGeneration {observed} of generation {obj['metadata']['generation']}")
    for type_, condition in found.items():
        if condition.get("observedGeneration") != observed:
            wrong.append(f"{type_}.observedGeneration is {condition.get('observedGeneration')}, not {observed}")
        if condition["reason"] not in set(Reason):
            wrong.append(f"{type_}.reason {condition['reason']} is not documented")
        if condition["status"] == "True" and type_ in ("Reconciling", "Stalled") and not condition.get("message"):
            wrong.append(f"{type_} says nothing")
    wrong += _changes(found, conditions(before)) if before else []
    if before and (before.get("status") or {}).get("observedGeneration", 0) > (observed or 0):
        wrong.append("observedGeneration has fallen")
    return [f"{who}: {text} (in {found})" for text in wrong]


def computed(obj: Object) -> str:
    """What kstatus makes of an object of a kind that it doesn't know: Terminating, InProgress, Failed or Current."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    if status.get("observedGeneration", metadata.get("generation")) != metadata.get("generation"):
        return "InProgress"
    for condition in status.get("conditions", ()):
        if condition["status"] == "True" and condition["type"] in ("Reconciling", "Stalled"):
            return "InProgress" if condition["type"] == "Reconciling" else "Failed"
    ready = conditions(obj).get("Ready", {}).get("status")
    return "Current" if ready in (None, "True") else "InProgress"


def conditions(obj: Object | None) -> dict[str, Object]:
    """Conditions by type."""
    return {c["type"]: c for c in ((obj or {}).get("status") or {}).get("conditions", [])}


def current(obj: Object) -> bool:
    """The status speaks of the present spec."""
    return bool((obj.get("status") or {}).get("observedGeneration") == obj["metadata"]["generation"])


def is_ready(obj: Object) -> bool:
    """Ready, and of the present spec."""
    return current(obj) and conditions(obj).get("Ready", {}).get("status") == "True"


def stalled(obj: Object, reason: str) -> bool:
    """Stalled for this reason, and of the present spec."""
    condition = conditions(obj).get("Stalled", {})
    return current(obj) and condition.get("status") == "True" and condition.get("reason") == reason


def waits(obj: Object, reason: str) -> bool:
    """Reconciling for this reason, and of the present spec."""
    condition = conditions(obj).get("Reconciling", {})
    return current(obj) and condition.get("status") == "True" and condition.get("reason") == reason


def _changes(now: dict[str, Object], before: dict[str, Object]) -> list[str]:
    wrong = []
    for type_ in now.keys() & before.keys():
        moved = now[type_]["lastTransitionTime"] != before[type_]["lastTransitionTime"]
        changed = now[type_]["status"] != before[type_]["status"]
        # Two changes may fall into one second, so an unmoved time is no fault.
        if moved and not changed:
            wrong.append(f"{type_}.lastTransitionTime moved without its status")
    return wrong
