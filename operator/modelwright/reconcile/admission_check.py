"""Checks, by trying, whether the admission policies are in force: those that verify the author of an approval or a
command, and keep others from creating the operator's objects.

The operator may not read policies, and reading one would not prove that it is bound. Instead it sends forged objects as
dry runs, under a false name, and only the refusal of the policies themselves counts as proof.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from modelwright.api.names import API_VERSION
from modelwright.core.admission import AdmissionState
from modelwright.kube import api_errors
from modelwright.kube.client import KubeClient
from modelwright.obs.clock import Clock

log = logging.getLogger(__name__)

Object = dict[str, Any]

CHECK_NAME = "modelwright-admission-check"
"""A name that the policy modelwright-children refuses to all, since it lets the operator create its own objects."""
FORGED_USER = "modelwright:nobody"
"""The false user name. modelwright-author refuses it even to users who may name other authors, so that the check also
works for an operator with an administrator's rights."""
INTERVAL_SECONDS = 3600.0
NAMESPACE_PAUSE_SECONDS = 60.0
"""Seconds between the checks of two namespaces."""
RETRY_SECONDS = 30.0
MIN_RETRY_SECONDS = 1.0


def build_forgeries(namespace: str) -> tuple[tuple[Object, str], ...]:
    """Objects that no one may write, each with part of the message by which its policy refuses it."""
    model = {"modelRef": {"name": CHECK_NAME}}
    target = {"target": {"version": CHECK_NAME}}
    signed = {"by": FORGED_USER, "reason": "to see that this is refused"}
    rollout = {"name": CHECK_NAME, "uid": CHECK_NAME}
    approval = {"contentHash": CHECK_NAME, "decision": "Approve", "approver": FORGED_USER, "reason": signed["reason"]}
    artifact = {"uri": "https://example.com/model", "format": {"name": "none"}}
    return (
        (
            _forged_object("Approval", namespace, {**model, "rollout": rollout, **approval}),
            f'spec.approver is "{FORGED_USER}", but you are',
        ),
        (
            _forged_object("ModelRollout", namespace, {**model, **target, "rollback": signed}),
            f'spec.rollback.by is "{FORGED_USER}", but you are',
        ),
        (
            _forged_object(
                "ModelRollout",
                namespace,
                {**model, **target, "number": 1, "command": {"name": "promote", "token": CHECK_NAME, **signed}},
            ),
            f'spec.command.by is "{FORGED_USER}", but you are',
        ),
        (
            _forged_object("TrainingRun", namespace, {"policyRef": {"name": CHECK_NAME}, "manual": signed}),
            f'spec.manual.by is "{FORGED_USER}", but you are',
        ),
        (
            # By authors, which policies that don't prove spec.changedBy yet let in.
            _forged_object("ModelVersion", namespace, {**model, "authors": [FORGED_USER], "artifact": artifact}),
            f'spec.authors names "{FORGED_USER}", but you are',
        ),
        (
            {
                "apiVersion": "apps/v1",
                "kind": "ControllerRevision",
                "metadata": {"name": CHECK_NAME, "namespace": namespace},
                "revision": 1,
                "data": {"template": {}},
            },
            f'metadata.name is "{CHECK_NAME}", but you are',
        ),
    )


def _forged_object(kind: str, namespace: str, spec: Object) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": CHECK_NAME, "namespace": namespace},
        "spec": spec,
    }


