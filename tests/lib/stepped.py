"""The operator's reconcilers stepped by hand against a simulated cluster: no threads, no timers, no waiting."""

import copy
from collections.abc import Callable, Coroutine
from typing import Any
from unittest import mock

from modelwright.core.admission import AdmissionState
from modelwright.kube import api_errors, kinds
from modelwright.kube.queue import Key
from modelwright.kube.store import Store
from modelwright.obs.clock import FakeClock
from modelwright.reconcile import watches
from modelwright.reconcile.context import Context
from modelwright.reconcile.model.reconciler import ModelReconciler
from modelwright.reconcile.model_rollout import OrphanedRolloutReconciler
from modelwright.reconcile.model_version import ModelVersionReconciler
from modelwright.reconcile.policy_snapshots import PolicySnapshotReconciler
from modelwright.reconcile.retraining_policy import RetrainingPolicyReconciler
from modelwright.reconcile.rollout_policy import RolloutPolicyReconciler
from modelwright.reconcile.training_run.reconciler import TrainingRunReconciler
from modelwright.render.images import Images
from modelwright.sandbox.process import SANDBOX
from tests.lib.simulated import SimulatedApi

Object = dict[str, Any]


class _Events:
    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []

    def record(self, obj: Object, type_: str, reason: str, note: str, **_: Any) -> None:
        self.told.append((obj["metadata"]["name"], type_, str(reason)))


class Operator:
    """One operator process: a store, a queue, and the reconcilers, stepped by hand."""

    def __init__(self, api: SimulatedApi, clock: FakeClock, **parts: Any) -> None:
        self.api = api
        self.store = Store(watches.INDEXERS)
        self.queue: dict[Key, None] = {}
        self.store.subscribe(self._route)
        self.events = _Events()
        context = Context(
            client=api,  # type: ignore[arg-type]
            store=self.store,
            events=self.events,  # type: ignore[arg-type]
            clock=clock,
            enqueue=lambda key: self.queue.__setitem__(key, None),
            **{
                "images": Images("example.com/fetch:1"),
                "served_kinds": frozenset(kinds.ALL_KINDS),
                "admission": lambda _: AdmissionState(in_force=True),
                **parts,
            },
        )
        self.reconcilers = {
            "Model": ModelReconciler(context).reconcile,
            "ModelVersion": ModelVersionReconciler(context).reconcile,
            "ModelRollout": OrphanedRolloutReconciler(context).reconcile,
            "ControllerRevision": PolicySnapshotReconciler(context).reconcile,
            "RolloutPolicy": RolloutPolicyReconciler(context).reconcile,
            "RetrainingPolicy": RetrainingPolicyReconciler(context).reconcile,
            "TrainingRun": TrainingRunReconciler(context).reconcile,
        }
        api.fill(self.store)

    def _route(self, kind: kinds.Kind, old: Object | None, new: Object | None) -> None:
        if watches.is_relevant_change(kind, old, new):
            for obj in (new, old):
                if obj is not None:
                    self.queue.update(dict.fromkeys(watches.affected_keys(kind, obj, self.store)))

    def hear(self, count: int) -> None:
        """Take the oldest events of the watches."""
        told, self.api.told[:count] = self.api.told[:count], []
        for kind, event, obj in told:
            self.store.apply(kind, event, copy.deepcopy(obj))

    def look_again(self) -> None:
        """What timers do: everything is due."""
        for kind in (
            kinds.MODEL,
            kinds.MODEL_VERSION,
            kinds.ROLLOUT_POLICY,
            kinds.RETRAINING_POLICY,
            kinds.TRAINING_RUN,
        ):
            self.queue.update({Key(kind.kind, *where): None for where in self.store.list_names(kind)})

    def work(self) -> None:
        """One pass over each key that waits now; refusals of the API server are the queue's matter."""
        for key in list(self.queue):
            del self.queue[key]
            try:
                _finish(self.reconcilers[key.kind](key))
            except api_errors.ApiError:
                self.queue[key] = None


def _finish(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run to the end; the simulated API never makes it wait, and the sandbox is asked without its thread."""
    try:
        with mock.patch.multiple(SANDBOX, run_in_turn=_at_once, run_if_free=_at_once):
            coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("a pass waits for something")


async def _at_once(_: str, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    return function(*args, **options)
