"""The selected part of an artifact: its valid forms, and the files that it matches."""

from __future__ import annotations

import pytest
from huggingface_hub.utils import filter_repo_objects
from hypothesis import example, given
from hypothesis import strategies as st

from modelwright.agents.fetcher.errors import FetchError, FetchReason
from modelwright.agents.fetcher.selection import (
    MAX_PATH,
    MAX_PATTERN,
    MAX_PATTERNS,
    PathCandidates,
    Selection,
    parse_selection,
)

names = st.lists(st.text("ab.*[]-_ü ", min_size=1, max_size=6), min_size=1, max_size=4).map("/".join)
patterns = st.text("ab.*?[]!-/", min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/models", "relative"),
        ("models/", "slash at its end"),
        ("models//digits", "relative"),
        ("./models", "'.'"),
        ("models/../etc", "'..'"),
        ("C:/models", "relative"),
        ("models\\digits", "backslash"),
        ("models\ndigits", "control character"),
        ("models\0", "control character"),
        ("m" * (MAX_PATH + 1), f"1 to {MAX_PATH}"),
        ("m" * 256, "relative"),
    ],
)
def test_a_path_that_is_not_plainly_inside_is_refused(path: str, says: str) -> None:
    with pytest.raises(FetchError, match=r"artifact\.path") as caught:
        parse_selection(path)
    assert caught.value.reason is FetchReason.INVALID_URI
    assert says in caught.value.message


@pytest.mark.parametrize("path", ["models", "models/digits", "my model/1", "größe", "model.joblib", "-x", "a..b"])
def test_other_paths_are_taken_as_they_are(path: str) -> None:
    assert parse_selection(path).path == path


@pytest.mark.parametrize(
    ("given_patterns", "says"),
    [
        ([""], "1 to"),
        (["*" * (MAX_PATTERN + 1)], f"1 to {MAX_PATTERN}"),
        (["*.json"] * (MAX_PATTERNS + 1), f"{MAX_PATTERNS} patterns"),
        (["/config.json"], "relative"),
        (["../*"], "'..'"),
        (["a\\b"], "backslash"),
    ],
)
def test_useless_or_slow_pattern_is_refused(given_patterns: list[str], says: str) -> None:
    for field, values in (("include", {"include": given_patterns}), ("exclude", {"exclude": given_patterns})):
        with pytest.raises(FetchError, match=rf"artifact\.{field}") as caught:
            parse_selection(**values)
        assert says in caught.value.message


@given(
    paths=st.lists(names, max_size=8),
    include=st.lists(patterns, max_size=3),
    exclude=st.lists(patterns, max_size=3),
)
@example(paths=["onnx/model.onnx", "model.safetensors"], include=["onnx/"], exclude=[])
@example(paths=["a", "b", "[!", "]"], include=["[!"], exclude=["[b-a]"])
def test_patterns_match_as_in_huggingface_hub(paths: list[str], include: list[str], exclude: list[str]) -> None:
    theirs = filter_repo_objects(paths, allow_patterns=include or None, ignore_patterns=exclude or None)
    ours = Selection("", tuple(include), tuple(exclude))
    assert [name for name in paths if ours.matches_patterns(name)] == list(theirs)


@pytest.mark.parametrize(
    ("selection", "name", "place"),
    [
        (Selection(), "a/b", "a/b"),
        (Selection("models"), "models/digits/m.bin", "digits/m.bin"),
        (Selection("models"), "models-2/m.bin", None),
        (Selection("models"), "etc/models/m.bin", None),
        (Selection("models/digits"), "models/m.bin", None),
        (Selection("onnx", ("*.json",)), "onnx/config.json", "config.json"),
        (Selection("onnx", ("onnx/*",)), "onnx/config.json", None),
        (Selection("", ("*.json",), ("tokenizer*",)), "tokenizer.json", None),
        (Selection("", (), ("*.bin", "*.h5")), "sub/pytorch_model.bin", None),
    ],
)
def test_selected_files_and_their_places(selection: Selection, name: str, place: str | None) -> None:
    assert selection.place_of(name) == place


def test_many_stars_do_not_make_matching_slow() -> None:
    selection = parse_selection(include=["*a" * 64])
    assert not selection.matches_patterns("a" * 63 + "b" * 2900)
    assert selection.matches_patterns("a" * 3000)


def test_each_part_has_a_key_of_its_own_and_the_whole_has_none() -> None:
    parts = [
        Selection("a"),
        Selection("b"),
        Selection("", ("a",)),
        Selection("", (), ("a",)),
        Selection("", ("a", "b")),
        Selection("", ("a",), ("b",)),
        Selection("a", ("a",)),
    ]
    assert len({part.key for part in parts}) == len(parts)
    assert Selection().key == ""


@pytest.mark.parametrize(
    ("selection", "paths", "says"),
    [
        (Selection("model"), ["my-model/m.bin", "README"], "at its top there are 'my-model', 'README'"),
        (Selection("models/digits"), ["models/iris/m.bin", "etc/passwd"], "in 'models' there are 'iris'"),
        (Selection("", ("*.onnx",)), ["m.bin", "c.json"], "none of 2 files fits"),
        (Selection("a", (), ("*",)), ["a/m.bin", "b"], "none of 1 files fits artifact.include and artifact.exclude"),
        (Selection("model"), [f"f{number:02}" for number in range(30)], "'f07' and more"),
        (Selection("model"), [], "nor anything else"),
    ],
)
def test_empty_selection_lists_the_present_names(selection: Selection, paths: list[str], says: str) -> None:
    error = PathCandidates(selection).add_names(paths).nothing_selected("oci://reg.io/m:1")
    assert error.reason is FetchReason.ARTIFACT_NOT_FOUND
    assert says in error.message
