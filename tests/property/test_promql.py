"""User strings in PromQL: with any content, the query has the same shape, and the server reads the string itself.

Names of objects are DNS names, so the API server lets none of this through; nothing here relies on that.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import promql_parser
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from promql_parser import VectorSelector

from modelwright.api.v1alpha1.runtime import RuntimeMetrics
from modelwright.measurement import queries, request_counters
from modelwright.measurement.queries import LabelMatcher
from modelwright.measurement.request import Gateway, MeasurementRequest, RevisionTarget
from tests.lib.measurement import CANDIDATE, SERVING, TRAEFIK, make_request

ISTIO = Gateway("istio.io/gateway-controller")
QUOTING = ('"', "\\", "\\\\", '\\"', "\n", "\r\n", "\t", "\0", "'", "`", "{", "}", '"}', '"} or x{a="', "$(MODEL)", "#")
hostile = st.lists(
    st.sampled_from(QUOTING) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=8
).map("".join)
plain = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?\Z")


def shape(node: Any) -> Any:
    """The tree without the values of matchers and the texts of strings."""
    if isinstance(node, VectorSelector):
        matchers = [(one.name, str(one.op)) for one in node.matchers.matchers]
        return "selector", node.name, matchers, len(node.matchers.or_matchers), str(node.offset), str(node.at)
    if isinstance(node, promql_parser.StringLiteral):
        return "string"
    if isinstance(node, promql_parser.Call):
        return "call", node.func.name, [shape(one) for one in node.args]
    if isinstance(node, promql_parser.AggregateExpr):
        return "aggregate", str(node.op), shape(node.expr)
    if isinstance(node, promql_parser.BinaryExpr):
        return "binary", str(node.op), shape(node.lhs), shape(node.rhs)
    if isinstance(node, promql_parser.MatrixSelector):
        return "matrix", shape(node.vector_selector), str(node.range)
    return type(node).__name__, node.prettify()


def matchers(node: VectorSelector) -> dict[str, str]:
    return {one.name: one.value for one in node.matchers.matchers}


def selector(text: str) -> VectorSelector:
    actual = promql_parser.parse(text)
    assert isinstance(actual, VectorSelector), text
    return actual


@given(hostile, st.sampled_from(["=", "!="]))
@example('"} or vector(1) #', "=")
def test_a_matcher_reads_as_its_value(value: str, sign: Any) -> None:
    actual = selector(queries.build_selector("a", [LabelMatcher("l", value, sign)]))
    assert shape(actual) == shape(selector(queries.build_selector("a", [LabelMatcher("l", "x", sign)])))
    assert matchers(actual) == {"l": value}


QUERIES = (
    'sum(rate(a{n="$(NAMESPACE)",m="$(MODEL)"}[5m])) / sum(rate(b{v!="$(VERSION)"}[5m]))',
    'label_replace(a{r="$(REVISION)"}, "x", "$(MODEL)", "y", "(.*)")',
    'max_over_time(a{m="$(MODEL)$(MODEL)"}[5m]) > bool 1',
)


@pytest.mark.parametrize("query", QUERIES)
@given(st.fixed_dictionaries(dict.fromkeys(queries.PLACEHOLDERS, hostile)))
def test_a_users_query_keeps_its_shape(query: str, known: dict[str, str]) -> None:
    filled = promql_parser.parse(queries.fill_placeholders(query, known))
    assert shape(filled) == shape(promql_parser.parse(queries.fill_placeholders(query, dict.fromkeys(known, "x"))))


@given(hostile, hostile)
async def test_an_enforced_label_can_not_be_got_round_by_a_value(namespace: str, model: str) -> None:
    known = dict.fromkeys(queries.PLACEHOLDERS, "x") | {"NAMESPACE": namespace, "MODEL": model}
    query = queries.fill_placeholders('sum(a{namespace="$(NAMESPACE)",m="$(MODEL)"})', known)
    sent = promql_parser.parse(await queries.enforce_label(query, "namespace", namespace, "q"))
    assert matchers(sent.expr) == {"namespace": namespace, "m": model}  # type: ignore[attr-defined]


async def counted(request: MeasurementRequest, wanted: str, target: RevisionTarget) -> list[VectorSelector]:
    actual = await request_counters.find_counters(request, wanted, target)
    parts = [part for part in (actual.all_requests, actual.bad_requests, actual.latency) if part is not None]
    return [selector(text) for part in parts for text in part.selectors]


@pytest.mark.parametrize("gateway", [TRAEFIK, ISTIO], ids=["Traefik", "Istio"])
@given(namespace=hostile, candidate=hostile, serving=hostile)
async def test_selectors_of_a_gateway_keep_their_shape(
    gateway: Gateway, namespace: str, candidate: str, serving: str
) -> None:
    def build_request(of: str, one: str, other: str) -> tuple[MeasurementRequest, RevisionTarget]:
        target = replace(CANDIDATE, service=one)
        changes = {"candidate": target, "serving": replace(SERVING, service=other)}
        return make_request(namespace=of, gateway=gateway, **changes), target

    given_, target = build_request(namespace, candidate, serving)
    actual = await counted(given_, "Gateway", target)
    other = await counted(build_request("n", "c", "s")[0], "Gateway", target)
    assert [shape(one) for one in actual] == [shape(one) for one in other]
    for one in actual:
        values = matchers(one)
        if gateway is ISTIO:
            assert values["destination_service_namespace"] == namespace
            assert re.fullmatch(values["destination_service_name"], candidate)
        else:
            (pattern,) = values.values()
            assert re.fullmatch(pattern, f"{namespace}-{candidate}-80@kubernetescrd")
            assert not re.fullmatch(pattern, f"{namespace}-another-80@kubernetescrd") or "another" in {
                candidate,
                serving,
            }


@given(namespace=hostile, label=hostile, pods=plain)
async def test_selectors_of_a_runtime_are_narrowed_in_shape(namespace: str, label: str, pods: str) -> None:
    text = queries.build_selector("requests_total", [LabelMatcher("model", label)])
    target = replace(CANDIDATE, pod_pattern=pods, metrics=RuntimeMetrics(requests=text, errors=text, latency=text))
    for actual in await counted(make_request(namespace=namespace, candidate=target, gateway=None), "Runtime", target):
        assert actual.name == "requests_total"
        assert matchers(actual) == {"model": label, "namespace": namespace, "pod": pods}


@given(hostile | st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_an_instance_is_matched_by_itself_only(instance: str) -> None:
    pattern = queries.escape_pattern(instance)
    actual = selector(queries.build_selector("up", [LabelMatcher("instance", pattern, "=~")]))
    assert matchers(actual) == {"instance": pattern}
    assert re.fullmatch(pattern, instance)
    assert not re.fullmatch(pattern, instance + "x")
