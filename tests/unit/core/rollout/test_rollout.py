"""The rollout table, row by row and case by case."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.rollout import RolloutState as State
from modelwright.core.pod_failures import PodFailure
from modelwright.core.problem import Problem
from modelwright.core.revision import Revision
from modelwright.core.rollout.actions import EnsureRevision, RemoveRevision, SetTraffic
from modelwright.core.rollout.machine import TABLE, decide_actions, determine_state
from modelwright.core.rollout.observation import (
    Observation,
    RevisionView,
    ServingRevision,
    TrafficView,
    confirm_serving,
)
from modelwright.core.rollout.rows import unmanaged
from modelwright.core.rollout.traffic_split import TrafficSplit
from scripts.docgen.rollout_page import render_rollout_page

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
OLD, NEW, THIRD = Revision("v1", "old"), Revision("v2", "new"), Revision("v3", "third")


def up(revision: Revision, pods: int = 1, of: int = 1) -> RevisionView:
    return RevisionView(revision, replicas=of, ready=pods, available=pods, started=NOW - timedelta(minutes=1))


def observation(
    *views: RevisionView, target: Revision | None = NEW, named: Revision | None = OLD, **more: object
) -> Observation:
    base = Observation(
        now=NOW,
        target=target,
        revisions={view.revision.hash: view for view in views},
        traffic=TrafficView(frozenset({named.hash} if named else ()), confirmed=True),
        serving=ServingRevision(OLD, NOW - timedelta(hours=1)),
    )
    return replace(base, **more)


CASES = [
    (
        "a first version: it is run and named at once, since nobody is served by anything else",
        observation(target=NEW, named=None, serving=None, traffic=TrafficView()),
        State.PROGRESSING,
        Reason.WAITING_FOR_PODS,
        [EnsureRevision(NEW), SetTraffic(TrafficSplit.all_to(NEW))],
    ),
    (
        "a new version: it comes up beside the old one, which keeps the traffic",
        observation(up(OLD)),
        State.PROGRESSING,
        Reason.WAITING_FOR_PODS,
        [EnsureRevision(OLD), SetTraffic(TrafficSplit.all_to(OLD)), EnsureRevision(NEW)],
    ),
    (
        "half of the new pods answer: traffic stays",
        observation(up(OLD), up(NEW, 1, 2), replicas=2),
        State.PROGRESSING,
        Reason.WAITING_FOR_PODS,
        [EnsureRevision(OLD), SetTraffic(TrafficSplit.all_to(OLD)), EnsureRevision(NEW)],
    ),
    (
        "the new pods answer: traffic moves",
        observation(up(OLD), up(NEW)),
        State.PROMOTING,
        Reason.WAITING_FOR_ROUTE,
        [EnsureRevision(OLD), EnsureRevision(NEW), SetTraffic(TrafficSplit.all_to(NEW))],
    ),
    (
        "the gateway lags: the old revision stays",
        observation(up(OLD), up(NEW), named=NEW, traffic=TrafficView(frozenset({"new"}))),
        State.PROMOTING,
        Reason.ROUTE_NOT_PROGRAMMED,
        [EnsureRevision(NEW), SetTraffic(TrafficSplit.all_to(NEW))],
    ),
    (
        "traffic has just moved: the old revision stays for the settle time",
        observation(up(OLD), up(NEW), named=NEW, serving=ServingRevision(NEW, NOW - timedelta(seconds=4))),
        State.SUCCEEDED,
        Reason.SERVING,
        [EnsureRevision(NEW), SetTraffic(TrafficSplit.all_to(NEW))],
    ),
    (
        "traffic has settled: the old revision leaves",
        observation(up(OLD), up(NEW), named=NEW, serving=ServingRevision(NEW, NOW - timedelta(seconds=5))),
        State.SUCCEEDED,
        Reason.SERVING,
        [EnsureRevision(NEW), SetTraffic(TrafficSplit.all_to(NEW)), RemoveRevision(OLD)],
    ),
    (
        "the new version serves alone",
        observation(up(NEW), named=NEW, serving=ServingRevision(NEW, NOW - timedelta(hours=1))),
        State.SUCCEEDED,
        Reason.SERVING,
        [EnsureRevision(NEW), SetTraffic(TrafficSplit.all_to(NEW))],
    ),
    (
        "a third version supersedes the second: the second leaves, the first keeps the traffic",
        observation(up(OLD), up(NEW, 0), target=THIRD),
        State.PROGRESSING,
        Reason.WAITING_FOR_PODS,
        [EnsureRevision(OLD), SetTraffic(TrafficSplit.all_to(OLD)), EnsureRevision(THIRD), RemoveRevision(NEW)],
    ),
    (
        "the wanted version goes back to the one that serves: the candidate leaves",
        observation(up(OLD), up(NEW, 0), target=OLD),
        State.SUCCEEDED,
        Reason.SERVING,
        [EnsureRevision(OLD), SetTraffic(TrafficSplit.all_to(OLD)), RemoveRevision(NEW)],
    ),
    (
        "the version that serves was deleted: its revision goes on serving",
        observation(up(OLD), target=None, problem=Problem(Reason.WAITING_FOR_VERSION, "gone")),
        State.PENDING,
        Reason.WAITING_FOR_VERSION,
        [EnsureRevision(OLD), SetTraffic(TrafficSplit.all_to(OLD))],
    ),
    (
        "a child's name is taken: what serves is kept, nothing else happens",
        observation(up(OLD), up(NEW), problem=Problem(Reason.NAME_TAKEN, "taken", stalled=True)),
        State.PENDING,
        Reason.NAME_TAKEN,
        [EnsureRevision(OLD), SetTraffic(TrafficSplit.all_to(OLD))],
    ),
    (
        "the new pods fail: the rollout stalls with their reason, the old revision keeps the traffic",
        observation(up(OLD), replace(up(NEW, 0), failure=PodFailure(Reason.MODEL_LOAD_FAILED, "exit 1"))),
        State.PROGRESSING,
        Reason.MODEL_LOAD_FAILED,
        [EnsureRevision(OLD), SetTraffic(TrafficSplit.all_to(OLD)), EnsureRevision(NEW)],
    ),
    (
        "the new pods are never ready: the rollout stalls at startTimeout, and they go on trying",
        observation(up(OLD), replace(up(NEW, 0), started=NOW - timedelta(minutes=11))),
        State.PROGRESSING,
        Reason.START_TIMEOUT,
        [EnsureRevision(OLD), SetTraffic(TrafficSplit.all_to(OLD)), EnsureRevision(NEW)],
    ),
    (
        "all pods of what serves are gone: that is an illness, not a rollout",
        observation(up(NEW, 0), named=NEW, serving=ServingRevision(NEW, NOW - timedelta(hours=1))),
        State.SUCCEEDED,
        Reason.SERVING,
        [EnsureRevision(NEW), SetTraffic(TrafficSplit.all_to(NEW))],
    ),
    (
        "a first version that never worked gives way to the next at once",
        observation(up(OLD, 0), target=NEW, named=OLD, serving=None),
        State.PROGRESSING,
        Reason.WAITING_FOR_PODS,
        [EnsureRevision(NEW), SetTraffic(TrafficSplit.all_to(NEW))],
    ),
    (
        "status was lost in a restore: pods that answer keep the traffic",
        observation(up(OLD), up(NEW, 0), named=OLD, serving=None),
        State.PROGRESSING,
        Reason.WAITING_FOR_PODS,
        [EnsureRevision(OLD), EnsureRevision(NEW)],
    ),
    (
        "the way to what serves is lost while a candidate comes up: it is made again",
        observation(up(OLD), up(NEW, 0), named=None),
        State.PROGRESSING,
        Reason.WAITING_FOR_PODS,
        [EnsureRevision(OLD), SetTraffic(TrafficSplit.all_to(OLD)), EnsureRevision(NEW)],
    ),
    (
        "somebody made traffic name a revision that isn't there: it comes back to what serves",
        observation(up(OLD), up(NEW, 0), named=THIRD),
        State.PROGRESSING,
        Reason.WAITING_FOR_PODS,
        [EnsureRevision(OLD), SetTraffic(TrafficSplit.all_to(OLD)), EnsureRevision(NEW)],
    ),
    (
        "the new pods die before the gateway was seen to follow: traffic goes back to those that answer",
        observation(up(OLD), up(NEW, 0), named=NEW),
        State.PROGRESSING,
        Reason.WAITING_FOR_PODS,
        [EnsureRevision(OLD), SetTraffic(TrafficSplit.all_to(OLD)), EnsureRevision(NEW)],
    ),
    (
        "nobody answers: traffic isn't moved to and fro",
        observation(up(OLD, 0), up(NEW, 0), named=NEW),
        State.PROGRESSING,
        Reason.WAITING_FOR_PODS,
        [EnsureRevision(NEW)],
    ),
    (
        "the version that serves and the way to it are gone: both are had again",
        observation(
            replace(up(OLD, 0), replicas=None), target=None, named=None, problem=Problem(Reason.WAITING_FOR_VERSION, "")
        ),
        State.PENDING,
        Reason.WAITING_FOR_VERSION,
        [EnsureRevision(OLD), SetTraffic(TrafficSplit.all_to(OLD))],
    ),
    (
        "suspended: nothing is done",
        observation(up(OLD), up(NEW), suspended=True),
        State.PROMOTING,
        Reason.WAITING_FOR_ROUTE,
        [],
    ),
    (
        "replicas 0: there is nothing to wait for",
        observation(up(OLD, 0, 0), up(NEW, 0, 0), replicas=0),
        State.PROMOTING,
        Reason.WAITING_FOR_ROUTE,
        [EnsureRevision(OLD), EnsureRevision(NEW), SetTraffic(TrafficSplit.all_to(NEW))],
    ),
]


@pytest.mark.parametrize(("observed", "state", "reason", "actions"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_follows_when(observed: Observation, state: State, reason: Reason, actions: list[object]) -> None:
    assessment = determine_state(observed)
    assert (assessment.state, assessment.reason) == (state, reason)
    assert list(decide_actions(observed).actions) == actions


def test_every_row_of_the_table_is_reached_by_a_case() -> None:
    reached = {next(rule.name for rule in TABLE if rule.when(case[1])) for case in CASES}
    assert reached == {rule.name for rule in unmanaged.ROWS}


def test_revision_serves_once_named_confirmed_and_ready() -> None:
    ready = observation(up(OLD), up(NEW), named=NEW)
    assert confirm_serving(ready, None) == ServingRevision(NEW, NOW)
    unconfirmed = replace(ready, traffic=replace(ready.traffic, confirmed=False))
    assert confirm_serving(unconfirmed, None) == ready.serving
    unready = observation(up(OLD), up(NEW, 1, 2), named=NEW, replicas=2)
    assert confirm_serving(unready, None) == unready.serving


def test_the_documented_table_is_the_code() -> None:
    assert Path("docs/concepts/rollout-states.md").read_text() == render_rollout_page(), "run `make generate`"
