"""Approvals: which of them count, and what they decide."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.api.v1alpha1 import Approval, ModelRollout, ModelVersion
from modelwright.api.v1alpha1.rollout import AuthorsStatus
from modelwright.core import approvals, authors
from modelwright.core.approvals import ApprovalsMissing, Approved, Rejected
from modelwright.core.authors import Authors
from modelwright.core.revision import Revision
from tests.lib import objects

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ASKED = NOW - timedelta(hours=1)
HASH = "h" * 32
ROLLOUT = ModelRollout.parse(
    {
        "metadata": {"name": "fraud-3", "namespace": "risk", "uid": "u3"},
        "spec": {"modelRef": {"name": "fraud"}, "number": 3, "target": {"version": "fraud-v2"}},
    }
)
_names = itertools.count()


def approval(approver: str, created: datetime = NOW - timedelta(minutes=5), **changes: Any) -> Approval:
    spec: dict[str, Any] = {
        "modelRef": {"name": changes.pop("model", "fraud")},
        "rollout": {"name": "fraud-3", "uid": "u3"} | changes.pop("rollout", {}),
        "contentHash": HASH,
        "decision": "Approve",
        "approver": approver,
        "reason": "figures are good",
        **{key: value for key, value in changes.items() if key not in ("name", "namespace", "deleted")},
    }
    metadata: dict[str, Any] = {
        "name": changes.get("name", f"a{next(_names)}"),
        "namespace": changes.get("namespace", "risk"),
        "creationTimestamp": created.isoformat(),
    }
    if changes.get("deleted"):
        metadata["deletionTimestamp"] = created.isoformat()
    return Approval.parse({"metadata": metadata, "spec": spec})


def of_version(author: str | None, name: str = "fraud-v2") -> AuthorsStatus:
    by = (author,) if author is not None else ()
    unknown = author is None or author == authors.RETRAINING_AUTHOR
    return AuthorsStatus(kind="ModelVersion", name=name, content="c", by=by, unknown=unknown)


def judged(
    *found: Approval,
    required: int = 1,
    author: str | None = "dora",
    accounts: bool = False,
    others: tuple[AuthorsStatus, ...] = (),
) -> approvals.ApprovalDecision:
    known = authors.collect_authors((of_version(author), *others), service_accounts=accounts)
    return approvals.evaluate_approvals(
        found,
        rollout=ROLLOUT,
        content_hash=HASH,
        authors=known,
        required=required,
        now=NOW,
        since=ASKED,
        service_accounts=accounts,
    )


def test_enough_different_approvers_approve() -> None:
    first, second = approval("alice"), approval("bob")
    assert judged(first) == Approved((first,))
    decision = judged(second, approval("alice", NOW), first, required=2)
    assert isinstance(decision, Approved)
    assert {a.spec.approver for a in decision.counted} == {"alice", "bob"}


def test_a_person_counts_once_and_the_message_counts_the_missing() -> None:
    decision = judged(approval("alice"), approval("alice"), required=3)
    assert isinstance(decision, ApprovalsMissing)
    assert decision.missing == 2
    assert decision.reason == "AwaitingApproval"
    assert decision.message == "1 of 3 different approvers: approved by alice; 2 missing"
    decision = judged()
    assert isinstance(decision, ApprovalsMissing)
    assert decision.message == "0 of 1 approver: no approvals yet; 1 missing"


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (approval("dora", name="x"), "x of dora is an author's own: another person has to approve"),
        (approval("alice", contentHash="other"), f"was given for another content (other; this is {HASH})"),
        (approval("alice", expiresAt="2026-11-21T12:00:00Z"), "expired at 2026-11-21T12:00:00Z"),
        (approval("alice", expiresAt="2026-11-21T12:30:00+01:00"), "expired at 2026-11-21T12:30:00+01:00"),
        (approval("alice", ASKED - timedelta(seconds=1)), "was given before it was requested"),
        (approval("alice", rollout={"uid": "u2"}), "was given for another rollout of this name (uid u2;"),
        (approval("alice", rollout={"name": "fraud-2"}), "names ModelRollout fraud-2"),
        (approval("alice", model="digits"), "is about Model digits, and the rollout is of fraud"),
    ],
)
def test_uncounted_approvals_are_listed(bad: Approval, why: str) -> None:
    decision = judged(bad)
    assert isinstance(decision, ApprovalsMissing)
    assert "Not counted: " in decision.message
    assert why in decision.message
    assert not decision.stalled
    good = approval("bob")
    assert judged(bad, good) == Approved((good,))


@pytest.mark.parametrize(
    "unrelated",
    [
        approval("alice", rollout={"name": "fraud-2", "uid": "u2"}),
        approval("alice", namespace="elsewhere"),
        approval("alice", deleted=True),
    ],
)
def test_unrelated_approvals_are_not_listed(unrelated: Approval) -> None:
    decision = judged(unrelated)
    assert isinstance(decision, ApprovalsMissing)
    assert "Not counted" not in decision.message


def test_an_approval_counts_from_its_request_to_its_expiry() -> None:
    assert isinstance(judged(approval("alice", expiresAt="2026-11-21T12:00:01Z")), Approved)
    assert isinstance(judged(approval("alice", ASKED)), Approved)


def test_an_approval_counted_at_one_place_counts_at_no_other() -> None:
    first, second = approval("alice", ASKED, name="a-gate"), approval("alice", ASKED, name="a-step")
    entry = {"name": "a-gate", "approver": "alice", "decision": "Approve", "place": "gate", "at": ASKED.isoformat()}
    record = ModelRollout.parse(
        {
            "metadata": {"name": "fraud-3", "namespace": "risk", "uid": "u3"},
            "spec": ROLLOUT.spec.wire(),
            "status": {"approvals": [entry]},
        }
    )
    arguments: dict[str, Any] = {"content_hash": HASH, "required": 1, "now": NOW, "since": ASKED}
    arguments["authors"] = Authors(("dora",))
    assert isinstance(approvals.evaluate_approvals([first], rollout=record, **arguments), ApprovalsMissing)
    assert approvals.evaluate_approvals([first, second], rollout=record, **arguments) == Approved((second,))


def test_one_rejection_at_any_time_outweighs_all_approvals() -> None:
    rejection = approval("carol", ASKED - timedelta(days=1), decision="Reject", reason="biased")
    decision = judged(approval("alice"), approval("bob"), rejection, required=2)
    assert decision == Rejected(rejection, "carol has rejected it: biased")
    own = approval("dora", decision="Reject")
    assert isinstance(judged(approval("alice"), own), Rejected)


def test_a_rejection_of_other_content_is_listed_without_effect() -> None:
    decision = judged(approval("carol", decision="Reject", contentHash="other"))
    assert isinstance(decision, ApprovalsMissing)
    assert "of carol was given for another content" in decision.message


def test_without_an_author_no_approval_counts() -> None:
    decision = judged(approval("alice"), approval("bob"), author=None)
    assert isinstance(decision, ApprovalsMissing)
    assert (decision.reason, decision.stalled, decision.missing) == ("NoAuthor", True, 1)
    assert "ModelVersion fraud-v2 has no spec.author" in decision.message
    assert isinstance(judged(approval("alice", decision="Reject"), author=None), Rejected)


SA = "system:serviceaccount:risk:ci"
OF_MODEL: dict[str, Any] = {"kind": "Model", "name": "fraud", "content": "m"}


@pytest.mark.parametrize(
    ("what", "found", "how", "reason"),
    [
        ("a ServiceAccount approves", [SA], {}, "AwaitingApproval"),
        ("a ServiceAccount approves, in other case", [SA.upper()], {}, "AwaitingApproval"),
        ("a ServiceAccount where the policy counts them", [SA], {"accounts": True}, None),
        ("a person and a ServiceAccount are one of two", ["bob", SA], {"required": 2}, "AwaitingApproval"),
        ("both count where the policy says so", ["bob", SA], {"required": 2, "accounts": True}, None),
        ("the author is a ServiceAccount", ["alice"], {"author": SA}, "AuthorUnknown"),
        ("that counts where the policy says so", ["alice"], {"author": SA, "accounts": True}, None),
        ("its own word never does", [SA], {"author": SA, "accounts": True}, "AwaitingApproval"),
        ("the training has no signature", ["alice"], {"author": "modelwright:retraining"}, "AuthorUnknown"),
        ("the author in other case", ["Dora"], {}, "AwaitingApproval"),
        ("one person in two cases", ["bob", "BOB"], {"required": 2}, "AwaitingApproval"),
        (
            "who changed the Model",
            ["alice"],
            {"others": (AuthorsStatus(**OF_MODEL, by=("alice",)),)},
            "AwaitingApproval",
        ),
        ("an approver who changed nothing", ["bob"], {"others": (AuthorsStatus(**OF_MODEL, by=("alice",)),)}, None),
        (
            "the Model was changed without a signature",
            ["bob"],
            {"others": (AuthorsStatus(**OF_MODEL, unknown=True),)},
            "AuthorUnknown",
        ),
        (
            "one of two who did is unknown",
            ["bob"],
            {"others": (AuthorsStatus(**OF_MODEL, by=("al",), unknown=True),)},
            "AuthorUnknown",
        ),
        ("an unchanged Model has no author", ["alice"], {"others": (AuthorsStatus(**OF_MODEL),)}, None),
        (
            "no author of the version comes first",
            ["bob"],
            {"author": None, "others": (AuthorsStatus(**OF_MODEL, unknown=True),)},
            "NoAuthor",
        ),
    ],
)
def test_four_eyes_belong_to_two_persons(what: str, found: list[str], how: dict[str, Any], reason: str | None) -> None:
    decision = judged(*(approval(name) for name in found), **how)
    if reason is None:
        assert isinstance(decision, Approved), what
    else:
        assert isinstance(decision, ApprovalsMissing), what
        assert (decision.reason, decision.stalled) == (reason, reason != "AwaitingApproval")


NAMES = st.sampled_from(
    ["alice", "Alice", "bob", "carol", SA, "system:serviceaccount:risk:other", "modelwright:retraining"]
)
ENTRIES = st.lists(
    st.builds(
        AuthorsStatus,
        kind=st.sampled_from(["Model", "ModelVersion", "RolloutPolicy"]),
        name=st.just("x"),
        content=st.just("c"),
        by=st.lists(NAMES, max_size=3, unique=True).map(tuple),
        unknown=st.booleans(),
    ),
    max_size=4,
)


@given(ENTRIES, st.lists(NAMES, max_size=6), st.integers(1, 3), st.booleans())
def test_no_author_no_duplicate_and_nothing_unknown_counts(
    entries: list[AuthorsStatus], approvers: list[str], required: int, accounts: bool
) -> None:
    known = authors.collect_authors(entries, service_accounts=accounts)
    decision = approvals.evaluate_approvals(
        [approval(name) for name in approvers],
        rollout=ROLLOUT,
        content_hash=HASH,
        authors=known,
        required=required,
        now=NOW,
        since=ASKED,
        service_accounts=accounts,
    )
    if not isinstance(decision, Approved):
        return
    assert not any(entry.unknown for entry in entries)
    counted = [a.spec.approver.casefold() for a in decision.counted]
    assert len(set(counted)) == len(counted) >= required
    everybody = {name.casefold() for entry in entries for name in entry.by}
    assert not everybody & set(counted)
    if not accounts:
        assert not any(name.startswith("system:serviceaccount:") for name in {*counted, *everybody})


@given(
    st.lists(st.tuples(st.sampled_from(["alice", "bob", "carol", "dora"]), st.booleans(), st.booleans()), max_size=8),
    st.integers(1, 3),
)
def test_approved_means_enough_approvers_and_never_the_author(
    given_words: list[tuple[str, bool, bool]], required: int
) -> None:
    found = [approval(who, contentHash=HASH if right else "x") for who, right, _ in given_words]
    right = {who for who, right, _ in given_words if right} - {"dora"}
    decision = judged(*found, required=required)
    if isinstance(decision, Approved):
        counted = [a.spec.approver for a in decision.counted]
        assert len(counted) == len(set(counted)) >= required
        assert set(counted) == right
    else:
        assert isinstance(decision, ApprovalsMissing)
        assert decision.missing == required - len(right) > 0


def content(version: dict[str, Any], revision: str = "r1", digest: str = "d", policy: Any = None) -> str:
    parsed = ModelVersion.parse(version)
    return approvals.approval_content_hash(Revision(parsed.name, revision), parsed.spec, digest, policy)


def test_the_hash_covers_exactly_the_approved_content() -> None:
    plain = objects.version("risk", "v2", "fraud")
    base = content(plain)
    edited = objects.version("risk", "v2", "fraud")
    edited["spec"] |= {"card": {"summary": "new"}, "metrics": [{"name": "a", "value": "1", "dataset": "d"}]}
    assert content(edited) == base
    authored = objects.version("risk", "v2", "fraud")
    authored["spec"]["author"] = "dora"
    others = [
        content(authored),
        content(objects.version("risk", "v3", "fraud")),
        content(objects.version("risk", "v2", "fraud", uri="s3://models/other")),
        content(plain, revision="r2"),
        content(plain, digest="e"),
        content(plain, policy={}),
        content(plain, policy={"deadline": "1h"}),
        approvals.approval_content_hash(
            Revision("v2", "r1"), ModelVersion.parse(plain).spec, "d", None, "by another runtime"
        ),
    ]
    assert len({base, *others}) == len(others) + 1
    assert content(plain, policy={"changedBy": "dora", "a": 1}) == content(plain, policy={"a": 1})
    assert content(plain, policy={"a": 1, "b": 2}) == content(plain, policy={"b": 2, "a": 1})
    assert len(base) == 32
