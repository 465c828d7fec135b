"""A webhook server of the operator, and alerts to send to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

from modelwright.api.v1alpha1.retraining import RetrainingPolicySpec
from modelwright.app.webhooks import LeaderLink, TriggerBackend, TriggerEvent, WebhookServer
from modelwright.kube.access_review import AccessUndetermined, Audience, ObjectAccess, PathAccess, User
from modelwright.obs.clock import FakeClock
from modelwright.reconcile.webhook_queue import WebhookQueueFull

SENDER, STRANGER = User("system:serviceaccount:monitoring:alertmanager"), User("eve")


TOKENS = {
    "good.token-1": SENDER,
    "good.token-2": SENDER,
    "strangers-token": STRANGER,
    "for-the-api-server": replace(SENDER, for_our_audience=False),
}


URL = "/triggers/team/fraud/drift"


SPEC = RetrainingPolicySpec.model_validate(
    {
        "modelRef": {"name": "fraud"},
        "triggers": [
            {"name": "drift", "webhook": {"source": "Alertmanager", "labels": {"model": "fraud"}}},
            {"name": "upload", "webhook": {"source": "CloudEvents"}},
            {"name": "nightly", "schedule": {"cron": "0 3 * * *"}},
        ],
        "run": {
            "dataset": {"uri": "s3://data/train"},
            "train": {"job": {"template": {}}},
            "output": {"uri": "s3://models/fraud", "format": {"name": "sklearn"}},
        },
    }
)


@dataclass
class FakeAccess:
    """Knows the tokens above; the sender may trigger `fraud` in `team`. `broken` is what it can't find out for."""

    broken: str = ""
    asked: list[str] = field(default_factory=list)

    async def authenticate(self, token: str, audience: Audience) -> User | None:
        self.asked.append(token)
        if self.broken:
            raise AccessUndetermined(self.broken)
        found = TOKENS.get(token)
        return found if found is None or found.for_our_audience or audience is Audience.ANY else None

    async def is_allowed(self, user: User, attempt: ObjectAccess | PathAccess) -> bool:
        assert isinstance(attempt, ObjectAccess)
        assert (attempt.verb, attempt.group, attempt.resource) == ("trigger", "modelwright.dev", "retrainingpolicies")
        return user.name == SENDER.name and attempt.namespace == "team" and attempt.name in ("fraud", "gone")


@dataclass
class Door:
    """A served door, and what came through it."""

    access: FakeAccess
    clock: FakeClock
    unready: list[str] = field(default_factory=list)
    leader: str | None = None
    taken: list[tuple[str, str, str, list[TriggerEvent]]] = field(default_factory=list)
    came: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    dealt_with: asyncio.Event = field(default_factory=asyncio.Event)
    full: str = ""
    url: str = ""

    async def accept(self, namespace: str, policy: str, trigger: str, found: Sequence[TriggerEvent]) -> None:
        self.taken.append((namespace, policy, trigger, list(found)))
        self.came.release()
        if self.full:
            raise WebhookQueueFull(self.full)
        await self.dealt_with.wait()

    async def post(
        self, path: str = URL, body: Any = None, token: str | None = "good.token-1", **headers: str
    ) -> tuple[int, dict[str, Any], Any]:
        """Status, headers and JSON answer."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            given["Authorization"] = f"Bearer {token}"
        data = body if isinstance(body, bytes) else json.dumps(alert() if body is None else body).encode()
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.url + path, data=data, headers={"Content-Type": "application/json"} | given) as answer,
        ):
            text = await answer.text()
            return answer.status, dict(answer.headers), json.loads(text) if text.startswith("{") else text


@contextlib.asynccontextmanager
async def opened(accept_seconds: float = 25.0, audience: Audience = Audience.OURS) -> AsyncIterator[Door]:
    door = Door(FakeAccess(), FakeClock())
    door.dealt_with.set()
    hooks = WebhookServer(
        door.access,
        TriggerBackend(
            find_policy=lambda namespace, name: SPEC if (namespace, name) == ("team", "fraud") else None,
            accept=door.accept,
            unready_reason=lambda: door.unready[0] if door.unready else None,
        ),
        LeaderLink(lambda: door.leader),
        audience=audience,
        clock=door.clock,
        accept_seconds=accept_seconds,
    )
    listener = await hooks.serve("127.0.0.1", 0)
    door.url = f"http://127.0.0.1:{listener.port}"
    try:
        yield door
    finally:
        await listener.close()


def alert(count: int = 1, status: str = "firing", model: str = "fraud") -> dict[str, Any]:
    alerts = [
        {
            "status": status,
            "labels": {"alertname": "Drift", "model": model},
            "annotations": {"summary": "PSI is over 0.2"},
            "startsAt": "2026-11-26T03:00:00Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "fingerprint": f"f{number}",
        }
        for number in range(count)
    ]
    return {"version": "4", "groupKey": "{}", "status": status, "receiver": "modelwright", "alerts": alerts}
