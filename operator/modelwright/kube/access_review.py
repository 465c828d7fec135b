"""Authenticates callers by TokenReview and authorizes them by SubjectAccessReview, so that the operator holds no
secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from modelwright.api.names import GROUP
from modelwright.kube import api_errors
from modelwright.kube.client import KubeClient
from modelwright.kube.kinds import Kind

TOKEN_REVIEW = Kind("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
SUBJECT_ACCESS_REVIEW = Kind(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False
)


class Audience(Enum):
    """Audiences that a token may have: ours alone (modelwright.dev), or the API server's too."""

    OURS = "ours"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class User:
    """A user as the API server identifies them.

    `for_our_audience`: the token is valid for the operator only, not for the API server.
    """

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    for_our_audience: bool = True


@dataclass(frozen=True, slots=True)
class ObjectAccess:
    """A verb on one object."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class PathAccess:
    """A verb on a path that is no object, such as `get` on /metrics."""

    verb: str
    path: str


class AccessUndetermined(Exception):
    """The API server could not review the access; the message gives the reason and never contains a token."""


class AccessReviewer(Protocol):
    """Authenticates and authorizes the callers of our servers. Both methods raise AccessUndetermined."""

    async def authenticate(self, token: str, audience: Audience) -> User | None:
        """Return the user of this token; None when it is invalid, expired, or made for another audience."""

    async def is_allowed(self, user: User, attempt: ObjectAccess | PathAccess) -> bool:
        """Return whether the user may do this."""


class KubeAccessReviewer:
    """Reviews access by TokenReview and SubjectAccessReview.

    `client` should be dedicated to it, with a low `qps` and no write guard: a review stores nothing, and requests of
    strangers must not use up the rate of the operator's writes.
    """

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def authenticate(self, token: str, audience: Audience) -> User | None:
        status = await self._create_review(TOKEN_REVIEW, {"token": token, "audiences": [GROUP]})
        # An authenticator without support for audiences returns none: then the token is one for the API server.
        if status.get("authenticated") is True and GROUP in _as_texts(status.get("audiences")):
            return _parse_user(status, ours=True)
        if audience is Audience.OURS:
            return None
        status = await self._create_review(TOKEN_REVIEW, {"token": token})
        return _parse_user(status, ours=False) if status.get("authenticated") is True else None

    async def is_allowed(self, user: User, attempt: ObjectAccess | PathAccess) -> bool:
        if isinstance(attempt, PathAccess):
            attributes = {"nonResourceAttributes": {"verb": attempt.verb, "path": attempt.path}}
        else:
            members = ("verb", "group", "resource", "namespace", "name")
            attributes = {"resourceAttributes": {name: getattr(attempt, name) for name in members}}
        spec = {
            "user": user.name,
            "uid": user.uid,
            "groups": list(user.groups),
            "extra": {key: list(values) for key, values in user.extra.items()},
            **attributes,
        }
        status = await self._create_review(SUBJECT_ACCESS_REVIEW, spec)
        return status.get("allowed") is True

    async def _create_review(self, kind: Kind, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            answer = await self._client.review(kind, spec)
        except api_errors.Denied as error:
            raise AccessUndetermined(
                f"the operator may not create {kind.plural}.{kind.group}: an administrator has to bind the ClusterRole "
                "system:auth-delegator to its ServiceAccount"
            ) from error
        except api_errors.ApiError as error:
            # The message of a refusal may quote the request, which contains the token.
            outcome = f"status {error.status}" if error.status else "no answer"
            raise AccessUndetermined(f"the API server does not respond to a {kind.kind} ({outcome})") from None
        return _as_mapping(answer.get("status"))


def _parse_user(status: Mapping[str, Any], *, ours: bool) -> User | None:
    user = _as_mapping(status.get("user"))
    name = user.get("username")
    if not isinstance(name, str) or not name:
        return None
    extra = {str(key): _as_texts(values) for key, values in _as_mapping(user.get("extra")).items()}
    return User(name, str(user.get("uid") or ""), _as_texts(user.get("groups")), extra, ours)


def _as_mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _as_texts(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()
