"""What the plugin shows of a Model: the tree, the history, the reasons, the lineage, the card."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from modelwright.cli import lineage, model_card, status_tree, version_diff
from modelwright.cli.model_view import ObjectNotFound, build_view, format_age, move_result, resolve_model_name
from modelwright.cli.why import render_why, why_data
from tests.unit.cli import world
from tests.unit.cli.world import NOW, condition, seen

Json = dict[str, Any]


def test_the_tree_shows_traffic_decision_and_evidence() -> None:
    assert (
        status_tree.render_tree(seen(), NOW)
        == """\
Model digits  Ready=False RolloutInProgress  http://digits.example.com
├─ step 1 of 3
├─ 90 % of the requests: version v1, since 3h
│  └─ pod digits-r1-a  ready  on node-a
├─ 10 % of the requests (observed 9 %): version v2
│  └─ pod digits-r2-a  CrashLoopBackOff  3 restarts  on node-a
├─ rollout digits-2  Progressing  v1 -> v2  step 1/3  weight 10 %  since 60m
│  ├─ gate infra: Pass; 5 requests answered as expected
│  └─ error-rate: Inconclusive; 12 of 50 requests answered by the candidate
├─ 2 versions
│  ├─ v2  Candidate  accuracy 0.97  trained by nightly
│  └─ v1  Serving  accuracy 0.95
└─ retraining digits  2 failures in a row
   └─ run digits-nightly  Failed  2h  nulls: 3 of 10"""
    )


def test_drift_is_shown_with_the_worst_features() -> None:
    figures = {"value": "0.31", "limit": "0.08", "floor": "0.05", "rows": 812, "window": "10m"}
    worst = [
        {"kind": "input", "feature": "age", "drifted": True, "aspect": "distance", "method": "PSI", **figures},
        {"kind": "input", "feature": "plan", "drifted": False, "aspect": "missing", **figures, "value": "0.01"},
    ]
    drift = {"version": "v1", "drifted": True, "at": "2026-11-26T11:58:00Z", "worst": worst}
    drift["unwatched"] = [{"kind": "input", "feature": "comment"}]
    drifted_model = seen(world.model(condition("Ready", "True", "Serving"), drift=drift))
    head = "requests have drifted from the reference of v1 (as of 2m ago)"
    first = "drifted: input age: PSI 0.31, limit 0.08 (floor 0.05), 812 rows in 10m"
    second = "input plan: share of missing values 0.01, limit 0.08 (floor 0.05), 812 rows in 10m"
    third = "input comment: not watched, it is free text"
    assert f"├─ {head}\n│  ├─ {first}\n│  ├─ {second}\n│  └─ {third}\n" in status_tree.render_tree(drifted_model, NOW)
    assert f"\nR{head[1:]}:\n- {first}\n- {second}\n- {third}\n" in render_why(drifted_model, NOW)
    assert why_data(drifted_model, NOW)["drift"]["worst"][0]["value"] == "0.31"


def test_the_tree_shows_an_available_version() -> None:
    announced = {"version": "v2", "trainingRun": "nightly"}
    output = status_tree.render_tree(seen(world.model(condition("Ready", "True", "Serving"), announced=announced)), NOW)
    assert "v2  Candidate  accuracy 0.97  trained by nightly  available: set spec.version to it" in output


def test_the_history_has_a_line_for_each_rollout_the_newest_first() -> None:
    by_hand = world.rollout("digits-back", 9, "v0", "Succeeded", None, finishedAt="2026-11-26T09:01:00Z")
    lines = status_tree.render_history(seen(by_hand), NOW).splitlines()
    assert [line.split()[0] for line in lines] == ["ROLLOUT", "digits-2", "digits-back", "digits-1"]
    assert "bob" in lines[2]
    assert lines[2].split()[-1] == "60s"


def test_why_gives_the_evidence_and_what_can_be_done() -> None:
    output = render_why(seen(), NOW)
    assert "Model digits serves version v1." in output
    assert "The target is version v2." in output
    assert "from version v1 to v2 is Progressing, step 1/3, weight 10 %, since 60m (StepHolding): waiting for" in output
    assert "step 1 (weight 10 %): error-rate: Inconclusive" in output
    assert "query: sum(rate(requests[1m]))" in output
    assert output.endswith("kubectl modelwright pause digits pauses it; abort digits rolls it back.")


def test_why_says_that_a_policy_promotes_by_time_alone() -> None:
    alone = condition("EvidenceAsked", "False", "PromotesByTimeAlone", "it promotes by time alone: it has no analysis")
    asked = condition("EvidenceAsked", "True", "EvidenceAsked", "gate infra")
    said = "Its RolloutPolicy requires no evidence: it promotes by time alone: it has no analysis."
    ready = condition("Ready", "True", "Serving")
    assert said in render_why(seen(world.model(ready, conditions=[ready, alone])), NOW)
    assert "asks for no evidence" not in render_why(seen(world.model(ready, conditions=[ready, asked])), NOW)
    ended = world.rollout("digits-2", 11, "v2", "Succeeded", conditions=[alone], finishedAt="2026-11-26T11:30:00Z")
    assert said in render_why(seen(ended), NOW)


def test_why_tree_and_card_name_the_authors_of_changes() -> None:
    authors = [
        {"kind": "Model", "name": "digits", "content": "h", "by": ["alice"], "unknown": True},
        {"kind": "ModelVersion", "name": "v2", "content": "h", "by": ["dora"]},
        {"kind": "RolloutPolicy", "name": "canary", "content": "h"},
    ]
    ended = world.rollout("digits-2", 11, "v2", "Succeeded", authors=authors, finishedAt="2026-11-26T11:30:00Z")
    author_line = "author of Model digits: alice, an unknown user"
    for text in (render_why(seen(ended), NOW), status_tree.render_tree(seen(ended), NOW)):
        assert author_line in text
        assert "author of ModelVersion v2: dora" in text
        assert "RolloutPolicy canary:" not in text
    assert f"- digits-2: {author_line}" in model_card.render_card(seen(ended), "v2")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ({"code": True}, "ClusterModelRuntime mlserver runs code from the artifact: gates.scan"),
        ({}, "ClusterModelRuntime mlserver doesn't say whether it runs code from the artifact: gates.scan"),
        ({"code": False}, None),
    ],
    ids=["code", "unsaid", "data"],
)
def test_why_says_that_the_artifact_is_code(code: dict[str, bool], said: str | None) -> None:
    runtime = {"kind": "ClusterModelRuntime", "name": "mlserver", **code}
    output = render_why(seen(world.model(condition("Ready", "True", "Serving"), runtime=runtime)), NOW)
    assert (said in output) if said else ("code" not in output)


def test_why_says_a_thing_once_that_several_conditions_say() -> None:
    text, both = "version v2 was taken back", ("GateFailed", "version v2 was taken back")
    ready, stalled = condition("Ready", "False", *both), condition("Stalled", "True", *both)
    stuck = world.model(ready, conditions=[ready, stalled], failure={"reason": "GateFailed", "message": text})
    output = render_why(seen(stuck), NOW)
    assert f"Ready is False and Stalled is True: GateFailed: {text}" in output
    assert output.count(text) == 1


@pytest.mark.parametrize(
    ("state", "hint"),
    [
        ("RolledBack", "retry digits"),
        ("Aborted", "retry digits"),
        ("AwaitingApproval", "approve digits"),
        ("Holding", "promote digits"),
        ("Succeeded", ""),
    ],
)
def test_why_says_what_can_be_done_in_each_state(state: str, hint: str) -> None:
    ended = {"finishedAt": "2026-11-26T11:30:00Z"} if state in ("RolledBack", "Aborted", "Succeeded") else {}
    record = world.rollout("digits-2", 11, "v2", state, 2, reason="X", message="m", **ended)
    output = render_why(seen(record), NOW)
    assert (hint in output) if hint else ("kubectl modelwright" not in output)


@pytest.mark.parametrize(
    ("reason", "said", "missing"),
    [
        ("Inconclusive", "ended undecided", "was aborted"),
        ("DeadlineExceeded", "ended undecided", "was aborted"),
        ("AbortedByCommand", "was aborted", "not quarantined"),
    ],
)
def test_why_explains_whether_an_aborted_version_is_quarantined(reason: str, said: str, missing: str) -> None:
    ended = "2026-11-26T11:30:00Z"
    output = render_why(
        seen(world.rollout("digits-2", 11, "v2", "Aborted", 2, reason=reason, message="m", finishedAt=ended)), NOW
    )
    assert said in output
    assert missing not in output
    assert ("it is not quarantined" in output) == (reason != "AbortedByCommand")
    assert "kubectl modelwright retry digits" in output


def test_why_explains_a_manual_rollback_in_progress() -> None:
    promoting = world.model(condition("Ready", "False", "WaitingForRoute"), name="digits-back", state="Promoting")
    output = render_why(seen(promoting, world.rollout("digits-back", 12, "v0", "Promoting", None)), NOW)
    assert output.endswith("the Model stays pinned until release digits; abort digits ends the rollback.")


def test_an_earlier_rollout_can_be_asked_about() -> None:
    assert "Rollout digits-1 to version v1 was promoted 3h ago (Promoted)" in render_why(seen(), NOW, "digits-1")
    with pytest.raises(ObjectNotFound, match="no ModelRollout digits-9; there are digits-1, digits-2"):
        render_why(seen(), NOW, "digits-9")


RESULTS = [
    ("ready", condition("Ready", "True", "Serving"), "Succeeded", 1, "promoted"),
    ("ready, but of an older spec", condition("Ready", "True", "Serving"), "Succeeded", 2, None),
    ("on its way", condition("Ready", "False", "RolloutInProgress"), "Progressing", 1, None),
    ("rolled back", condition("Ready", "False", "AnalysisFailed"), "RolledBack", 1, "failed"),
    ("aborted", condition("Ready", "False", "AbortedByCommand"), "Aborted", 1, "failed"),
    ("stalled", condition("Stalled", "True", "PolicyNotSupported"), "Pending", 1, "failed"),
]


@pytest.mark.parametrize(
    ("told", "state", "generation", "expected"), [c[1:] for c in RESULTS], ids=[c[0] for c in RESULTS]
)
def test_what_waiting_comes_to(told: Json, state: str, generation: int, expected: str | None) -> None:
    model = world.model(told, state=state)
    model["metadata"]["generation"] = generation
    assert move_result(seen(model)) == expected


def test_wait_covers_a_version_that_a_follower_has_not_observed() -> None:
    model = world.model(condition("Ready", "True", "Serving"), state="Succeeded")
    model["spec"]["version"] = {"follow": {}}
    assert move_result(seen(model)) == "promoted"
    assert move_result(seen(model, world.version("v3", 11, "Candidate"))) is None
    assert move_result(seen(model, world.version("v3", 11, "Quarantined"))) == "promoted"


@pytest.mark.parametrize("name", ["digits", "digits-2", "v2", "digits-nightly", "digits-r1-a"])
def test_a_model_is_found_by_the_name_of_its_objects(name: str) -> None:
    assert resolve_model_name(name, world.namespace()) == "digits"


def test_a_name_that_is_nowhere_is_told_with_what_is_there() -> None:
    with pytest.raises(ObjectNotFound, match="nor anything of that name that belongs to one; there are digits"):
        resolve_model_name("faces", world.namespace())
    with pytest.raises(ObjectNotFound, match="there are no Models"):
        build_view("faces", [])


def test_lineage_goes_back_to_data_and_code_and_forward_to_pods() -> None:
    output = lineage.render_lineage(seen(), "v2")
    for text in (
        "data s3://data/digits",
        "code https://example.com/r at abc",
        "TrainingRun nightly",
        "C = 10",
        "serves 10 % of the requests of Model digits",
        "pod digits-r2-a",
        "from version v1",
    ):
        assert text in output, output
    data = lineage.lineage_data(seen(), "v2")
    assert (data["ancestors"], data["weight"], data["pods"]) == (["v1"], 10, ["digits-r2-a"])
    json.dumps(data)


def test_the_selected_part_of_an_artifact_is_shown() -> None:
    artifact = {"uri": "oci://reg.io/car:1", "format": {"name": "plain"}, "path": "models", "exclude": ["*.bin", "._*"]}
    found = seen(world.version("v2", 10, "Candidate", artifact=artifact))
    assert "selected path models; exclude *.bin, ._*" in lineage.render_lineage(found, "v2")
    assert lineage.lineage_data(found, "v2")["part"] == "path models; exclude *.bin, ._*"
    assert "- Selected: `path models; exclude *.bin, ._*`" in model_card.render_card(found, "v2")
    assert "part" not in lineage.lineage_data(seen(), "v1")


def test_lineage_that_names_itself_or_what_is_gone_ends() -> None:
    loop = world.version("v1", 8, "Serving", lineage={"parent": "v2"})
    assert "from version v2" in lineage.render_lineage(seen(loop), "v2")
    assert lineage.lineage_data(seen(loop), "v2")["ancestors"] == ["v1"]
    gone = world.version("v2", 10, "Candidate", lineage={"parent": "v9"})
    assert "from version v9 (no longer there)" in lineage.render_lineage(seen(gone), "v2")


def test_a_difference_is_by_field_and_metrics_with_their_change() -> None:
    output = version_diff.render_diff(seen(), "v1", "v2")
    assert "metrics[accuracy] on holdout   0.95" in output
    assert "+0.02" in output
    assert "parameters.C" in output
    assert "artifact.digest" not in output, "the digest is the same"


def test_a_card_has_the_front_matter_and_only_what_is_known() -> None:
    text = model_card.render_card(seen(), "v2")
    _, front, body = text.split("---\n", 2)
    loaded = yaml.safe_load(front)
    assert loaded["license"] == "apache-2.0"
    assert loaded["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.97
    assert "## Limitations\n\nNo letters." in body
    assert "Intended use" not in body
    assert "| digits-2 | Progressing | waiting for evidence |" in body


@pytest.mark.parametrize(("ago", "expected"), [("11:59:15", "45s"), ("10:00:00", "2h"), ("11:00:00", "60m")])
def test_an_age_is_in_its_largest_unit(ago: str, expected: str) -> None:
    begun = NOW.replace(hour=int(ago[:2]), minute=int(ago[3:5]), second=int(ago[6:]))
    assert format_age(begun, NOW) == expected
