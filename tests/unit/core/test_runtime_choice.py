"""Choice of the runtime for a format, its reason, and the message when there is none."""

from typing import Any

import pytest

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import RuntimeRef
from modelwright.api.v1alpha1.runtime import ClusterModelRuntime
from modelwright.api.v1alpha1.version import ModelFormat
from modelwright.core.problem import Problem
from modelwright.core.runtime_choice import (
    CLUSTER_KIND,
    NAMESPACED_KIND,
    RuntimeCandidate,
    RuntimeChoice,
    choose_runtime,
)
from tests.lib import objects


def runtime(name: str, *formats: dict[str, Any], kind: str = CLUSTER_KIND, **spec: Any) -> RuntimeCandidate:
    listed = list(formats) or [{"name": "sklearn"}]
    parsed = ClusterModelRuntime.parse(objects.runtime(name, formats=listed, **spec))
    return RuntimeCandidate(kind, name, parsed.spec, 1)


SKLEARN = ModelFormat(name="sklearn")
SKLEARN_1 = ModelFormat(name="sklearn", version="1")

CHOICES = [
    ("the only one", SKLEARN, None, [runtime("a")], "a", "format sklearn, priority 0"),
    (
        "the higher priority",
        SKLEARN,
        None,
        [runtime("a"), runtime("z", {"name": "sklearn", "priority": 5})],
        "z",
        "priority 5; also matched: a (priority 0)",
    ),
    (
        "equal in priority: by name",
        SKLEARN,
        None,
        [runtime("b"), runtime("a")],
        "a",
        "also matched: b (priority 0); equal in priority, so the name decided",
    ),
    (
        "the namespace's own before a higher priority",
        SKLEARN,
        None,
        [runtime("own", kind=NAMESPACED_KIND), runtime("z", {"name": "sklearn", "priority": 9})],
        "own",
        "ModelRuntime own: format sklearn",
    ),
    ("many others are cut", SKLEARN, None, [runtime(n) for n in "abcdef"], "a", "d (priority 0), ..."),
    ("a version that is listed", SKLEARN_1, None, [runtime("a", {"name": "sklearn", "versions": ["0", "1"]})], "a", ""),
    ("no version asked for: any", SKLEARN, None, [runtime("a", {"name": "sklearn", "versions": ["0"]})], "a", ""),
    ("no version listed matches any", SKLEARN_1, None, [runtime("a")], "a", ""),
    (
        "one that is disabled is passed over",
        SKLEARN,
        None,
        [runtime("a", disabled=True), runtime("b")],
        "b",
        "priority 0",
    ),
    (
        "one that isn't for choosing is passed over",
        SKLEARN,
        None,
        [runtime("a", {"name": "sklearn", "autoSelect": False}), runtime("b")],
        "b",
        "",
    ),
    (
        "one that isn't for choosing may be named",
        SKLEARN,
        RuntimeRef(name="a"),
        [runtime("a", {"name": "sklearn", "autoSelect": False}), runtime("b")],
        "a",
        "named by spec.serving.runtimeRef",
    ),
    (
        "the kind that is named",
        SKLEARN,
        RuntimeRef(kind=NAMESPACED_KIND, name="a"),
        [runtime("a"), runtime("a", kind=NAMESPACED_KIND)],
        "a",
        "ModelRuntime a: named",
    ),
]


@pytest.mark.parametrize(
    ("wanted", "ref", "known", "name", "says"), [c[1:] for c in CHOICES], ids=[c[0] for c in CHOICES]
)
def test_choices(
    wanted: ModelFormat, ref: RuntimeRef | None, known: list[RuntimeCandidate], name: str, says: str
) -> None:
    for order in (known, known[::-1]):
        found = choose_runtime(wanted, ref, order)
        assert isinstance(found, RuntimeChoice)
        assert found.runtime.name == name
        assert says in found.reason
        assert found.format.name == "sklearn"


PROBLEMS = [
    ("no runtime at all", SKLEARN, None, [], Reason.NO_SUPPORTING_RUNTIME, "because no ModelRuntime", True),
    (
        "none for the format",
        SKLEARN,
        None,
        [runtime("a", {"name": "onnx"}), runtime("b", {"name": "xgboost"})],
        Reason.NO_SUPPORTING_RUNTIME,
        "sklearn of spec.artifact.format; formats on offer: onnx, xgboost",
        True,
    ),
    (
        "none for the version",
        SKLEARN_1,
        None,
        [runtime("a", {"name": "sklearn", "versions": ["0"]})],
        Reason.NO_SUPPORTING_RUNTIME,
        "format sklearn 1",
        True,
    ),
    (
        "the named one is missing: it may come",
        SKLEARN,
        RuntimeRef(name="a"),
        [runtime("b")],
        Reason.WAITING_FOR_RUNTIME,
        "there is no ClusterModelRuntime a",
        False,
    ),
    (
        "one of that name but of the other kind",
        SKLEARN,
        RuntimeRef(name="a"),
        [runtime("a", kind=NAMESPACED_KIND)],
        Reason.WAITING_FOR_RUNTIME,
        "there is no ClusterModelRuntime a",
        False,
    ),
    (
        "the named one is disabled",
        SKLEARN,
        RuntimeRef(name="a"),
        [runtime("a", disabled=True)],
        Reason.RUNTIME_DISABLED,
        "spec.disabled",
        True,
    ),
    (
        "the named one doesn't list the format",
        SKLEARN_1,
        RuntimeRef(name="a"),
        [runtime("a", {"name": "sklearn", "versions": ["0", "2"]})],
        Reason.RUNTIME_DOES_NOT_SUPPORT_FORMAT,
        "sklearn 1; it serves sklearn 0/2",
        True,
    ),
]


@pytest.mark.parametrize(
    ("wanted", "ref", "known", "reason", "says", "stalled"), [c[1:] for c in PROBLEMS], ids=[c[0] for c in PROBLEMS]
)
def test_problems(
    wanted: ModelFormat, ref: RuntimeRef | None, known: list[RuntimeCandidate], reason: Reason, says: str, stalled: bool
) -> None:
    found = choose_runtime(wanted, ref, known)
    assert isinstance(found, Problem)
    assert (found.reason, found.stalled) == (reason, stalled)
    assert says in found.message
    if ref is not None:
        assert found.message.startswith("spec.serving.runtimeRef: ")
