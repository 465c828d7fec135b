"""Authors of a revision: which edits are remembered, and when they may be forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.api.v1alpha1 import Model, ModelVersion
from modelwright.api.v1alpha1.model import ChangeStatus
from modelwright.api.v1alpha1.retraining import RetrainingPolicySpec
from modelwright.api.v1alpha1.rollout import AuthorsStatus
from modelwright.core import authors
from modelwright.core.authors import AuthoredPart, record_authors, track_changes
from tests.lib import objects

Known = tuple[ChangeStatus, ...]


def model(content: str, by: str | None) -> AuthoredPart:
    return AuthoredPart("Model", "fraud", content, (by,) if by else ())


def seen(*edits: tuple[str, str | None], known: Known = (), served: str | None = None) -> ChangeStatus:
    """Return the remembered changes after each of these states of the Model; the first one serves."""
    for content, by in edits:
        bases = {"Model": served} if served else {}
        known = track_changes(known, [model(content, by)], bases, settled=not known)
    return known[0]


@pytest.mark.parametrize(
    ("what", "edits", "by", "unknown"),
    [
        ("what serves has no author", [("a", None)], (), False),
        ("a signed edit", [("a", None), ("b", "alice")], ("alice",), False),
        ("an edit without a name", [("a", "alice"), ("b", None)], (), True),
        ("two people edit", [("a", None), ("b", "alice"), ("c", "bob")], ("alice", "bob"), False),
        (
            "an edit of what is not covered keeps the name",
            [("a", None), ("b", "alice"), ("b", "alice")],
            ("alice",),
            False,
        ),
        ("a later signature answers for unsigned content", [("a", None), ("b", None), ("b", "bob")], ("bob",), False),
        ("who takes their name away stays an author", [("a", None), ("b", "alice"), ("b", None)], ("alice",), True),
        (
            "and when another person signs after that",
            [("a", None), ("b", "alice"), ("b", None), ("b", "bob")],
            ("alice", "bob"),
            False,
        ),
        ("put back as it was", [("a", None), ("b", "alice"), ("a", "bob")], (), False),
        (
            "put back, and changed by another",
            [("a", None), ("b", "alice"), ("a", "bob"), ("c", "carol")],
            ("carol",),
            False,
        ),
    ],
)
def test_edits_are_remembered(
    what: str, edits: list[tuple[str, str | None]], by: tuple[str, ...], unknown: bool
) -> None:
    found = seen(*edits)
    assert (found.by, found.unknown) == (by, unknown), what
    assert found.base == "a"


def test_a_part_first_seen_during_a_rollout_is_no_base() -> None:
    """After an upgrade in the middle of a rollout, for example, the earlier changes are unknown."""
    (found,) = track_changes((), [model("b", None)], {}, settled=False)
    assert (found.base, found.by, found.unknown) == (None, (), True)
    (found,) = track_changes((found,), [model("b", "alice")], {}, settled=False)
    assert (found.by, found.unknown) == (("alice",), False)
    # Once it serves, its ModelRollout says what it was made of.
    (found,) = track_changes((found,), [model("b", "alice")], {"Model": "b"}, settled=True)
    assert (found.base, found.by, found.unknown) == ("b", (), False)


def test_an_edit_after_a_rollout_has_its_editor_as_only_author() -> None:
    known = seen(("a", None), ("b", "alice"))
    (found,) = track_changes((known,), [model("c", "bob")], {"Model": "b"}, settled=False)
    assert (found.base, found.by) == ("b", ("bob",))


def test_authors_stay_when_the_content_differs() -> None:
    """A policy may be edited while its Model serves: the next rollout goes by it."""
    (found,) = track_changes((), [AuthoredPart("RolloutPolicy", "p", "a", ())], {}, settled=True)
    (found,) = track_changes((found,), [AuthoredPart("RolloutPolicy", "p", "b", ("alice",))], {}, settled=True)
    (found,) = track_changes(
        (found,), [AuthoredPart("RolloutPolicy", "p", "c", ("bob",))], {"RolloutPolicy": "a"}, settled=True
    )
    assert (found.base, found.by) == ("a", ("alice", "bob"))


def test_another_object_has_its_own_authors_only() -> None:
    (found,) = track_changes((), [AuthoredPart("RolloutPolicy", "p", "a", ())], {}, settled=True)
    (found,) = track_changes((found,), [AuthoredPart("RolloutPolicy", "p", "b", ("alice",))], {}, settled=True)
    (found,) = track_changes((found,), [AuthoredPart("RolloutPolicy", "q", "x", ("bob",))], {}, settled=True)
    assert (found.name, found.base, found.by) == ("q", "a", ("bob",))


def test_more_authors_than_fit_are_unknown_and_never_dropped() -> None:
    found = seen(("a", None), *((f"c{n}", f"p{n}") for n in range(16)))
    assert (len(found.by), found.unknown) == (16, False)
    for content in ("x", "y"):
        (found,) = track_changes((found,), [model(content, "p16")], {}, settled=False)
        assert (len(found.by), found.unknown) == (16, True)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["alice", "bob", "carol", None])), max_size=12))
def test_all_who_signed_since_the_served_content_are_authors(
    edits: list[tuple[str, str | None]],
) -> None:
    found = seen(("a", None), *edits)
    last = max((n for n, (content, _) in enumerate(edits) if content == "a"), default=-1)
    since = edits[last + 1 :]
    assert set(found.by) == {by for _, by in since if by}
    assert found.unknown == bool(since and since[-1][1] is None)


def change(kind: str, content: str, *by: str, unknown: bool = False, name: str = "x") -> ChangeStatus:
    return ChangeStatus(kind=kind, name=name, content=content, by=by, unknown=unknown)


def entry(kind: str, content: str, *by: str, unknown: bool = False, name: str = "x") -> AuthorsStatus:
    return AuthorsStatus(kind=kind, name=name, content=content, by=by, unknown=unknown)


def test_a_rollout_keeps_the_authors_of_its_own_content() -> None:
    began = [entry("Model", "m", unknown=True), entry("RolloutPolicy", "p", "alice")]
    # The policy was edited since: the rollout has its snapshot. The Model is the same, and has a signature now.
    now = [change("Model", "m", "bob"), change("RolloutPolicy", "q", "carol")]
    assert record_authors(began, now, None, None) == (entry("Model", "m", "bob"), entry("RolloutPolicy", "p", "alice"))


def data(content: str | None, generation: int = 1, by: str | None = None, name: str = "x") -> dict[str, Any]:
    runtime = {"kind": "ModelRuntime", "name": name, "content": content, "changedBy": by}
    return {
        "runtime": {key: value for key, value in runtime.items() if value is not None},
        "inputs": {"runtimeGeneration": generation},
    }


@pytest.mark.parametrize(
    ("what", "now", "rendered", "served", "by", "unknown"),
    [
        ("the same content", change("ModelRuntime", "a"), data("a", 1), data("a", 2), (), False),
        (
            "stored by an older operator, same generation",
            change("ModelRuntime", "a"),
            data("a", 3),
            data(None, 3),
            (),
            False,
        ),
        (
            "edited, and rendered by that",
            change("ModelRuntime", "b", "alice"),
            data("b", 2, "alice"),
            data("a"),
            ("alice",),
            False,
        ),
        ("signed after it was rendered", change("ModelRuntime", "b", "bob"), data("b", 2), data("a"), ("bob",), False),
        (
            "rendered by an edit that was put back since",
            change("ModelRuntime", "a"),
            data("b", 2, "alice"),
            data("a"),
            ("alice",),
            False,
        ),
        ("the same, of an edit without a name", change("ModelRuntime", "a"), data("b", 2), data("a"), (), True),
        (
            "rendered before the content that was signed later",
            change("ModelRuntime", "c", "bob"),
            data("b", 2),
            data("a"),
            ("bob",),
            True,
        ),
        ("a first revision", change("ModelRuntime", "a", "alice"), data("a", 1, "alice"), None, ("alice",), False),
        (
            "another runtime",
            change("ModelRuntime", "a", "bob"),
            data("a", 1, "bob"),
            data("a", 1, name="y"),
            ("bob",),
            False,
        ),
    ],
)
def test_the_runtime_that_rendered_the_candidate_counts(
    what: str, now: ChangeStatus, rendered: Any, served: Any, by: tuple[str, ...], unknown: bool
) -> None:
    (found,) = record_authors((), [now], rendered, served)
    assert (found.by, found.unknown) == (by, unknown), what


def of_model(**spec: Any) -> str:
    return authors.hash_model_spec(Model.parse(objects.model("risk", **spec)).spec)


def test_a_models_hash_covers_fields_that_decide_revisions() -> None:
    plain = of_model()
    for same in ({"suspend": True}, {"changedBy": "alice"}, {"owner": {"team": "x"}}, {"serving": {"replicas": 5}}):
        assert of_model(**same) == plain, same
    env = [{"name": "model", "env": [{"name": "A", "value": None}]}]
    others = [
        of_model(serving={"podTemplate": {"spec": {"containers": [{"name": "model", "image": "evil"}]}}}),
        of_model(serving={"podTemplate": {"spec": {"containers": env}}}),
        of_model(serving={"runtimeRef": {"name": "other"}}),
        of_model(serving={"restartedAt": "2026-11-21T03:00:00Z"}),
        of_model(rolloutPolicyRef={"name": "lenient"}),
    ]
    assert len({plain, *others}) == len(others) + 1


def test_the_serving_version_has_authors_only_when_recreated() -> None:
    def part(serving: str | None, **spec: Any) -> AuthoredPart:
        version = objects.version("risk", "v2", "fraud")
        version["spec"] |= spec
        return authors.build_version_part("v2", ModelVersion.parse(version).spec, "d", serving)

    (known,) = track_changes((), [part("v2", author="bob")], {}, settled=True)
    (found,) = track_changes((known,), [part("v2", author="bob")], {}, settled=False)
    assert (found.by, found.unknown) == ((), False)
    (found,) = track_changes((known,), [part("v2", author="alice", parameters={"a": "b"})], {}, settled=False)
    assert found.by == ("alice",)
    (found,) = track_changes((known,), [part("v1", author="bob", authors=["carol", "bob"])], {}, settled=False)
    assert found.by == ("bob", "carol")
    (found,) = track_changes((known,), [part("v1")], {}, settled=False)
    assert found.unknown


def test_a_training_has_the_authors_of_its_policy_and_of_its_run() -> None:
    spec = {
        "modelRef": {"name": "fraud"},
        "run": {
            "dataset": {"uri": "s3://data/x"},
            "train": {"job": {"template": {}}},
            "output": {"uri": "s3://models/x", "format": {"name": "plain"}},
        },
    }
    unsigned = RetrainingPolicySpec.model_validate(spec)
    signed = RetrainingPolicySpec.model_validate(spec | {"changedBy": "alice"})
    assert authors.training_authors(unsigned, None) == ("modelwright:retraining",)
    assert authors.training_authors(unsigned, "bob") == ("modelwright:retraining", "bob")
    assert authors.training_authors(signed, None) == ("alice",)
    assert authors.training_authors(signed, "alice") == ("alice",)
    assert authors.training_authors(signed, "bob") == ("alice", "bob")
