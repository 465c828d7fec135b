"""Whether the admission policies are in force that prove who writes an approval or a command, and that keep others from
making what the operator makes: found out by trying.

The operator may not read policies, and reading one would not prove that it is bound. So it sends what nobody may write,
in a forged name and as a dry run, and only the policies' own refusal of it is proof.
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
"""The policy modelwright-children refuses this name to everybody, since it lets the operator make what it makes."""
FORGED_USER = "modelwright:nobody"
"""The forged name. modelwright-author refuses it even to who may name other authors, so that the check works for an
operator with an administrator's rights too."""
INTERVAL_SECONDS = 3600.0
NAMESPACE_PAUSE_SECONDS = 60.0
"""Seconds from one namespace to the next."""
RETRY_SECONDS = 30.0
MIN_RETRY_SECONDS = 1.0


def build_forgeries(namespace: str) -> tuple[tuple[Object, str], ...]:
    """What nobody may write, each with the words in which its policy refuses it."""
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
    """Asks at start, each hour, and every half minute while the answer isn't good; without an answer after 1 s, 2 s,
    4 s ... half a minute: until the first one, no command, no approval and no report of a Job is honoured. Between, it
    asks in one other namespace a minute, since the policies may be bound to some namespaces only.

    `namespaces`: where the operator may write; in the first that exists is asked what counts for all. `places`: where
    something may depend on the answer. `changed` is called when the answer for one namespace has become another one, or
    (with None) that for all.
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
        """What was found out in one namespace; the one that was asked longest ago comes first."""

    def admission(self, namespace: str) -> AdmissionState:
        """What is known now for a namespace: its own answer, where the one for all is good and it has had its turn."""
        return self._by_namespace.get(namespace, self._admission) if self._admission.in_force else self._admission

    async def run(self) -> None:
        """Ask again and again; never comes back."""
        unanswered, due = MIN_RETRY_SECONDS, self._clock.monotonic()
        while True:
            if self._clock.monotonic() < due:
                await self.check_next_namespace()
            elif await self.check_cluster():
                unanswered = MIN_RETRY_SECONDS
                due = self._clock.monotonic() + (self._interval if self._admission.in_force else self._retry)
            else:
                due = self._clock.monotonic() + min(unanswered, self._retry)
                unanswered = min(2 * unanswered, self._retry)
            ill = any(not known.in_force for known in self._by_namespace.values())
            turn = min(self._turn, self._retry) if ill else self._turn
            await self._clock.sleep(max(0.0, min(due - self._clock.monotonic(), turn)))

    async def check_cluster(self) -> bool:
        """Ask what counts for all. False when there was no answer: what was known before holds on."""
        for namespace in self._namespaces:
            try:
                found = await self._probe_namespace(namespace, self._admission)
            except (api_errors.NotFound, api_errors.Denied) as error:
                found = self._unknown_admission(error, self._admission)
                continue
            except (api_errors.Transient, api_errors.Throttled) as error:
                log.warning("the admission policies can't be checked now", extra={"error": str(error)})
                return False
            break
        self._update_answer(None, self._admission, found)
        return True

    async def check_next_namespace(self) -> None:
        """Ask in one namespace: in one that was never asked, else where it is longest ago. Where the answer wasn't good
        goes first."""
        if not self._admission.in_force:
            return
        places = set(self._places())
        self._by_namespace = {place: known for place, known in self._by_namespace.items() if place in places}
        order = sorted(places - set(self._by_namespace)) + list(self._by_namespace)
        ill = [place for place, known in self._by_namespace.items() if not known.in_force]
        if not order:
            return
        await self._check_namespace(order[0])
        if ill and ill[0] != order[0]:
            await self._check_namespace(ill[0])

    async def _check_namespace(self, namespace: str) -> None:
        old = self._by_namespace.get(namespace, self._admission)
        found: AdmissionState | None
        try:
            found = await self._probe_namespace(namespace, old)
        except (api_errors.Transient, api_errors.Throttled, api_errors.NotFound, api_errors.Denied) as error:
            log.info("the admission policies can't be checked there now", extra={"error": str(error)})
            found = self._by_namespace.get(namespace)
        self._by_namespace.pop(namespace, None)
        if found is not None:
            self._by_namespace[namespace] = found
            self._update_answer(namespace, old, found)

    async def _probe_namespace(self, namespace: str, old: AdmissionState) -> AdmissionState:
        """What is so in a namespace. Raises Transient, Throttled, and what says that there is no such namespace (any
        more)."""
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
                f"the API server lets anybody write {', '.join(accepted)} in the name of others in namespace "
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
        """The forgeries that were not refused, by kind. Raises ApiError when one is refused for another reason."""
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
