"""Whose token is whose, for whom it was made, and what is asked of the API server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from modelwright.kube.access_review import TOKEN_REVIEW, Audience, KubeAccessReviewer, ObjectAccess, PathAccess, User
from modelwright.kube.kinds import Kind

OURS, THEIRS = "modelwright.dev", "https://kubernetes.default.svc"


class Client:
    """An API server that knows one token, made for `audience`; "" is one of an authenticator without audiences."""

    def __init__(self, audience: str) -> None:
        self.audience = audience
        self.asked: list[Mapping[str, Any]] = []

    async def review(self, kind: Kind, spec: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(spec)
        if kind != TOKEN_REVIEW:
            return {"status": {"allowed": True}}
        meant = spec.get("audiences") or [THEIRS]
        if self.audience and self.audience not in meant:
            return {"status": {"authenticated": False}}
        user = {"username": "ann", "groups": ["a"]}
        audiences = [self.audience] if self.audience else []
        return {"status": {"authenticated": True, "user": user, "audiences": audiences}}


@pytest.mark.parametrize(
    ("made_for", "taken", "ours"),
    [
        (OURS, Audience.OURS, True),
        (OURS, Audience.ANY, True),
        (THEIRS, Audience.OURS, None),
        (THEIRS, Audience.ANY, False),
        ("", Audience.OURS, None),
        ("", Audience.ANY, False),
        ("another-audience", Audience.OURS, None),
        ("another-audience", Audience.ANY, None),
    ],
)
async def test_a_token_is_good_for_whom_it_was_made(made_for: str, taken: Audience, ours: bool | None) -> None:
    found = await KubeAccessReviewer(Client(made_for)).authenticate("token", taken)  # type: ignore[arg-type]
    assert found == (None if ours is None else User("ann", groups=("a",), for_our_audience=ours))


async def test_a_path_is_asked_for_as_a_path() -> None:
    client = Client(OURS)
    access = KubeAccessReviewer(client)  # type: ignore[arg-type]
    assert await access.is_allowed(User("ann"), PathAccess("get", "/metrics"))
    assert await access.is_allowed(
        User("ann"), ObjectAccess("trigger", "modelwright.dev", "retrainingpolicies", "n", "p")
    )
    path, thing = client.asked
    assert (path["nonResourceAttributes"], "resourceAttributes" in path) == ({"verb": "get", "path": "/metrics"}, False)
    assert (thing["resourceAttributes"]["name"], "nonResourceAttributes" in thing) == ("p", False)
