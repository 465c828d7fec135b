"""Digests as the contract states them."""

from __future__ import annotations

import hashlib
import random

import pytest

from modelwright.agents.fetcher.digest import FileEntry, cache_folder_name, check_digest_form, directory_digest
from modelwright.agents.fetcher.errors import FetchError


def test_a_folders_digest_is_the_sha256_of_its_sorted_lines() -> None:
    a, b = hashlib.sha256(b"a").hexdigest(), hashlib.sha256(b"bb").hexdigest()
    lines = f"a.txt\0001\0{a}\nsub/b.txt\0002\0{b}\n".encode()
    entries = [FileEntry("sub/b.txt", 2, b), FileEntry("a.txt", 1, a)]
    assert directory_digest(entries) == "sha256:" + hashlib.sha256(lines).hexdigest()


def test_the_order_of_files_does_not_matter_but_all_else_does() -> None:
    entries = [FileEntry(f"{number}/ü", number, f"{number:064x}") for number in range(20)]
    shuffled = random.Random(1).sample(entries, len(entries))
    assert directory_digest(entries) == directory_digest(shuffled)
    for changed in (FileEntry("x", 0, "0" * 64), FileEntry("0/ü", 1, "0" * 64), FileEntry("0/ü", 0, "1" * 64)):
        assert directory_digest([changed, *entries[1:]]) != directory_digest(entries)


def test_names_of_cache_folders() -> None:
    assert cache_folder_name("sha256:" + "a" * 64) == "sha256-" + "a" * 64
    assert cache_folder_name("git:" + "b" * 40) == "git-" + "b" * 40


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "md5:" + "a" * 32, "../x"])
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(FetchError, match="--digest"):
        check_digest_form(text)
