"""Whether metrics can be had: connections that policies name, and what rollouts say of their measurements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from modelwright.api.cures import CURES
from modelwright.api.reasons import Reason
from modelwright.cli.doctor.facts import Facts, Json, NotPermitted, place
from modelwright.cli.doctor.registry import Finding, each_namespace, fault, warning
from modelwright.core.rollout.record import TERMINAL

BUILTIN_FROM = "default"
"""The connection that builtin metrics are read from."""
_FAULTS = frozenset(
    {
        Reason.METRICS_SERVER_UNREACHABLE, Reason.METRICS_SERVER_TIMEOUT, Reason.METRICS_SERVER_ERROR,
        Reason.METRICS_ACCESS_DENIED, Reason.METRICS_ANSWER_INVALID, Reason.METRICS_ANSWER_TOO_LARGE,
        Reason.METRICS_STALE, Reason.QUERY_REFUSED, Reason.QUERY_FAILED, Reason.CONNECTION_UNKNOWN,
        Reason.CREDENTIALS_UNREADABLE, Reason.METRIC_SOURCE_MISSING, Reason.LATENCY_THRESHOLD_NOT_A_BUCKET,
        Reason.METRIC_JOB_FAILED, Reason.COMPARER_UNREACHABLE, Reason.COPIES_WITHOUT_TOKEN,
        Reason.BAD_SELECTOR_MATCHES_NOTHING, Reason.MORE_BAD_THAN_ALL, Reason.TARGET_SCRAPED_TWICE,
        Reason.VALUE_WITHOUT_DATA, Reason.UNEXPECTED_MEASUREMENT,
    }
)  # fmt: skip
"""Of verdicts: what more requests don't change."""
_UNSCRAPED = frozenset({Reason.NO_DATA, Reason.NO_SERVING_DATA})


@each_namespace("connections", "every connection that policies name is in the operator's configuration")
def connections(facts: Facts, namespace: str) -> Iterator[Finding]:
    """Providers of metrics and triggers, against the operator's connections."""
    wanted = [
        (obj, name)
        for plural in ("rolloutpolicies", "retrainingpolicies")
        for obj in facts.within(plural, namespace)
        for name in sorted(_providers(obj["spec"]))
    ]
    if not wanted or not facts.all("operator-deployments"):
        return
    known = _known(facts)
    for obj, name in wanted:
        if name not in known:
            text = f"names the connection {name}; the operator has {', '.join(sorted(known)) or 'none'}"
            yield fault(place(obj), text, CURES[Reason.CONNECTION_UNKNOWN])


def _known(facts: Facts) -> set[str]:
    """Names of the connections of all installs. Raises NotPermitted."""
    for name, why in facts.unseen.items():
        if name.startswith("configmaps/"):
            raise NotPermitted(why)
    found: set[str] = set()
    for name in facts.objects:
        for obj in facts.all(name) if name.startswith("configmaps/") else ():
            text = (obj.get("data") or {}).get("connections.yaml")
            reported = yaml.safe_load(text) if text else {}
            found |= {entry["name"] for entry in (reported or {}).get("connections") or ()}
    return found


def _providers(node: Any) -> set[str]:
    """Names of connections in a policy: where `provider` stands or is left out, and of builtin metrics."""
    if isinstance(node, list):
        return {name for entry in node for name in _providers(entry)}
    if not isinstance(node, dict):
        return set()
    found = {str(node[kind].get("provider", BUILTIN_FROM)) for kind in ("prometheus", "http") if _asks(node, kind)}
    if "builtin" in node:
        found.add(BUILTIN_FROM)
    return found | {name for value in node.values() for name in _providers(value)}


def _asks(node: Json, kind: str) -> bool:
    return isinstance(node.get(kind), dict) and bool({"query", "bad", "path"} & node[kind].keys())


@each_namespace("measurements", "no rollout that goes on lacks its metrics")
def measurements(facts: Facts, namespace: str) -> Iterator[Finding]:
    """Verdicts of rollouts that go on: metrics servers that don't answer, pods that nobody scrapes."""
    for rollout in facts.within("modelrollouts", namespace):
        status = rollout.get("status") or {}
        if status.get("state") in TERMINAL:
            continue
        for verdict in status.get("verdicts") or ():
            if verdict.get("step") != status.get("step"):
                continue
            reason, about = verdict.get("reason"), f"{place(rollout)}, metric {verdict.get('metric')}"
            text = f"{reason}: {verdict.get('message') or Reason(reason).doc}" if reason in _FAULTS | _UNSCRAPED else ""
            if reason in _FAULTS:
                yield fault(about, text, CURES[Reason(reason)])
            elif reason in _UNSCRAPED:
                yield warning(about, text, CURES[Reason(reason)])
