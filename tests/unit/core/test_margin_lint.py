"""Lint of evaluation margins."""

import pytest

from modelwright.api.v1alpha1.policy import EvaluationMetric
from modelwright.core import margin_lint

CASES = [
    ("a margin that 2,000 examples can tell from chance", {"minDelta": "-0.02"}, None),
    ("a margin within two standard errors", {"minDelta": "-0.005"}, "about 21,022 examples"),
    ("a margin of a figure where less is better", {"maxDelta": "0.005"}, "about 21,022 examples"),
    ("a margin that must be proven with more confidence", {"minDelta": "-0.005", "confidence": "0.99"}, "31,762"),
    ("no margin", {"minDelta": "0"}, "only a candidate that is proven better"),
    ("a demand for more", {"maxDelta": "-0.01"}, "only a candidate that is proven better"),
    ("limits without a comparison", {"min": "0.9"}, None),
    ("a range that is judged by its lower end", {"minDelta": "-0.05", "maxDelta": "0"}, None),
]


@pytest.mark.parametrize(("limits", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_said_of(limits: dict[str, str], said: str | None) -> None:
    metric = EvaluationMetric.model_validate({"name": "accuracy", **limits})
    found = list(margin_lint.lint_margins([metric], "spec.here"))
    assert len(found) == (said is not None)
    assert all(said in text and text.startswith("spec.here: m") and "of accuracy" in text for text in found if said)
