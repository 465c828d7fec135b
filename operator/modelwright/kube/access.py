"""Who is behind a token, and what they may: asked of the API server for each request, so that no secret is held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from modelwright.kube import errors
from modelwright.kube.client import KubeClient
from modelwright.kube.kinds import Kind

TOKEN_REVIEW = Kind("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
SUBJECT_ACCESS_REVIEW = Kind(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False
)


@dataclass(frozen=True, slots=True)
class User:
    """Somebody as the API server knows them."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A verb on one object."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str


class AccessUnknown(Exception):
    """It can't be found out now; the message says why, for people, and never holds a token."""


class Access(Protocol):
    """What the door for other systems asks. Both methods raise AccessUnknown."""

    async def who(self, token: str) -> User | None:
        """Whose token this is; None when it is nobody's, or not valid any more."""

    async def may(self, user: User, attempt: Attempt) -> bool:
        """Whether they may do this."""


class KubeAccess:
    """Access by TokenReview and SubjectAccessReview.

    `client` should be one of its own, with a low `qps` and no write guard: a review stores nothing, and what strangers
    send must not use up the rate of the operator's writes.
    """

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def who(self, token: str) -> User | None:
        status = await self._review(TOKEN_REVIEW, {"token": token})
        user = _mapping(status.get("user"))
        name = user.get("username")
        if status.get("authenticated") is not True or not isinstance(name, str) or not name:
            return None
        extra = {str(key): _texts(values) for key, values in _mapping(user.get("extra")).items()}
        return User(name, str(user.get("uid") or ""), _texts(user.get("groups")), extra)

    async def may(self, user: User, attempt: Attempt) -> bool:
        attributes = {
            "verb": attempt.verb,
            "group": attempt.group,
            "resource": attempt.resource,
            "namespace": attempt.namespace,
            "name": attempt.name,
        }
        spec = {
            "user": user.name,
            "uid": user.uid,
            "groups": list(user.groups),
            "extra": {key: list(values) for key, values in user.extra.items()},
            "resourceAttributes": attributes,
        }
        status = await self._review(SUBJECT_ACCESS_REVIEW, spec)
        return status.get("allowed") is True

    async def _review(self, kind: Kind, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            answer = await self._client.review(kind, spec)
        except errors.Denied as error:
            raise AccessUnknown(
                f"the operator may not create {kind.plural}.{kind.group}: an administrator has to bind the ClusterRole "
                "system:auth-delegator to its ServiceAccount"
            ) from error
        except errors.ApiError as error:
            # The message of a refusal may quote what was sent, and that is a token.
            what = f"status {error.status}" if error.status else "no answer"
            raise AccessUnknown(f"the API server does not answer a {kind.kind} ({what})") from None
        return _mapping(answer.get("status"))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()
