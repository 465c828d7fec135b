"""The largest legal value of each field, and the worst text for each parser: at most 50 ms of CPU time and 16 MiB."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modelwright.api.common import InvalidObject, parse_duration
from modelwright.api.crd.definition import KINDS, build_schema
from modelwright.api.v1alpha1.policy import Freeze
from modelwright.api.v1alpha1.retraining import ScheduleTrigger
from modelwright.app import webhooks
from modelwright.core import diff, evaluation_gate, pod_failures, versions
from modelwright.core.retraining import schedule, stage_reports
from modelwright.core.retraining.triggers import InvalidEventError
from modelwright.core.rollout import freeze
from modelwright.measurement import http_json, queries
from modelwright.measurement.json_client import MeasurementError
from tests.lib import largest, objects
from tests.lib.webhook_payloads import HOOKS

Json = dict[str, Any]
NOW = datetime(2026, 11, 26, 3, tzinfo=UTC)
RUN = {
    "dataset": {"uri": "s3://data/digits"},
    "train": {"job": {"template": {}}},
    "output": {"uri": "s3://models/digits", "format": {"name": "plain"}},
}
BASES: dict[str, Json] = {
    "Model": objects.model("vision")["spec"],
    "ModelVersion": objects.version("vision", "v1")["spec"],
    "RolloutPolicy": {"strategy": {"steps": [{"weight": 100}]}},
    "ModelRollout": {"modelRef": {"name": "digits"}, "target": {"version": "v1"}, "number": 1},
    "RetrainingPolicy": {"modelRef": {"name": "digits"}, "run": RUN},
    "TrainingRun": {"policyRef": {"name": "p"}, "manual": {"by": "alice", "reason": "why"}},
    "Approval": {
        "modelRef": {"name": "digits"},
        "rollout": {"name": "r", "uid": "u"},
        "contentHash": "h",
        "decision": "Approve",
        "approver": "alice",
        "reason": "why",
    },
    "ModelRuntime": objects.runtime(namespace="vision")["spec"],
    "ClusterModelRuntime": objects.runtime()["spec"],
}
SKIPPED: dict[str, str] = {
    "Model.spec.serving.autoscaling.metrics": "an object of another API",
    "Model.spec.serving.autoscaling.metrics[]": "an object of another API",
    "ModelRuntime.spec.container": "an object of another API",
    "ModelRuntime.spec.volumes": "an object of another API",
    "ModelRuntime.spec.volumes[]": "an object of another API",
    "ClusterModelRuntime.spec.container": "an object of another API",
    "ClusterModelRuntime.spec.volumes": "an object of another API",
    "ClusterModelRuntime.spec.volumes[]": "an object of another API",
}
"""Unbounded fields of specs, by kind and path, with the reason. The table should become empty."""


def places() -> list[tuple[Any, tuple[str, ...], Json]]:
    return [
        (kind, path, found)
        for kind in KINDS
        for path, found in largest.fields(build_schema(kind)["properties"]["spec"], ("spec",))
    ]


def path_of(kind: Any, path: tuple[str, ...]) -> str:
    return f"{kind.__name__}.{'.'.join(path).replace('.[]', '[]')}"


def open_fields() -> dict[str, str]:
    reasons = {}
    for kind, path, node in places():
        try:
            largest.value(node)
        except largest.OpenField as why:
            reasons[path_of(kind, path)] = str(why)
    return reasons


def test_the_table_of_open_fields_is_true() -> None:
    assert open_fields() == SKIPPED


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_largest_field_values_are_handled_in_time(kind: Any) -> None:
    too_much = []
    for path, node in largest.fields(build_schema(kind)["properties"]["spec"], ("spec",)):
        if path_of(kind, path) in SKIPPED:
            continue
        document = largest.put({"spec": BASES[kind.__name__]}, path, largest.value(node))
        document["metadata"] = {"name": "largest", "namespace": "vision"}
        assert len(json.dumps(document)) < 2 * largest.OBJECT_BYTES

        # Each field is validated by itself, also in an object that lacks what must go with it.
        def parse(document: Json = document) -> None:
            with suppress(InvalidObject):
                kind.parse(document)

        cpu, memory = largest.cost(parse)
        if cpu > largest.CPU_SECONDS or memory > largest.MEMORY_BYTES:
            too_much.append(f"{path_of(kind, path)}: {cpu:.3f} s, {memory >> 20} MiB, {len(json.dumps(document))} B")
    assert not too_much


def cron(text: str, catch_up: str = "All") -> ScheduleTrigger:
    return ScheduleTrigger.model_validate({"cron": text, "timeZone": "Europe/Berlin", "catchUp": catch_up})


def schedules(text: str) -> Callable[[], object]:
    trigger, since = cron(text), NOW - timedelta(days=3650)
    return lambda: (
        schedule.find_schedule_problem(trigger, NOW),
        schedule.next_time(trigger, NOW),
        schedule.list_due_times(trigger, since, NOW),
    )


def freezes(text: str) -> Callable[[], object]:
    windows = [Freeze.model_validate({"schedule": text, "duration": "744h", "timeZone": "Europe/Berlin"})] * 16
    return lambda: (freeze.find_window_problem(windows, NOW), freeze.find_freeze_end(windows, NOW))


def refused(work: Callable[[], object]) -> Callable[[], object]:
    def tried() -> None:
        with suppress(MeasurementError, ValueError, InvalidEventError):
            work()

    return tried


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def wide(part: str) -> bytes:
    """An alert's body of 1 MiB."""
    return f'{{"alerts":[{part * ((1 << 20) // len(part) - 10)}1]}}'.encode()


