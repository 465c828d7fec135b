"""Names and label values stay within the limits of Kubernetes, and cutting never makes two of them equal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.api import names

LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


@st.composite
def object_names(draw: st.DrawFn, limit: int = names.OBJECT_NAME_MAX) -> str:
    """Names of objects up to `limit` characters, mostly near the lengths where they are cut."""
    length = draw(
        st.sampled_from([1, 2, 40, 41, 50, 52, 53, 62, 63, 64, 65, 100, 252, 253]).filter(lambda n: n <= limit)
    )
    text = draw(st.text("ab0-.", min_size=length, max_size=length))
    text = re.sub(r"[-.]*\.[-.]*", ".", text).strip("-.")
    return text or "a"


@given(object_names())
def test_label_values_are_valid(name: str) -> None:
    value = names.label_value(name)
    assert len(value) <= 63
    assert LABEL_VALUE.fullmatch(value)
    if len(name) <= 63:
        assert value == name


@given(object_names(), object_names())
def test_cut_label_values_stay_different(one: str, other: str) -> None:
    assert (names.label_value(one) == names.label_value(other)) == (one == other)


@given(object_names().filter(lambda name: len(name) > 63))
def test_a_cut_label_value_equals_no_name(name: str) -> None:
    # Somebody may name a version exactly like the cut value of another.
    cut = names.label_value(name)
    assert not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", cut)


@given(st.text("abcdefghijklmnop", min_size=1, max_size=50), st.text("ab0", min_size=10, max_size=10))
def test_names_of_children_fit_a_service(model: str, revision: str) -> None:
    name = names.revision_name(model, revision)
    assert len(name) <= 61
    assert DNS_1035.fullmatch(name)
    assert names.stamped_version_name(model, {"uri": revision}).startswith(f"{model}-")
    assert len(names.stamped_version_name(model, {"uri": revision})) <= 61


@given(object_names(), st.uuids())
def test_names_of_resolve_pods_are_dns_labels(version: str, uid: object) -> None:
    name = names.resolve_pod_name(version, str(uid))
    assert len(name) <= 57
    assert DNS_LABEL.fullmatch(name)


@given(object_names(), object_names())
def test_resolve_pods_of_two_versions_differ(one: str, other: str) -> None:
    assert (names.resolve_pod_name(one, "u") == names.resolve_pod_name(other, "u")) == (one == other)
    assert names.resolve_pod_name(one, "u") != names.resolve_pod_name(one, "w")


@given(object_names(), object_names(), st.integers(min_value=20, max_value=63))
def test_names_cut_with_a_hash_differ_as_their_identities_do(prefix: str, identity: str, limit: int) -> None:
    name = names.cut_with_hash(prefix, limit, identity)
    assert len(name) <= limit
    assert DNS_LABEL.fullmatch(name)
    assert name != names.cut_with_hash(prefix, limit, identity, "x")


def test_identities_of_several_parts_are_not_confused() -> None:
    assert names.cut_with_hash("p", 20, "a", "b") != names.cut_with_hash("p", 20, "ab")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), JSON, min_size=1, max_size=5), st.randoms())
def test_content_hash_does_not_depend_on_the_order_of_keys(value: dict[str, object], random: object) -> None:
    items = list(value.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert names.content_hash(dict(items)) == names.content_hash(value)
    assert re.fullmatch(r"[a-z2-7]{10}", names.content_hash(value))


def test_content_hash_stays_the_same_between_releases() -> None:
    # A changed hash would restart every model at the next release.
    assert names.content_hash({"uri": "s3://models/digits/1", "parameters": {"C": "10"}}) == "4eddsnuooe"


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), float("inf"), object()])
def test_content_hash_refuses_non_json_values(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        names.content_hash(value)


def test_labels_of_children() -> None:
    labels = names.child_labels(role=names.ROLE_SERVING, model="digits", version="v" * 253, revision="abc")
    assert labels["modelwright.dev/revision"] == "abc"
    assert all(len(value) <= 63 for value in labels.values())
    assert labels.items() >= {"app.kubernetes.io/managed-by": "modelwright"}.items()
