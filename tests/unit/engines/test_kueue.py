"""Kueue's own messages explain why an object waits; without a message there is no explanation."""

from typing import Any

import pytest

from modelwright.engines.kueue import explain_waiting
from tests.unit.engines.builders import condition

Json = dict[str, Any]
NO_QUOTA = condition("QuotaReserved", "Pending", "insufficient unused quota for cpu in flavor default", status="False")
PREEMPTED = condition("Evicted", "Preempted", "Preempted to accommodate a higher priority Workload")


@pytest.mark.parametrize(
    ("conditions", "why"),
    [
        ([], ""),
        ([NO_QUOTA], NO_QUOTA["message"]),
        ([PREEMPTED, NO_QUOTA], f"{PREEMPTED['message']}; {NO_QUOTA['message']}"),
        ([condition("QuotaReserved", "QuotaReserved", "Quota reserved in ClusterQueue gpus")], ""),
        ([PREEMPTED | {"status": "False"}], ""),
    ],
    ids=["nothing yet", "no quota", "preempted", "has quota", "was preempted and goes on"],
)
def test_why_it_waits(conditions: list[Json], why: str) -> None:
    assert explain_waiting([{"status": {"conditions": conditions}}]) == why


def test_before_kueue_has_made_a_workload_there_are_no_words() -> None:
    assert explain_waiting([]) == ""
    assert explain_waiting([{}]) == ""
