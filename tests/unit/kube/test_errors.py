"""Answers of the API server become the right exception, with fields and a message people can use."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.kube import api_errors


def status(reason: str = "", message: str = "no", **details: Any) -> bytes:
    return json.dumps({"kind": "Status", "reason": reason, "message": message, "details": details}).encode()


@pytest.mark.parametrize(
    ("code", "body", "expected"),
    [
        (404, status("NotFound"), api_errors.NotFound),
        (409, status("AlreadyExists"), api_errors.AlreadyExists),
        (409, status("Conflict"), api_errors.Conflict),
        (404, b"404 page not found\n", api_errors.NotFound),
        (404, b"<html>no such site</html>", api_errors.Transient),
        (403, status("Forbidden")[:-9], api_errors.Transient),
        (401, b"sign in first", api_errors.Transient),
        (409, b"", api_errors.Transient),
        (422, status("Invalid"), api_errors.Invalid),
        (400, status("BadRequest"), api_errors.Invalid),
        (413, status("RequestEntityTooLarge"), api_errors.ObjectTooLarge),
        (413, b"<html>413 Request Entity Too Large</html>", api_errors.ObjectTooLarge),
        (500, status("", "etcdserver: request is too large"), api_errors.ObjectTooLarge),
        (
            500,
            status("", "rpc error: trying to send message larger than max (2097402 vs. 2097152)"),
            api_errors.ObjectTooLarge,
        ),
        (415, status("UnsupportedMediaType"), api_errors.Invalid),
        (401, status("Unauthorized"), api_errors.Denied),
        (403, status("Forbidden"), api_errors.Denied),
        (429, status("TooManyRequests"), api_errors.Throttled),
        (408, b"", api_errors.Transient),
        (410, status("Expired"), api_errors.Transient),
        (500, status("InternalError"), api_errors.Transient),
        (502, b"<html>Bad gateway</html>", api_errors.Transient),
        (503, status("ServiceUnavailable"), api_errors.Transient),
        (504, status("Timeout"), api_errors.Transient),
        (307, b"", api_errors.Transient),
    ],
)
def test_each_status_has_its_class(code: int, body: bytes, expected: type[api_errors.ApiError]) -> None:
    error = api_errors.error_from_response(code, body, {})
    assert type(error) is expected
    assert error.status == code
    assert error.message
    assert error.reason


def test_causes_name_the_fields() -> None:
    cause = {"field": "spec.replicas", "reason": "FieldValueInvalid", "message": "must not be negative"}
    error = api_errors.error_from_response(422, status("Invalid", causes=[cause]), {})
    assert error.causes == (api_errors.Cause("spec.replicas", "FieldValueInvalid", "must not be negative"),)


def test_a_500_of_an_apply_that_violates_the_schema_is_invalid() -> None:
    message = (
        "failed to create typed patch object (ns/a; apps/v1, Kind=Deployment): errors:\n"
        '  .spec.template.spec.containers[name="c"].bogus: field not declared in schema\n'
        "  .spec.replicas: expected numeric (int or float), got string"
    )
    error = api_errors.error_from_response(500, status(message=message), {})
    assert isinstance(error, api_errors.Invalid)
    assert [(c.field, c.message) for c in error.causes] == [
        ('spec.template.spec.containers[name="c"].bogus', "field not declared in schema"),
        ("spec.replicas", "expected numeric (int or float), got string"),
    ]


def test_strict_decoding_errors_name_their_fields() -> None:
    message = 'strict decoding error: unknown field "spec.bogus", duplicate field "spec.replicas"'
    error = api_errors.error_from_response(400, status("BadRequest", message), {})
    assert [(c.field, c.message) for c in error.causes] == [
        ("spec.bogus", "unknown field"),
        ("spec.replicas", "duplicate field"),
    ]


def test_an_invalid_merge_patch_names_its_field_only() -> None:
    message = ' "" is invalid: patch: Invalid value: "{...}": strict decoding error: unknown field "spec.bogus"'
    cause = {"field": "patch", "reason": "FieldValueInvalid", "message": message}
    error = api_errors.error_from_response(422, status("Invalid", message, causes=[cause]), {})
    assert error.message == 'strict decoding error: unknown field "spec.bogus"'
    assert [c.field for c in error.causes] == ["spec.bogus"]


def test_a_wrong_type_names_its_field() -> None:
    message = "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
    assert [c.field for c in api_errors.error_from_response(400, status("BadRequest", message), {}).causes] == [
        "spec.replicas"
    ]


def test_an_apply_to_another_object_of_the_name_is_a_conflict() -> None:
    cause = {"field": "metadata.uid", "reason": "FieldValueInvalid", "message": "field is immutable"}
    error = api_errors.error_from_response(422, status("Invalid", causes=[cause, cause]), {})
    assert type(error) is api_errors.Conflict


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("-1", 0.0), ("99999", api_errors.MAX_RETRY_AFTER), ("soon", None), ("nan", None)],
)
def test_retry_after_in_seconds(header: str, seconds: float | None) -> None:
    assert api_errors.parse_retry_after({"Retry-After": header}) == seconds


def test_retry_after_as_a_date_in_any_case_of_the_name() -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    found = api_errors.parse_retry_after({"retry-after": moment})
    assert found is not None
    assert 55 < found <= 60


def test_throttled_without_a_header_waits_a_little() -> None:
    error = api_errors.error_from_response(429, b"", {})
    assert isinstance(error, api_errors.Throttled)
    assert error.retry_after == api_errors.DEFAULT_RETRY_AFTER


def test_an_unavailable_server_may_name_a_time_too() -> None:
    error = api_errors.error_from_response(503, b"", {"Retry-After": "7"})
    assert isinstance(error, api_errors.Transient)
    assert error.retry_after == 7


def test_the_text_says_what_was_asked_and_what_was_answered() -> None:
    error = api_errors.error_from_response(
        403, status("Forbidden", "may not"), {}, request="create /apis/apps/v1/deployments"
    )
    assert str(error) == "create /apis/apps/v1/deployments: may not (403 Forbidden)"


def test_no_answer_is_transient_and_says_why() -> None:
    assert "did not answer in time" in str(api_errors.error_without_response(TimeoutError(), request="get x"))
    assert "refused" in str(api_errors.error_without_response(ConnectionRefusedError("connection refused")))


def test_long_bodies_are_cut() -> None:
    assert len(api_errors.error_from_response(502, b"x" * 10_000, {}).message) <= 300


@given(st.integers(300, 599), st.binary(max_size=200), st.dictionaries(st.text(max_size=5), st.text(max_size=5)))
def test_any_answer_becomes_an_exception_and_none_is_thrown(code: int, body: bytes, headers: dict[str, str]) -> None:
    assert api_errors.error_from_response(code, body, headers).status == code


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["details", "causes", "reason", "message", "field"]), inner)
        ),
        max_leaves=12,
    )
)
def test_any_json_becomes_an_exception(body: Any) -> None:
    assert api_errors.error_from_response(422, json.dumps(body), {}).status == 422
