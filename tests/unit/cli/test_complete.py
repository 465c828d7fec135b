"""What the shell offers for the last, unfinished word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from modelwright.cli.complete import FILES, NO_FILES, complete_words

CASES = [
    ("nothing yet", [""], {"status", "why", "rollback"}, NO_FILES),
    ("the beginning of a command", ["ro"], {"rollback"}, NO_FILES),
    ("a Model", ["why", ""], {"default/models-a", "default/models-b"}, NO_FILES),
    ("a Model of another namespace", ["-n", "vision", "why", ""], {"vision/models-a", "vision/models-b"}, NO_FILES),
    ("a Model of another namespace, in one word", ["why", "--namespace=vision", ""], {"vision/models-a"}, NO_FILES),
    ("a version to go back to", ["rollback", "digits", "--to", ""], {"default/modelversions-a"}, NO_FILES),
    ("both versions of a difference", ["diff", "a", ""], {"default/modelversions-b"}, NO_FILES),
    ("an option", ["status", "--w"], {"--watch", "--wait"}, NO_FILES),
    ("words of one's own", ["pause", "digits", "--reason", ""], set(), NO_FILES),
    ("manifests", ["lint", ""], set(), FILES),
    ("a Model, behind an option without a value", ["status", "--watch", ""], {"default/models-a"}, NO_FILES),
    ("where to import from", ["import", ""], {"argo-rollouts", "flagger", "kserve", "seldon"}, NO_FILES),
    ("what to import", ["import", "kserve", ""], set(), FILES),
    ("an option's own value", ["import", "kserve", "--gateway", ""], set(), NO_FILES),
    ("a picture's file", ["plot", "digits", "-o", ""], set(), FILES),
    ("a version to move to", ["set-version", "digits", ""], {"default/modelversions-a"}, NO_FILES),
    ("a run to cancel", ["run", "cancel", ""], {"default/trainingruns-a"}, NO_FILES),
    ("what to do with a run", ["run", ""], {"cancel"}, NO_FILES),
    ("a kind of draft", ["new", ""], {"model", "version", "policy", "retraining"}, NO_FILES),
    ("a draft's Model", ["new", "version", "--model", ""], {"default/models-a"}, NO_FILES),
    ("a request", ["predict", "digits", "-f", ""], set(), FILES),
    ("a reason", ["explain", "WaitingForP"], {"WaitingForPods", "WaitingForPolicy"}, NO_FILES),
    ("nothing behind a Model", ["status", "digits", ""], set(), NO_FILES),
    ("nothing for a verb without arguments", ["list", ""], set(), NO_FILES),
    ("a kind of answer", ["why", "digits", "-o", "j"], {"json"}, NO_FILES),
]


def names(flags: Sequence[str], kind: str) -> Iterable[str]:
    place = next((flag.partition("=")[2] for flag in flags if flag.startswith("--namespace")), "default")
    return [f"{place}/{kind}-{letter}" for letter in "ba"]


@pytest.mark.parametrize(("words", "offered", "directive"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_is_offered_after(words: list[str], offered: set[str], directive: int) -> None:
    found, parsed_directive = complete_words(words, names)
    assert parsed_directive == directive
    assert offered <= set(found)
    assert found == sorted(found)
    assert bool(found) == bool(offered)
