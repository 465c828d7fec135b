"""Whether the admission policies are in force that prove who writes an approval or a command: found out by trying.

The operator may not read policies, and reading one would not prove that it is bound. So it sends what nobody may write,
in a forged name and as a dry run, and only the policies' own refusal of it is proof.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from modelwright.api.names import API_VERSION
from modelwright.core.people import Admission
from modelwright.kube import errors
from modelwright.kube.client import KubeClient
from modelwright.obs.clock import Clock

log = logging.getLogger(__name__)

Object = dict[str, Any]

NAME = "modelwright-admission-check"
FORGED = "modelwright:nobody"
"""The forged name. modelwright-author refuses it even to who may name other authors, so that the check works for an
operator with an administrator's rights too."""
INTERVAL = 3600.0
RETRY = 30.0
SHORTEST_RETRY = 1.0


def forgeries(namespace: str) -> tuple[tuple[Object, str], ...]:
    """What nobody may write, each with the words in which its policy refuses it."""
    model = {"modelRef": {"name": NAME}}
    target = {"target": {"version": NAME}}
    signed = {"by": FORGED, "reason": "to see that this is refused"}
    rollout = {"name": NAME, "uid": NAME}
    approval = {"contentHash": NAME, "decision": "Approve", "approver": FORGED, "reason": signed["reason"]}
    artifact = {"uri": "https://example.com/model", "format": {"name": "none"}}
    return (
        (
            _object("Approval", namespace, {**model, "rollout": rollout, **approval}),
            f'spec.approver is "{FORGED}", but you are',
        ),
        (
            _object("ModelRollout", namespace, {**model, **target, "rollback": signed}),
            f'spec.rollback.by is "{FORGED}", but you are',
        ),
        (
            _object(
                "ModelRollout",
                namespace,
                {**model, **target, "number": 1, "command": {"name": "promote", "token": NAME, **signed}},
            ),
            f'spec.command.by is "{FORGED}", but you are',
        ),
        (
            _object("TrainingRun", namespace, {"policyRef": {"name": NAME}, "manual": signed}),
            f'spec.manual.by is "{FORGED}", but you are',
        ),
        (
            _object("ModelVersion", namespace, {**model, "author": FORGED, "artifact": artifact}),
            f'spec.author is "{FORGED}", but you are',
        ),
    )


def _object(kind: str, namespace: str, spec: Object) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": spec,
    }


class AdmissionCheck:
    """Asks at start, each hour, and every half minute while the answer isn't good; without an answer after 1 s, 2 s,
    4 s ... half a minute: until the first one, no command and no approval is honoured.

    `namespaces`: where the operator may write; the first that exists is used. `changed` is called when the answer has
    become another one.
    """

    def __init__(
        self,
        client: KubeClient,
        clock: Clock,
        namespaces: Sequence[str],
        *,
        changed: Callable[[], None] = lambda: None,
        interval: float = INTERVAL,
        retry: float = RETRY,
    ) -> None:
        self._client = client
        self._clock = clock
        self._namespaces = tuple(namespaces)
        self._changed = changed
        self._interval = interval
        self._retry = retry
        self._admission = Admission()

    def admission(self) -> Admission:
        """What is known now."""
        return self._admission

    async def run(self) -> None:
        """Ask again and again; never comes back."""
        unanswered = SHORTEST_RETRY
        while True:
            if await self.look():
                unanswered = SHORTEST_RETRY
                await self._clock.sleep(self._interval if self._admission.in_force else self._retry)
            else:
                await self._clock.sleep(min(unanswered, self._retry))
                unanswered = min(2 * unanswered, self._retry)

    async def look(self) -> bool:
        """Ask once. False when there was no answer: what was known before holds on."""
        try:
            accepted = await self._accepted()
        except (errors.Transient, errors.Throttled) as error:
            log.warning("the admission policies can't be checked now", extra={"error": str(error)})
            return False
        except errors.ApiError as error:
            text = f"whether the admission policies are in force can't be found out: {error}"
            self._learn(Admission(False, text, self._admission.since))
            return True
        if accepted:
            text = (
                f"the API server lets anybody write {', '.join(accepted)} in the name of others: an administrator has "
                "to install the admission policies (manifests/policies, or the chart modelwright-crds)"
            )
            self._learn(Admission(False, text, self._admission.since))
        elif self._admission.in_force is False:
            self._learn(Admission(True, "", self._clock.now()))
        else:
            self._learn(Admission(True, "", self._admission.since))
        return True

    async def _accepted(self) -> list[str]:
        """The forgeries that were not refused, by kind. Raises ApiError when one is refused for another reason."""
        for namespace in self._namespaces[:-1]:
            try:
                return await self._accepted_in(namespace)
            except errors.NotFound:
                continue
        return await self._accepted_in(self._namespaces[-1])

    async def _accepted_in(self, namespace: str) -> list[str]:
        accepted = []
        for obj, refusal in forgeries(namespace):
            try:
                await self._client.create(obj, dry_run=True)
            except errors.ApiError as error:
                if refusal not in error.message:
                    raise
            else:
                accepted.append(f"{obj['kind']}s")
        return list(dict.fromkeys(accepted))

    def _learn(self, new: Admission) -> None:
        old, self._admission = self._admission, new
        if new.in_force == old.in_force:
            return
        if new.in_force:
            log.info("the admission policies are in force: approvals and commands are honoured")
        else:
            log.warning("approvals and commands are not honoured", extra={"why": new.problem})
        self._changed()
