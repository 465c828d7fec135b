"""Names from archives and listings must not lead out of the folder."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.agents.fetcher.errors import FetchError, FetchReason
from modelwright.agents.fetcher.paths import check_listing_paths, check_relative_path, resolve_link_target


@pytest.mark.parametrize(
    ("name", "clean"), [("a/b", "a/b"), ("./a//b/", "a/b"), ("a/./b", "a/b"), (".", ""), ("..a/b..", "..a/b..")]
)
def test_harmless_names_are_cleaned(name: str, clean: str) -> None:
    assert check_relative_path(name, "x.zip") == clean


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../x", "a/../../x", "a/..", "C:/x", "a\\..\\x", "a\0b", "x" * 256, "/".join(["y" * 99] * 40)],
)
def test_names_that_could_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(FetchError) as caught:
        check_relative_path(name, "x.zip")
    assert caught.value.reason is FetchReason.UNSAFE_ARCHIVE
    assert "x.zip" in caught.value.message


@given(st.text(max_size=60))
def test_no_name_gets_out(name: str) -> None:
    try:
        clean = check_relative_path(name, "archive")
    except FetchError:
        return
    joined = posixpath.normpath(posixpath.join("/root/tree", clean))
    assert joined == "/root/tree" or joined.startswith("/root/tree/")


@pytest.mark.parametrize(
    ("link", "target", "place"),
    [("a", "b", "b"), ("d/a", "../b", "b"), ("d/e/a", "../../b/c", "b/c"), ("a", "./b", "b")],
)
def test_links_inside_the_folder_are_fine(link: str, target: str, place: str) -> None:
    assert resolve_link_target(link, target, "x") == place


@pytest.mark.parametrize(
    ("link", "target"),
    [("a", "/etc"), ("a", ".."), ("d/a", "../../b"), ("a", "d/../b"), ("a", "d/../../b"), ("a", ""), ("a", "b\\c")],
)
def test_links_that_lead_out_or_might_are_refused(link: str, target: str) -> None:
    with pytest.raises(FetchError, match="link"):
        resolve_link_target(link, target, "x")


@pytest.mark.parametrize(
    "paths", [["a", "a"], ["a", "a/b"], ["a/b/c", "a/b"], ["../a"], ["a//b"], ["/a"]], ids=lambda paths: " ".join(paths)
)
def test_listings_that_can_not_exist_together_are_refused(paths: list[str]) -> None:
    with pytest.raises(FetchError):
        check_listing_paths(paths, "s3://bucket/m")


def test_a_plain_listing_is_fine() -> None:
    check_listing_paths(["a", "b/c", "b/d", "b.c"], "s3://bucket/m")