NEVER, LEAP, LISTS = "0 0 30 2 *", "59 23 29 2 SUN#5", ",".join(map(str, range(40))) + " * * * *"
KNOWN = dict.fromkeys(queries.PLACEHOLDERS, "digits-bbbbbbbbbb-[a-z0-9-]+")
MESSAGE = 4096
"""Characters of a termination message."""
PARSERS: dict[str, Callable[[], object]] = {
    "a schedule that never comes": schedules(NEVER),
    "a schedule of leap days": schedules(LEAP),
    "a schedule with long lists": schedules(LISTS),
    "a schedule of every minute": schedules("* * * * *"),
    "16 freezes that never come": freezes(NEVER),
    "16 freezes of leap days": freezes(LEAP),
    "a duration": refused(lambda: parse_duration("99999ms" * 4)),
    "digits that are no duration": refused(lambda: parse_duration("9" * MESSAGE)),
    "a quantity with a huge exponent": lambda: diff.parse_quantity("1e" + "9" * 30),
    "a quantity of digits": lambda: diff.parse_quantity("9" * 32 + "Ei"),
    "a JSON pointer": lambda: http_json.resolve_pointer(nested(900), "/a" * 900),
    "a JSON pointer of escapes": lambda: http_json.resolve_pointer({}, "/" + "~1~0" * 250),
    "placeholders that are open": refused(lambda: queries.fill_placeholders("$(" * 2048, KNOWN)),
    "placeholders": refused(lambda: queries.check_size(queries.fill_placeholders("$(PODS)" * 585, KNOWN), "q")),
    "quotes of a query": refused(lambda: queries.check_size('"\\' * 8192, "q")),
    "braces of a query": refused(lambda: queries.check_size("{}" * 8192, "q")),
    "words of a query": refused(lambda: queries.check_size("a " * 8192, "q")),
    "a termination message of brackets": lambda: pod_failures.parse_termination_report("[" * MESSAGE),
    "a termination message of digits": lambda: pod_failures.parse_termination_report("9" * MESSAGE),
    "a report of many figures": lambda: stage_reports.read_evaluation_report(
        json.loads('{"metrics": [' + ",".join(['{"name":"a"}'] * 300) + "]}"), [], first=False
    ),
    "a digest": lambda: versions.parse_artifact_report({"digest": "sha256:" + "d" * MESSAGE}),
    "an address": lambda: stage_reports.is_below_prefix("s3://" + "a/" * 2000, "s3://" + "a/" * 1999),
    "addresses of scores": lambda: evaluation_gate._URI.match("s3://" + "a" * 4096),
    "a webhook of brackets": refused(lambda: webhooks._parse_events("drift", HOOKS[0], {}, b"[" * (1 << 20))),
    "a webhook of lists": refused(lambda: webhooks._parse_events("drift", HOOKS[0], {}, wide("[],"))),
    "a webhook of objects": refused(lambda: webhooks._parse_events("drift", HOOKS[0], {}, wide("{},"))),
    "a webhook of numbers": refused(lambda: webhooks._parse_events("drift", HOOKS[0], {}, wide("1.5,"))),
    "a webhook of alerts": refused(
        lambda: webhooks._parse_events("drift", HOOKS[0], {}, wide('{"labels":{"a":"b"}},'))
    ),
}


@pytest.mark.parametrize("work", PARSERS.values(), ids=PARSERS)
def test_worst_texts_are_parsed_or_refused_in_time(work: Callable[[], object]) -> None:
    cpu, memory = largest.cost(work)
    assert cpu <= largest.CPU_SECONDS
    assert memory <= largest.MEMORY_BYTES
