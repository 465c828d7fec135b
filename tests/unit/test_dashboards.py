"""The dashboards of the chart: queries that can be read, over metrics and labels that exist.

A real Prometheus is asked them in tests/metrics.
"""

from __future__ import annotations

import re
from typing import Any

import promql_parser
import pytest
from promql_parser import VectorSelector

from modelwright.measurement import request_counters
from scripts.docgen import metrics_page
from tests.lib.dashboards import BOARDS, Query, filled, panels, queries, variables

OWN = {one.name: set(one.labels) for one in [*metrics_page.operator_metrics(), *metrics_page.observer_metrics()]}
FOREIGN = {
    "traefik_service_requests_total",
    "traefik_service_request_duration_seconds_bucket",
    "rest_server_requests_total",
    "rest_server_request_duration_seconds_bucket",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
}
VALUES = {"namespace": "vision", "model": "digits", "__rate_interval": "5m"}
OF_A_TARGET = {"le", "job", "instance"}


def selectors(query: Query) -> list[VectorSelector]:
    found: list[VectorSelector] = []

    def look(node: Any) -> None:
        if isinstance(node, VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(filled(query.text, VALUES)), pre_visit=look)
    return found


@pytest.mark.parametrize("query", list(queries()), ids=str)
def test_a_query_asks_for_metrics_and_labels_that_exist(query: Query) -> None:
    for selector in selectors(query):
        assert selector.name is not None
        if selector.name in FOREIGN:
            continue
        known = OWN.get(selector.name) or OWN.get(selector.name.removesuffix("_bucket"))
        if known is None:
            assert selector.name in OWN
            known = set()
        assert {match.name for match in selector.matchers.matchers} <= known


@pytest.mark.parametrize("query", list(queries()), ids=str)
def test_a_legend_uses_labels_that_the_query_leaves(query: Query) -> None:
    used = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
    left = {label for part in re.findall(r"(?:by|group_left) \(([^)]*)\)", query.text) for label in part.split(", ")}
    for selector in selectors(query):
        left |= OWN.get(selector.name or "", set()) if " by " not in query.text else set()
    assert used <= left | OF_A_TARGET


@pytest.mark.parametrize("board", BOARDS)
def test_every_panel_has_data_source_title_and_place(board: str) -> None:
    places = set()
    for panel in panels(board):
        assert panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
        grid = panel["gridPos"]
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not places & cells, panel["title"]
        places |= cells
    ids = [panel["id"] for panel in BOARDS[board]["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("board", BOARDS)
def test_dashboard_variables_are_defined_and_used(board: str) -> None:
    text = " ".join(query.text for query in queries() if query.board == board)
    used = set(re.findall(r"\$([a-z]\w*)", text))
    assert used | {"datasource"} == variables(board).keys()


def test_error_panels_count_what_builtin_metrics_count() -> None:
    asked = [query.text for query in queries() if query.board == "model" and "traefik" in query.text]
    assert all(f'code=~"{request_counters.BAD_HTTP_CODES}"' in text for text in asked if "code=" in text)
    assert any("code=" in text for text in asked)


SERVICES = [
    ("vision-digits-abcdefghij-http-80@kubernetesgateway", "abcdefghij"),
    (
        "httproute-vision-digits-gw-gateways-models-ep-web-0-abc-svc-vision-digits-abcdefghij-http-80@kubernetesgateway",
        "abcdefghij",
    ),
    ("vision-digits-abcdefghij-80-grpc@kubernetesgateway", "abcdefghij"),
    ("vision-digits-abcdefghij-80@kubernetescrd", "abcdefghij"),
    ("vision-other-digits-abcdefghij-http-80@kubernetesgateway", None),
    ("vision-digits-small-abcdefghij-http-80@kubernetesgateway", None),
    ("research-vision-digits-abcdefghij-http-80@kubernetesgateway", None),
    ("vision-digits-abcdefghij@internal", None),
]


@pytest.mark.parametrize(("service", "revision"), SERVICES)
def test_traefik_services_match_only_revisions_of_the_model(service: str, revision: str | None) -> None:
    text = " ".join(query.text for query in queries() if "traefik" in query.text)
    patterns = set(re.findall(r'service=~"([^"]+)"', filled(text, VALUES)))
    assert patterns == set(re.findall(r'service", "([^"]+)"\)', filled(text, VALUES)))
    (pattern,) = patterns
    found = re.fullmatch(pattern, service)
    assert (found[2] if found else None) == revision


def test_dashboard_identities_are_unique() -> None:
    assert sorted(BOARDS) == ["model", "operator"]
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS)