class AdmissionCheck:
    """Checks the policies at start, each hour, and every half minute while they are not in force.

    Without an answer it retries after 1 s, 2 s, 4 s ... half a minute; before the first answer, no command, approval or
    report of a Job is trusted. In between it checks one other namespace a minute, since the policies may be bound to
    some namespaces only.

    `namespaces`: where the operator may write; the first that exists is checked for all. `places`: the namespaces that
    depend on the answer. `changed`: called when the answer for a namespace changes, with None for that of all.
    """

    def __init__(
        self,
        client: KubeClient,
        clock: Clock,
        namespaces: Sequence[str],
        *,
        places: Callable[[], Iterable[str]] = tuple,
        changed: Callable[[str | None], None] = lambda _: None,
        interval: float = INTERVAL_SECONDS,
        retry: float = RETRY_SECONDS,
        turn: float = NAMESPACE_PAUSE_SECONDS,
    ) -> None:
        self._client = client
        self._clock = clock
        self._namespaces = tuple(namespaces)
        self._places = places
        self._changed = changed
        self._interval = interval
        self._retry = retry
        self._turn = turn
        self._admission = AdmissionState()
        self._by_namespace: dict[str, AdmissionState] = {}
        """The answers by namespace; the one that was checked longest ago comes first."""

    def admission(self, namespace: str) -> AdmissionState:
        """The answer for a namespace: its own, if it was checked and the policies are in force at all."""
        return self._by_namespace.get(namespace, self._admission) if self._admission.in_force else self._admission

    async def run(self) -> None:
        """Check forever."""
        retry_delay, due = MIN_RETRY_SECONDS, self._clock.monotonic()
        while True:
            if self._clock.monotonic() < due:
                await self.check_next_namespace()
            elif await self.check_cluster():
                retry_delay = MIN_RETRY_SECONDS
                due = self._clock.monotonic() + (self._interval if self._admission.in_force else self._retry)
            else:
                due = self._clock.monotonic() + min(retry_delay, self._retry)
                retry_delay = min(2 * retry_delay, self._retry)
            not_in_force = any(not admission.in_force for admission in self._by_namespace.values())
            pause = min(self._turn, self._retry) if not_in_force else self._turn
            await self._clock.sleep(max(0.0, min(due - self._clock.monotonic(), pause)))

    async def check_cluster(self) -> bool:
        """Check for all namespaces. Returns False when there was no answer: the last one stays."""
        for namespace in self._namespaces:
            try:
                admission = await self._probe_namespace(namespace, self._admission)
            except (api_errors.NotFound, api_errors.Denied) as error:
                admission = self._unknown_admission(error, self._admission)
                continue
            except (api_errors.Transient, api_errors.Throttled) as error:
                log.warning("the admission policies can't be checked now", extra={"error": str(error)})
                return False
            break
        self._update_answer(None, self._admission, admission)
        return True

    async def check_next_namespace(self) -> None:
        """Check one namespace that was never checked, else the one checked longest ago; and one where the policies were
        not in force."""
        if not self._admission.in_force:
            return
        places = set(self._places())
        self._by_namespace = {place: admission for place, admission in self._by_namespace.items() if place in places}
        order = sorted(places - set(self._by_namespace)) + list(self._by_namespace)
        not_in_force = [place for place, admission in self._by_namespace.items() if not admission.in_force]
        if not order:
            return
        await self._check_namespace(order[0])
        if not_in_force and not_in_force[0] != order[0]:
            await self._check_namespace(not_in_force[0])

    async def _check_namespace(self, namespace: str) -> None:
        old = self._by_namespace.get(namespace, self._admission)
        admission: AdmissionState | None
        try:
            admission = await self._probe_namespace(namespace, old)
        except (api_errors.Transient, api_errors.Throttled, api_errors.NotFound, api_errors.Denied) as error:
            log.info("the admission policies can't be checked there now", extra={"error": str(error)})
            admission = self._by_namespace.get(namespace)
        self._by_namespace.pop(namespace, None)
        if admission is not None:
            self._by_namespace[namespace] = admission
            self._update_answer(namespace, old, admission)

    async def _probe_namespace(self, namespace: str, old: AdmissionState) -> AdmissionState:
        """The answer in a namespace. Raises Transient, Throttled, and errors that say that the namespace is gone."""
        try:
            accepted = await self._accepted_forgeries(namespace)
        except (api_errors.Transient, api_errors.Throttled, api_errors.NotFound):
            raise
        except api_errors.ApiError as error:
            if api_errors.is_terminating(error):
                raise
            return self._unknown_admission(error, old)
        if accepted:
            text = (
                f"the API server lets any user write {', '.join(accepted)} in the name of others in namespace "
                f"{namespace}: an administrator has to install the admission policies of this version "
                "(manifests/policies, or the chart modelwright-crds), and to bind them to all namespaces"
            )
            return AdmissionState(False, text, old.since)
        return AdmissionState(True, "", self._clock.now() if old.in_force is False else old.since)

    def _unknown_admission(self, error: api_errors.ApiError, old: AdmissionState) -> AdmissionState:
        return AdmissionState(
            False, f"whether the admission policies are in force can't be found out: {error}", old.since
        )

    async def _accepted_forgeries(self, namespace: str) -> list[str]:
        """The kinds whose forged objects were accepted. Raises ApiError when one is refused for another reason."""
        accepted = []
        for obj, refusal in build_forgeries(namespace):
            try:
                await self._client.create(obj, dry_run=True)
            except api_errors.ApiError as error:
                if refusal not in error.message:
                    raise
            else:
                accepted.append(f"{obj['kind']}s")
        return list(dict.fromkeys(accepted))

    def _update_answer(self, namespace: str | None, old: AdmissionState, new: AdmissionState) -> None:
        if namespace is None:
            self._admission = new
        if new.in_force == old.in_force:
            return
        where = {"namespace": namespace} if namespace is not None else {}
        if new.in_force:
            text = "the admission policies are in force: approvals, commands and reports of Jobs are honoured"
            log.info(text, extra=where)
        else:
            text = "approvals, commands and reports of Jobs are not honoured"
            log.warning(text, extra={**where, "why": new.problem})
        self._changed(namespace)
