"""The fault report says how often each fault was injected, and holds only when nothing was lost."""

from collections import Counter

import pytest

from tests.faults import report
from tests.faults.disasters import Disaster
from tests.faults.matrix import MIXED, Outcome, Place, everywhere, sample
from tests.faults.proxy import Fault

PLACE = Place("canary", MIXED, 1)


def outcome(wrong: str = "") -> Outcome:
    injected = Counter({Fault.LOST_ANSWER: 3, Fault.RESET: 1})
    return Outcome(PLACE, injected, writes=30, undisturbed=20, restarts=1, wrong=wrong)


@pytest.mark.parametrize(
    ("outcomes", "disasters", "lost"),
    [
        ([outcome(), outcome()], [Disaster("etcd-restarted", 12)], 0),
        ([outcome(), outcome("another end")], [Disaster("etcd-restarted", 12)], 1),
        ([outcome()], [Disaster("etcd-restarted", 12, wrong="it does not end")], 1),
    ],
    ids=["nothing lost", "a story is lost", "a disaster is not survived"],
)
def test_figures_say_what_was_injected_and_what_was_lost(
    outcomes: list[Outcome], disasters: list[Disaster], lost: int
) -> None:
    found = {figure["name"]: figure for figure in report.figures(outcomes, disasters)}
    assert found["fault: write done, answer lost"]["value"] == 3 * len(outcomes)
    assert found["fault: 500"]["value"] == 0
    assert {f"fault: {fault}" for fault in Fault} <= found.keys()
    assert found["writes under faults, to those without"]["value"] == 1.5
    end = found["stories that did not end as without faults"]
    assert (end["value"], end["holds"]) == (lost, lost == 0)


def test_the_page_shows_the_figures() -> None:
    if report.FIGURES.exists():
        assert report.page(report.PAGE.read_text()) == report.PAGE.read_text(), "run python -m tests.faults --tables"
    else:
        assert report.BEGIN in report.PAGE.read_text()


def test_a_sample_is_repeated_by_its_seed_and_is_of_different_stories() -> None:
    assert sample(7, 6) == sample(7, 6)
    assert sample(7, 6) != sample(8, 6)
    assert len({place.story for place in sample(7, 6)}) == 6
    assert len({place.namespace for place in everywhere(1)}) == len(everywhere(1))


def test_every_place_can_be_a_namespace() -> None:
    assert all(len(place.namespace) <= 63 and "_" not in place.namespace for place in everywhere(1))
