"""The target version of a Model, pinned digests, and the lifecycle stages of versions."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import ModelStatus, ServedStatus, ServingStatus, VersionSource
from modelwright.api.v1alpha1.version import Artifact, ModelVersion
from modelwright.core.problem import Problem
from modelwright.core.versions import (
    VersionToCreate,
    generated_name,
    lifecycle_stage,
    newest_trained,
    parse_artifact_report,
    pinned_digest,
    resolve_target,
)
from tests.lib import objects

FOLLOW = VersionSource.model_validate({"follow": {}})
TEMPLATE = VersionSource.model_validate(
    {"template": {"artifact": {"uri": "s3://models/digits/1", "format": {"name": "sklearn"}}}}
)


def version(name: str, hour: int = 1, model: str = "digits", **metadata: Any) -> ModelVersion:
    raw = objects.version("vision", name, model=model)
    raw["metadata"] |= {"creationTimestamp": f"2026-11-21T{hour:02}:00:00Z", **metadata}
    return ModelVersion.parse(raw)


def at(hour: int) -> datetime:
    return datetime(2026, 11, 21, hour, tzinfo=UTC)


def named(name: str) -> VersionSource:
    return VersionSource(name=name)


TAKEN = [
    ("the named one", named("a"), [version("a"), version("b", 2)], None, None, "a"),
    ("the newest", FOLLOW, [version("a", 1), version("b", 2)], None, None, "b"),
    ("of two as old the later name", FOLLOW, [version("b"), version("a")], None, None, "b"),
    ("not another Model's", FOLLOW, [version("a"), version("z", 9, model="other")], None, None, "a"),
    (
        "not one that is being deleted",
        FOLLOW,
        [version("a"), version("b", 2, deletionTimestamp="2026-11-21T03:00:00Z")],
        None,
        None,
        "a",
    ),
    ("the newest, not the serving one", FOLLOW, [version("a", 1), version("b", 2)], "a", at(1), "b"),
    (
        "never below the serving one, with any present labels",
        VersionSource.model_validate({"follow": {"selector": {"matchLabels": {"stable": "yes"}}}}),
        [version("a", 1, labels={"stable": "yes"}), version("b", 2)],
        "b",
        at(2),
        "b",
    ),
    (
        "only with the labels asked for",
        VersionSource.model_validate({"follow": {"selector": {"matchLabels": {"stable": "yes"}}}}),
        [version("a", 1, labels={"stable": "yes"}), version("b", 2, labels={"stable": "no"})],
        None,
        None,
        "a",
    ),
    (
        "one that came after the serving one, which is deleted, took over",
        FOLLOW,
        [version("a", 1), version("c", 4)],
        "b",
        at(3),
        "c",
    ),
]


@pytest.mark.parametrize(
    ("source", "known", "serving", "since", "name"), [c[1:] for c in TAKEN], ids=[c[0] for c in TAKEN]
)
def test_which_version_is_taken(
    source: VersionSource, known: list[ModelVersion], serving: str | None, since: datetime | None, name: str
) -> None:
    for order in (known, known[::-1]):
        found = resolve_target("digits", source, order, serving, since)
        assert isinstance(found, ModelVersion)
        assert found.name == name


MISSING = [
    ("one that isn't there may come", named("a"), [], None, None, Reason.WAITING_FOR_VERSION, "ModelVersion a", False),
    ("none at all may come", FOLLOW, [], None, None, Reason.WAITING_FOR_VERSION, "has no ModelVersion yet", False),
    (
        "another Model's never will do",
        named("a"),
        [version("a", model="faces")],
        None,
        None,
        Reason.VERSION_OF_ANOTHER_MODEL,
        "of Model faces",
        True,
    ),
    (
        "the serving one was deleted and only older ones are left",
        FOLLOW,
        [version("a", 1)],
        "b",
        at(3),
        Reason.WAITING_FOR_VERSION,
        "ModelVersion b, which serves, was deleted",
        False,
    ),
]


@pytest.mark.parametrize(
    ("source", "known", "serving", "since", "reason", "says", "stalled"),
    [c[1:] for c in MISSING],
    ids=[c[0] for c in MISSING],
)
def test_why_there_is_none(
    source: VersionSource,
    known: list[ModelVersion],
    serving: str | None,
    since: datetime | None,
    reason: Reason,
    says: str,
    stalled: bool,
) -> None:
    found = resolve_target("digits", source, known, serving, since)
    assert isinstance(found, Problem)
    assert (found.reason, found.stalled) == (reason, stalled)
    assert says in found.message
    assert found.message.startswith("spec.version")


def trained(
    name: str, hour: int = 2, model: str = "digits", stage: str | None = None, **metadata: Any
) -> dict[str, Any]:
    raw = objects.version("vision", name, model=model)
    raw["metadata"] |= {"creationTimestamp": f"2026-11-21T{hour:02}:00:00Z", **metadata}
    raw["spec"]["lineage"] = {"trainingRun": name}
    return raw | ({"status": {"stage": stage}} if stage else {})


by_hand = objects.version("vision", "by-hand")
by_hand["metadata"]["creationTimestamp"] = "2026-11-21T09:00:00Z"
ANNOUNCED = [
    ("the newest of those that were trained since", [trained("a"), trained("c", 4), trained("b", 3)], "c"),
    ("none that was trained before", [trained("a", 0)], None),
    ("none that a person made", [by_hand], None),
    ("none of another Model", [trained("z", model="other")], None),
    ("none that callers were taken back from", [trained("a"), trained("b", 3, stage="Quarantined")], "a"),
    ("none that was rejected", [trained("b", 3, stage="Rejected")], None),
    ("none that is being deleted", [trained("a", deletionTimestamp="2026-11-21T03:00:00Z")], None),
]


@pytest.mark.parametrize(("known", "name"), [c[1:] for c in ANNOUNCED], ids=[c[0] for c in ANNOUNCED])
def test_the_newest_trained_version_is_announced(known: list[dict[str, Any]], name: str | None) -> None:
    own = trained("pinned", 1)
    found = newest_trained("digits", own, [own, *known])
    assert (found["metadata"]["name"] if found else None) == name


def test_a_template_is_stamped_once_under_a_name_of_its_content() -> None:
    found = resolve_target("digits", TEMPLATE, [], None)
    assert isinstance(found, VersionToCreate)
    assert found.name == generated_name("digits", TEMPLATE)
    assert found.spec["modelRef"] == {"name": "digits"}
    again = resolve_target("digits", TEMPLATE, [version(found.name)], None)
    assert isinstance(again, ModelVersion)
    theirs = resolve_target("digits", TEMPLATE, [version(found.name, model="faces")], None)
    assert isinstance(theirs, Problem)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abcdef")), unique_by=lambda x: x[1], max_size=5))
def test_following_only_increases_for_any_order_of_events(made: list[tuple[int, str]]) -> None:
    known: list[ModelVersion] = []
    serving: ModelVersion | None = None
    for hour, name in made:
        known.append(version(name, hour))
        found = resolve_target("digits", FOLLOW, known, serving.name if serving else None, at(hour))
        assert isinstance(found, ModelVersion)
        if serving is not None:
            before = serving.metadata.creation_timestamp, serving.name
            assert (found.metadata.creation_timestamp, found.name) >= before  # type: ignore[operator]
        serving = found


SHA, COMMIT = "sha256:" + "a" * 64, "b" * 40
DIGESTS = [
    ("the author's own comes first", f"oci://example.com/m@{SHA}", "sha256:" + "c" * 64, SHA, "sha256:" + "c" * 64),
    ("then what was found out once", "s3://models/x", None, SHA, SHA),
    ("an OCI address may say it", f"oci://example.com/m@{SHA}", None, None, SHA),
    ("an OCI tag does not", "oci://example.com/m:1", None, None, None),
    ("a whole commit of a hub says it", f"hf://org/name@{COMMIT}", None, None, f"git:{COMMIT}"),
    ("a branch of a hub does not", "hf://org/name@main", None, None, None),
    ("a short commit does not", f"hf://org/name@{COMMIT[:7]}", None, None, None),
    ("nothing known", "s3://models/x", None, None, None),
]


@pytest.mark.parametrize(("uri", "own", "resolved", "expected"), [c[1:] for c in DIGESTS], ids=[c[0] for c in DIGESTS])
def test_pinned_digest(uri: str, own: str | None, resolved: str | None, expected: str | None) -> None:
    artifact = Artifact.model_validate({"uri": uri, "digest": own, "format": {"name": "x"}})
    assert pinned_digest(artifact, resolved) == expected


STANDINGS = [
    ("one that never served", "b", [], None, "Candidate"),
    ("one of a Model that serves nothing", None, [], None, "Candidate"),
    ("the one that serves", "a", ["b"], None, "Serving"),
    ("the one that serves, though a rollout to it was rolled back once", "a", ["b"], "Quarantined", "Serving"),
    ("the one that served before", "b", ["a", "c"], None, "Previous"),
    ("one that served long ago", "b", ["c", "a"], None, "Retired"),
    ("one that a gate refused", "b", ["c"], "Rejected", "Rejected"),
    ("one that was rolled back", "b", ["c"], "Quarantined", "Quarantined"),
    ("one with a stage that an older operator wrote", "b", ["c"], "Serving", "Candidate"),
]


@pytest.mark.parametrize(
    ("serving", "history", "found", "expected"), [c[1:] for c in STANDINGS], ids=[c[0] for c in STANDINGS]
)
def test_where_a_version_stands(serving: str | None, history: list[str], found: str | None, expected: str) -> None:
    raw = objects.version("vision", "a") | {"status": {"stage": found}}
    model = ModelStatus(
        serving=ServingStatus(version=serving, revision="1") if serving else None,
        history=tuple(ServedStatus(version=name, revision=name) for name in history),
    )
    assert lifecycle_stage(ModelVersion.parse(raw), model) == expected


@pytest.mark.parametrize(
    ("report", "size"),
    [
        ({"digest": "sha256:" + "a" * 64, "sizeBytes": 5}, 5),
        ({"digest": "git:" + "a" * 40}, None),
        ({"digest": "sha256:" + "a" * 64, "sizeBytes": -1}, None),
        ({"digest": "sha256:" + "a" * 64, "sizeBytes": 10**400}, None),
        ({"digest": "sha256:" + "a" * 64, "sizeBytes": "5"}, None),
    ],
)
def test_the_report_of_a_resolve_pod_is_parsed(report: dict[str, object], size: int | None) -> None:
    found = parse_artifact_report(report)
    assert found is not None
    assert (found.digest, found.size_bytes) == (report["digest"], size)


@pytest.mark.parametrize("report", [None, {}, {"digest": 5}, {"digest": "latest"}, {"digest": "sha256:" + "A" * 64}])
def test_an_invalid_digest_pins_nothing(report: dict[str, object] | None) -> None:
    assert parse_artifact_report(report) is None
