"""How long the statuses of objects take to answer."""

import math

import pytest

from modelwright.kube import kinds
from tests.scale.answers import Answer, Answers, Edit, percentile, read_model


def status(generation: int, ready: str = "True", reason: str = "Succeeded") -> dict:
    return {
        "metadata": {"name": "m"},
        "status": {
            "observedGeneration": generation,
            "conditions": [
                {"type": "Ready", "status": ready, "observedGeneration": generation},
                {"type": "Reconciling", "reason": reason},
            ],
        },
    }


def test_an_acknowledgement_knows_the_edit_and_is_not_its_work():
    assert set(read_model(status(2, "False", "NewGeneration"))) == {Answer.KNOWN}
    assert set(read_model(status(2, "False", "Progressing"))) == {Answer.KNOWN, Answer.WORKED_ON}
    assert set(read_model(status(2))) == set(Answer)


def test_ready_for_an_older_generation_is_not_ready():
    old = status(2)
    old["status"]["conditions"][0]["observedGeneration"] = 1
    assert Answer.READY not in set(read_model(old))


def test_the_first_answer_to_a_generation_or_a_later_one_counts(monkeypatch: pytest.MonkeyPatch):
    answers = Answers(None, kinds.MODEL, read_model)
    for at, obj in (
        (10.0, status(1)),
        (12.0, status(3, "False", "NewGeneration")),
        (13.0, status(3)),
        (14.0, status(3)),
    ):
        monkeypatch.setattr("time.time", lambda at=at: at)
        answers._note(obj)
    edits = [Edit("m", 2, 11.0), Edit("m", 3, 11.5), Edit("m", 4, 13.5), Edit("other", 1, 1.0)]
    assert [answers.when(edit, Answer.KNOWN) for edit in edits] == [12.0, 12.0, math.inf, math.inf]
    assert [answers.when(edit, Answer.READY) for edit in edits] == [13.0, 13.0, math.inf, math.inf]
    assert answers.waits(edits[:2], Answer.KNOWN) == [0.5, 1.0]


def test_an_object_without_a_status_says_nothing():
    answers = Answers(None, kinds.MODEL, read_model)
    answers._note({"metadata": {"name": "m"}})
    answers._note({"metadata": {"name": "m"}, "status": {}})
    assert answers.when(Edit("m", 1, 0.0), Answer.KNOWN) == math.inf


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0)])
def test_percentile(share: float, expected: float):
    assert percentile([float(n) for n in range(1, 101)], share) == expected
