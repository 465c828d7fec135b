"""Checks that metrics are available: the connections that policies name, and the verdicts of rollouts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from modelwright.api.reasons import Reason
from modelwright.api.remedies import REMEDIES
from modelwright.cli.doctor.facts import Facts, Json, NotPermitted, describe_object
from modelwright.cli.doctor.registry import DoctorFinding, fault_finding, namespace_check, warning_finding
from modelwright.core.rollout.record import TERMINAL_STATES

BUILTIN_CONNECTION = "default"
"""The connection of builtin metrics."""
_FAULT_REASONS = frozenset(
    {
        Reason.METRICS_SERVER_UNREACHABLE,
        Reason.METRICS_SERVER_TIMEOUT,
        Reason.METRICS_SERVER_ERROR,
        Reason.METRICS_ACCESS_DENIED,
        Reason.METRICS_ANSWER_INVALID,
        Reason.METRICS_ANSWER_TOO_LARGE,
        Reason.METRICS_STALE,
        Reason.QUERY_REFUSED,
        Reason.QUERY_FAILED,
        Reason.CONNECTION_UNKNOWN,
        Reason.CREDENTIALS_UNREADABLE,
        Reason.METRIC_SOURCE_MISSING,
        Reason.LATENCY_THRESHOLD_NOT_A_BUCKET,
        Reason.METRIC_JOB_FAILED,
        Reason.COMPARER_UNREACHABLE,
        Reason.COPIES_WITHOUT_TOKEN,
        Reason.BAD_SELECTOR_MATCHES_NOTHING,
        Reason.MORE_BAD_THAN_ALL,
        Reason.TARGET_SCRAPED_TWICE,
        Reason.VALUE_WITHOUT_DATA,
        Reason.UNEXPECTED_MEASUREMENT,
    }
)
"""Reasons of verdicts that more requests would not change."""
_NO_DATA_REASONS = frozenset({Reason.NO_DATA, Reason.NO_SERVING_DATA})


@namespace_check("connections", "every connection that policies name is in the operator's configuration")
def check_connections(facts: Facts, namespace: str) -> Iterator[DoctorFinding]:
    """Check the providers of metrics and triggers against the operator's connections."""
    wanted = [
        (obj, name)
        for plural in ("rolloutpolicies", "retrainingpolicies")
        for obj in facts.in_namespace(plural, namespace)
        for name in sorted(_named_connections(obj["spec"]))
    ]
    if not wanted or not facts.list_all("operator-deployments"):
        return
    known = _known_connections(facts)
    for obj, name in wanted:
        if name not in known:
            text = f"names the connection {name}; the operator has {', '.join(sorted(known)) or 'none'}"
            yield fault_finding(describe_object(obj), text, REMEDIES[Reason.CONNECTION_UNKNOWN])


def _known_connections(facts: Facts) -> set[str]:
    """Return the names of the connections of all installations. Raises NotPermitted."""
    for name, why in facts.not_permitted.items():
        if name.startswith("configmaps/"):
            raise NotPermitted(why)
    names: set[str] = set()
    for name in facts.objects:
        for obj in facts.list_all(name) if name.startswith("configmaps/") else ():
            text = (obj.get("data") or {}).get("connections.yaml")
            reported = yaml.safe_load(text) if text else {}
            names |= {entry["name"] for entry in (reported or {}).get("connections") or ()}
    return names


def _named_connections(node: Any) -> set[str]:
    """Return the connections that a policy names: explicit or default providers, and that of builtin metrics."""
    if isinstance(node, list):
        return {name for entry in node for name in _named_connections(entry)}
    if not isinstance(node, dict):
        return set()
    names = {
        str(node[kind].get("provider", BUILTIN_CONNECTION)) for kind in ("prometheus", "http") if _has_query(node, kind)
    }
    if "builtin" in node:
        names.add(BUILTIN_CONNECTION)
    return names | {name for value in node.values() for name in _named_connections(value)}


def _has_query(node: Json, kind: str) -> bool:
    return isinstance(node.get(kind), dict) and bool({"query", "bad", "path"} & node[kind].keys())


@namespace_check("measurements", "no running rollout lacks its metrics")
def check_measurements(facts: Facts, namespace: str) -> Iterator[DoctorFinding]:
    """Check the verdicts of running rollouts: failing metrics servers, pods that are not scraped."""
    for rollout in facts.in_namespace("modelrollouts", namespace):
        status = rollout.get("status") or {}
        if status.get("state") in TERMINAL_STATES:
            continue
        for verdict in status.get("verdicts") or ():
            if verdict.get("step") != status.get("step"):
                continue
            reason, about = verdict.get("reason"), f"{describe_object(rollout)}, metric {verdict.get('metric')}"
            text = (
                f"{reason}: {verdict.get('message') or Reason(reason).doc}"
                if reason in _FAULT_REASONS | _NO_DATA_REASONS
                else ""
            )
            if reason in _FAULT_REASONS:
                yield fault_finding(about, text, REMEDIES[Reason(reason)])
            elif reason in _NO_DATA_REASONS:
                yield warning_finding(about, text, REMEDIES[Reason(reason)])
