"""What the API server's refusals say is missing, how it is shown, and the token that the kubelet replaces."""

from __future__ import annotations

from pathlib import Path

import pytest
from kubernetes.aio.client.configuration import Configuration

from modelwright.kube import api_errors, kinds
from modelwright.kube.missing_rights import (
    FORGET_AFTER_SECONDS,
    MissingRights,
    Right,
    parse_missing_right,
    required_right,
)
from modelwright.kube.service_account_token import REREAD_SECONDS, ServiceAccountToken
from modelwright.obs import metrics
from modelwright.obs.clock import FakeClock

USER = 'User "system:serviceaccount:modelwright-system:modelwright"'
DENIED = f'deployments.apps "d" is forbidden: {USER} cannot patch resource "deployments" in API group "apps"'
IN_NAMESPACE = f'{DENIED} in the namespace "vision"'


@pytest.mark.parametrize(
    ("message", "right"),
    [
        (IN_NAMESPACE, Right("patch", "deployments.apps", "vision")),
        (f"{DENIED} at the cluster scope", Right("patch", "deployments.apps", "")),
        (
            f'{USER} cannot patch resource "models/status" in API group "modelwright.dev" in the namespace "a"',
            Right("patch", "models.modelwright.dev/status", "a"),
        ),
        (
            f'{USER} cannot create resource "services" in API group "" in the namespace "a"',
            Right("create", "services", "a"),
        ),
        ("exceeded quota: pods, requested: pods=1, used: pods=5, limited: pods=5", None),
        ("ValidatingAdmissionPolicy 'x' denied request: no", None),
    ],
)
def test_a_refusal_by_rbac_names_the_right_that_is_missing(message: str, right: Right | None) -> None:
    assert parse_missing_right(message) == right


@pytest.mark.parametrize(
    ("verb", "kind", "path", "right"),
    [
        (
            "apply",
            kinds.MODEL,
            kinds.MODEL.path("a", "m", "status"),
            Right("patch", "models.modelwright.dev/status", "a"),
        ),
        ("create", kinds.SERVICE, kinds.SERVICE.path("a"), Right("create", "services", "a")),
        ("get", kinds.MODEL, kinds.MODEL.path("a", "status"), Right("get", "models.modelwright.dev", "a")),
        ("list", kinds.DEPLOYMENT, kinds.DEPLOYMENT.path(None), Right("list", "deployments.apps", "")),
        ("list", kinds.DEPLOYMENT, kinds.DEPLOYMENT.path("a"), Right("list", "deployments.apps", "a")),
    ],
)
def test_a_request_that_is_answered_proves_the_right_it_needs(
    verb: str, kind: kinds.Kind, path: str, right: Right
) -> None:
    assert required_right(verb, kind, path) == right


def shown() -> set[tuple[str, ...]]:
    return {tuple(sample.labels.values()) for family in metrics.MISSING_RIGHTS.collect() for sample in family.samples}


def test_a_missing_right_is_logged_once_and_shown_until_granted(caplog: pytest.LogCaptureFixture) -> None:
    missing = MissingRights(FakeClock())
    for _ in range(3):
        missing.record_refusal(IN_NAMESPACE)
    assert [record.message[:19] for record in caplog.records] == ["a right is missing:"]
    assert ("patch", "deployments.apps", "vision") in shown()
    missing.record_success("patch", kinds.DEPLOYMENT, kinds.DEPLOYMENT.path("other", "d"))
    assert missing.list_missing()
    missing.record_success("patch", kinds.DEPLOYMENT, kinds.DEPLOYMENT.path("vision", "d"))
    assert not missing.list_missing()
    assert ("patch", "deployments.apps", "vision") not in shown()


def test_a_right_that_nothing_asks_for_any_more_is_forgotten() -> None:
    clock = FakeClock()
    missing = MissingRights(clock)
    missing.record_refusal(IN_NAMESPACE)
    clock.advance(FORGET_AFTER_SECONDS + 1)
    missing.record_refusal("exceeded quota")
    assert not missing.list_missing()


def test_a_refused_token_is_said_to_be_the_tokens_fault() -> None:
    body = '{"kind": "Status", "message": "Unauthorized", "code": 401}'
    error = api_errors.error_from_response(401, body, {}, request="list /x")
    assert isinstance(error, api_errors.Denied)
    assert "does not take the token of this process" in str(error)


def token_of(configuration: Configuration) -> str:
    return str(configuration.api_key["BearerToken"])


def test_a_token_is_read_each_minute_at_any_time_of_day(tmp_path: Path) -> None:
    file, clock, configuration = tmp_path / "token", FakeClock(), Configuration()
    file.write_text("one\n")
    hook = ServiceAccountToken(str(file), clock=clock)
    hook(configuration)
    file.write_text("two")
    clock.jump_wall_clock(-3600)
    clock.advance(REREAD_SECONDS - 1)
    hook(configuration)
    assert token_of(configuration) == "bearer one"
    clock.advance(1)
    hook(configuration)
    assert token_of(configuration) == "bearer two"


def test_a_token_that_was_refused_is_read_again_a_second_later(tmp_path: Path) -> None:
    file, clock, configuration = tmp_path / "token", FakeClock(), Configuration()
    file.write_text("one")
    hook = ServiceAccountToken(str(file), clock=clock)
    hook(configuration)
    file.write_text("two")
    hook.expire()
    clock.advance(1)
    hook(configuration)
    assert token_of(configuration) == "bearer two"


def test_a_token_that_can_not_be_read_just_now_is_kept(tmp_path: Path) -> None:
    file, clock, configuration = tmp_path / "token", FakeClock(), Configuration()
    file.write_text("one")
    hook = ServiceAccountToken(str(file), clock=clock)
    hook(configuration)
    for spoil in (lambda: file.write_text(""), file.unlink):
        spoil()
        clock.advance(REREAD_SECONDS)
        hook(configuration)
        assert token_of(configuration) == "bearer one"
