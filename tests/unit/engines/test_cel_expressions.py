"""Expressions of a policy's author: what they give, and that none of them can hang or break the operator."""

from typing import Any

import pytest

from modelwright.engines.cel_expressions import check_expressions, evaluate_expressions
from modelwright.sandbox.process import SANDBOX, NoAnswer

LIVE: dict[str, Any] = {
    "metadata": {"name": "train-digits", "managedFields": [{"manager": "x"}]},
    "spec": {"suspend": None},
    "status": {
        "conditions": [{"type": "Done", "status": "True", "message": "all good"}],
        "replicas": 3,
        "share": 0.5,
        "numbers": list(range(9000)),
        "text": "a" * 100_000,
    },
}

GIVES = [
    ("a condition that is there", 'object.status.conditions.exists(c, c.type == "Done" && c.status == "True")', True),
    ("a condition that isn't", 'object.status.conditions.exists(c, c.type == "Failed")', False),
    ("a number as JSON has it", "object.status.replicas == 3 && object.status.share < 1.0", True),
    ("a member that is null", "object.spec.suspend == null", True),
    ("a member that may be missing", "has(object.status.phase) && object.status.phase == 'x'", False),
    ("a text", "object.status.conditions.filter(c, c.type == 'Done')[0].message", "all good"),
    (
        "a map",
        '{"artifact": {"uri": "s3://m/" + object.metadata.name}, "metrics": {"accuracy": object.status.share}}',
        {"artifact": {"uri": "s3://m/train-digits"}, "metrics": {"accuracy": 0.5}},
    ),
    ("a list of lists", "[[1, 2u], [true]]", [[1, 2], [True]]),
    ("a time", 'timestamp("2026-01-02T03:04:05Z")', "2026-01-02T03:04:05+00:00"),
    ("a member that we leave out", "has(object.metadata.managedFields)", False),
]


@pytest.mark.parametrize(("expression", "gives"), [row[1:] for row in GIVES], ids=[row[0] for row in GIVES])
def test_an_expression_gives_what_it_says(expression: str, gives: Any) -> None:
    assert evaluate_expressions([expression], LIVE) == [gives]


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("object.status.phase == 'x'", '"phase"'),
        ("object.status.replicas + 'x' == ''", "overload"),
        ("1 / 0", "divide by zero"),
        ("1.0 / 0.0", "no finite number"),
        ("object.status.(", "Syntax error"),
        ("b'abc'", "JSON has no form for"),
        ("object.status.text", "takes 100002 bytes"),
    ],
)
def test_an_expression_that_gives_nothing_says_why(expression: str, why: str) -> None:
    (actual,) = evaluate_expressions([expression], LIVE)
    assert isinstance(actual, NoAnswer)
    assert why in actual.why
    assert "\n" not in actual.why


def test_one_that_gives_nothing_takes_nothing_from_the_others() -> None:
    actual = evaluate_expressions(["true", "object.nothing", "object.status.replicas"], LIVE)
    assert (actual[0], actual[2]) == (True, 3)
    assert isinstance(actual[1], NoAnswer)


DOUBLING = ".map(x, x + x)"
HOSTILE = [
    ("loops in loops", "object.status.numbers.all(a, object.status.numbers.all(b, a + b >= 0))"),
    ("a text that doubles", f'["{"a" * 500}"]' + DOUBLING * 28),
    ("a list that doubles", "[object.status.numbers]" + DOUBLING * 28),
    ("a text for each number", "object.status.numbers.map(x, object.status.text + 'b')"),
    ("slow steps", "object.status.numbers.all(x, object.status.numbers == object.status.numbers)"),
    ("a tree that is compared", "[1]" + ".map(x, [x, x, x, x, x, x, x, x, x])" * 12 + " == []"),
    ("deep brackets", "(" * 500 + "1" + ")" * 500),
    ("a deep list", "[" * 500 + "]" * 500),
    ("many nots", "!" * 1000 + "object.nothing"),
]


@pytest.mark.parametrize("expression", [row[1] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_a_hostile_expression_ends_and_the_next_one_is_answered(expression: str) -> None:
    (actual,) = evaluate_expressions([expression], LIVE)
    assert isinstance(actual, NoAnswer | bool)
    assert evaluate_expressions(["1 + 1"], LIVE) == [2]


def test_a_process_that_was_killed_is_started_again() -> None:
    assert evaluate_expressions(["true"], LIVE) == [True]
    process = SANDBOX._process
    assert process is not None
    process.kill()
    process.wait()
    assert evaluate_expressions(["1 + 1"], LIVE) == [2]


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("has(object.status.phase)", None),
        ("object.anything.at.all == 'x'", None),
        ("object.status.(", "Syntax error"),
        ("size(object", "Syntax error"),
        ("job.status == 'x'", "undeclared reference to 'job"),
        ("now() > 3", "undeclared reference to 'now'"),
        ("1 + 'x' == ''", "no matching overload"),
        ("true || " * 200 + "true", "may have 1024"),
        ("[" * 200 + "]" * 200, "recursion"),
    ],
)
def test_an_invalid_expression_is_refused_without_an_object(expression: str, problem: str | None) -> None:
    (actual,) = check_expressions([expression])
    assert actual is None if problem is None else problem in str(actual)
