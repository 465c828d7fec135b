"""Strategic merge of pod templates: what the API server would do with the same patch."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.render.strategic_merge import MergeError, strategic_merge

BASE: dict[str, Any] = {
    "metadata": {"labels": {"a": "1"}},
    "spec": {
        "containers": [
            {
                "name": "model",
                "image": "old",
                "args": ["--a", "--b"],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "ports": [{"name": "http", "containerPort": 8080}],
            }
        ],
        "tolerations": [{"key": "a"}],
        "nodeSelector": {"disk": "ssd"},
    },
}

CASES = [
    ("a member of a map is added", {"metadata": {"labels": {"b": "2"}}}, ["metadata", "labels"], {"a": "1", "b": "2"}),
    ("a null takes a member away", {"spec": {"nodeSelector": None}}, ["spec"], None),
    ("a null deep inside takes only that away", {"metadata": {"labels": {"a": None}}}, ["metadata", "labels"], {}),
    (
        "an entry of a keyed list is merged by its key",
        {"spec": {"containers": [{"name": "model", "image": "new"}]}},
        ["spec", "containers", 0, "image"],
        "new",
    ),
    (
        "an entry with an unknown key is appended",
        {"spec": {"containers": [{"name": "sidecar", "image": "s"}]}},
        ["spec", "containers", 1],
        {"name": "sidecar", "image": "s"},
    ),
    (
        "keyed lists inside keyed lists are merged too",
        {"spec": {"containers": [{"name": "model", "env": [{"name": "B", "value": "3"}]}]}},
        ["spec", "containers", 0, "env"],
        [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}],
    ),
    (
        "a directive deletes an entry",
        {"spec": {"containers": [{"name": "model", "env": [{"name": "A", "$patch": "delete"}]}]}},
        ["spec", "containers", 0, "env"],
        [{"name": "B", "value": "2"}],
    ),
    (
        "deleting an entry that isn't there changes nothing",
        {"spec": {"containers": [{"name": "model", "env": [{"name": "Z", "$patch": "delete"}]}]}},
        ["spec", "containers", 0, "env"],
        BASE["spec"]["containers"][0]["env"],
    ),
    (
        "a list without a key is replaced",
        {"spec": {"containers": [{"name": "model", "args": ["--c"]}], "tolerations": [{"key": "b"}]}},
        ["spec", "tolerations"],
        [{"key": "b"}],
    ),
    (
        "a null in a list entry takes its member away",
        {"spec": {"containers": [{"name": "model", "args": None}]}},
        ["spec", "containers", 0],
        {k: v for k, v in BASE["spec"]["containers"][0].items() if k != "args"},
    ),
    (
        "a map takes the place of what is no map",
        {"metadata": {"labels": {"a": {"x": 1}}}},
        ["metadata", "labels"],
        {"a": {"x": 1}},
    ),
    ("nulls in what is new are left out", {"spec": {"affinity": {"x": None, "y": 1}}}, ["spec", "affinity"], {"y": 1}),
]


@pytest.mark.parametrize(("patch", "path", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_merge(patch: Any, path: list[Any], expected: Any) -> None:
    base = copy.deepcopy(BASE)
    merged = strategic_merge(base, patch)
    assert base == BASE
    for key in path:
        merged = merged[key]
    if expected is None:
        assert "nodeSelector" not in merged
    else:
        assert merged == expected


WRONG = [
    ("an entry without its key", {"spec": {"containers": [{"image": "x"}]}}, "p.spec.containers[0]: "),
    ("an entry that is no map", {"spec": {"volumes": ["x"]}}, "p.spec.volumes[0]: "),
    (
        "a directive we don't know",
        {"spec": {"containers": [{"name": "m", "$patch": "replace"}]}},
        "p.spec.containers[0].$patch: ",
    ),
    ("a directive we don't know, of a map", {"spec": {"$patch": "merge"}}, "p.spec.$patch: "),
    ("another directive", {"spec": {"$retainKeys": ["a"]}}, "p.spec.$retainKeys: "),
    (
        "a directive deep in an entry",
        {"spec": {"containers": [{"name": "m", "env": [{"value": "x"}]}]}},
        "p.spec.containers[0].env[0]: ",
    ),
    ("an entry whose key is null", {"spec": {"containers": [{"name": None}]}}, "p.spec.containers[0]: "),
]


@pytest.mark.parametrize(("patch", "begins"), [c[1:] for c in WRONG], ids=[c[0] for c in WRONG])
def test_what_cannot_be_merged_is_named_by_path(patch: Any, begins: str) -> None:
    with pytest.raises(MergeError) as caught:
        strategic_merge(BASE, patch, "p")
    assert str(caught.value).startswith(begins)


NAMES = st.sampled_from(["a", "b", "c"])
LEAVES = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["x", "y"])


def _keyed(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    entry = st.builds(lambda name, rest: {**rest, "name": name}, NAMES, st.dictionaries(NAMES, children, max_size=2))
    return st.lists(entry, max_size=3, unique_by=lambda e: e["name"])


VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.dictionaries(NAMES, inner, max_size=3)
        | st.builds(lambda entries: {"containers": entries}, _keyed(inner))
        | st.lists(st.integers(0, 3), max_size=2)
    ),
    max_leaves=8,
)
MAPS = st.dictionaries(NAMES, VALUES, max_size=3) | st.builds(lambda e: {"containers": e}, _keyed(VALUES))


def _without_nulls(value: Any) -> Any:
    """As an API server would store it."""
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


BASES = MAPS.map(_without_nulls)


@given(base=BASES)
def test_an_empty_patch_changes_nothing(base: Any) -> None:
    assert strategic_merge(base, {}) == base


@given(base=BASES, patch=MAPS)
def test_merging_is_idempotent_and_changes_neither_argument(base: Any, patch: Any) -> None:
    before = copy.deepcopy((base, patch))
    once = strategic_merge(base, patch)
    assert strategic_merge(once, patch) == once
    assert (base, patch) == before


@given(base=BASES, patch=MAPS)
def test_no_null_and_no_directive_is_left(base: Any, patch: Any) -> None:
    assert strategic_merge(base, patch) == _without_nulls(strategic_merge(base, patch))


@given(base=BASES, patch=MAPS)
def test_members_the_patch_does_not_name_stay(base: Any, patch: Any) -> None:
    merged = strategic_merge(base, patch)
    assert {k: v for k, v in base.items() if k not in patch} == {k: v for k, v in merged.items() if k not in patch}
    assert not [k for k, v in patch.items() if v is None and k in merged]


@given(base=BASES)
def test_merging_into_nothing_or_itself_gives_the_patch(base: Any) -> None:
    assert strategic_merge({}, base) == base
    assert strategic_merge(base, base) == base


def test_a_map_is_deleted_or_replaced_by_directive() -> None:
    base = {"spec": {"a": {"x": 1, "y": 2}, "b": 1}}
    assert strategic_merge(base, {"spec": {"a": {"$patch": "delete"}}}, "p") == {"spec": {"b": 1}}
    assert strategic_merge(base, {"spec": {"a": {"$patch": "replace", "z": 3}}}, "p") == {
        "spec": {"a": {"z": 3}, "b": 1}
    }
