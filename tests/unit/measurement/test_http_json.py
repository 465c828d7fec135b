"""Numbers in JSON documents: pointers, what is no number, and paths that stay where they belong."""

from __future__ import annotations

from typing import Any

import pytest

from modelwright.core.analysis.evidence import MeasurementFailure, MetricValue
from modelwright.measurement import http_json
from tests.lib.measurement import CANDIDATE, Bench, FakeServer, make_request, metric

DOCUMENT = {"a": {"b": [1, 2.5, "x"]}, "": 3, "c/d": 4, "e~f": 5, "t": True, "n": None, "big": 10**400}


@pytest.mark.parametrize(
    ("pointer", "value", "why"),
    [
        ("/a/b/1", 2.5, ""),
        ("/", 3.0, ""),
        ("/c~1d", 4.0, ""),
        ("/e~0f", 5.0, ""),
        ("/a/b/3", None, "nothing at /a/b/3"),
        ("/a/b/-", None, "nothing at"),
        ("/a/b/01", None, "nothing at"),
        ("/a/x", None, "nothing at"),
        ("/a/b/0/x", None, "nothing at"),
        ("/a", None, "is an object, not a number"),
        ("/a/b", None, "is a list, not a number"),
        ("/a/b/2", None, "is a text, not a number"),
        ("/t", None, "is true or false, not a number"),
        ("/n", None, "is null, not a number"),
        ("", None, "the value at the top of the document is an object"),
    ],
)
async def test_a_pointer_gives_a_number_or_why_there_is_none(
    bench: Bench, server: FakeServer, pointer: str, value: float | None, why: str
) -> None:
    server.handler = server.reply({key: part for key, part in DOCUMENT.items() if key != "big"})
    actual = (
        await bench.measure(make_request(metric(http={"provider": "json", "path": "/score", "value": pointer})))
    ).result
    assert isinstance(actual, MetricValue)
    assert actual.candidate == value
    assert why in actual.why
    assert server.requests[0][0] == "/api/score"


@pytest.mark.parametrize(
    ("body", "expected"), [("NaN", "is nan"), ("Infinity", "is inf"), ("1e999", "is inf"), ("9" * 400, "is too large")]
)
async def test_what_is_not_finite_is_no_number(bench: Bench, server: FakeServer, body: str, expected: str) -> None:
    server.handler = server.text(body)
    actual = (await bench.measure(make_request(metric(http={"provider": "json", "path": "/", "value": ""})))).result
    assert isinstance(actual, MetricValue)
    assert actual.candidate is None
    assert expected in actual.why


async def test_an_empty_answer_has_no_number(bench: Bench, server: FakeServer) -> None:
    server.handler = server.text("", status=204)
    actual = (await bench.measure(make_request(metric(http={"provider": "json", "path": "/", "value": "/a"})))).result
    assert actual == MetricValue(None, why="the document has nothing at /a")


async def test_both_revisions_are_requested_if_the_path_names_one(bench: Bench, server: FakeServer) -> None:
    server.handler = server.reply(7)
    own = {"provider": "json", "path": "/$(NAMESPACE)/$(MODEL)?v=$(VERSION)&r=$(REVISION)", "value": ""}
    assert (await bench.measure(make_request(metric(http=own, margin="1")))).result == MetricValue(7.0, 7.0)
    assert [path for path, _, _ in server.requests] == [
        "/api/vision/digits?v=digits-v2&r=bbbbbbbbbb",
        "/api/vision/digits?v=digits-v1&r=aaaaaaaaaa",
    ]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/$(PODS)", "$(PODS) is no placeholder of http"),
        ("/../admin", "must not go up"),
        ("/a/../../admin", "must not go up"),
        ("/%2e%2E/admin", "must not go up"),
        ("/a%2f..%2Fadmin", "must not go up"),
        ("/a\\..\\admin", "must not go up"),
        ("/./a", "must not go up"),
        ("/a/..;x/admin", "must not go up"),
        ("/a/%2e%2e%3b/admin", "must not go up"),
        ("/a#b", "fragment"),
    ],
)
async def test_a_path_outside_of_the_connections_is_refused(
    bench: Bench, server: FakeServer, path: str, expected: str
) -> None:
    actual = (await bench.measure(make_request(metric(http={"provider": "json", "path": path, "value": ""})))).result
    assert isinstance(actual, MeasurementFailure)
    assert (actual.reason, actual.permanent) == ("QueryRefused", True)
    assert expected in actual.message
    assert server.requests == []


def test_values_are_encoded() -> None:
    odd: Any = CANDIDATE.__class__("a/b?c", "x", "y", "z")
    assert http_json.fill_path("/v/$(VERSION)", make_request(), odd) == "/v/a%2Fb%3Fc"
