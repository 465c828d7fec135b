"""Checks the subjects of commits that have not landed yet: imperative, at most 72 characters. Part of `make verify`.

`--base REF` or COMMITS_BASE names the landed base; by default it is the first of origin/HEAD, origin/main and
origin/master that exists. Without one, the commits since the one that added this file are checked. A shallow checkout
hides the rest of the history, so only its visible commits are checked.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_LENGTH = 72
REMOTE_BASES = ("origin/HEAD", "origin/main", "origin/master")
_OWN_PATH = "scripts/commits.py"
_GENERATED = re.compile(r"Merge (branch|pull request|remote-tracking branch|tag|commit)\b|Revert \"|Reapply \"")
"""Subjects that Git or a forge writes itself, in the imperative and of any length."""
_SCOPE = re.compile(r"[a-z0-9][a-z0-9./_-]*(\([a-z0-9./_-]+\))?!?: ")
_BASE_FORM = re.compile(r"(st|sw|sp)?r?ing|bring|sing|bed|embed|exceed|feed|need|proceed|seed|shed|speed|succeed")
"""Verbs whose base form ends in -ing or -ed."""
_NOT_A_VERB = re.compile(
    r"an?|all|another|any|both|each|every|he|i|it|its|no|now|one|our|some|that|the|their|there|these|they|this|those|two|"
    r"we|what|when|you"
)


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit by its short hash and subject."""

    hash: str
    subject: str


def subject_problem(subject: str) -> str | None:
    """Explain why a subject breaks the rule; None when it keeps it."""
    if _GENERATED.match(subject):
        return None
    if len(subject) > MAX_LENGTH:
        return f"has {len(subject)} characters; at most {MAX_LENGTH} are allowed: move the reason into the body"
    text = _SCOPE.sub("", subject, count=1)
    word = text.partition(" ")[0]
    if not word or not word[0].isupper():
        return "does not start with a capital letter"
    if text.endswith("."):
        return "ends with a full stop"
    if not _is_imperative(word.lower()):
        return f"does not start with a verb in the imperative: {word}"
    return None


def _is_imperative(word: str) -> bool:
    """Tell base forms from other words by their endings; nouns that end like a verb pass."""
    if _NOT_A_VERB.fullmatch(word) or not re.fullmatch(r"[a-z]+(-[a-z]+)*", word):
        return False
    if _BASE_FORM.fullmatch(word):
        return True
    third_person = word.endswith("s") and not word.endswith(("ss", "us"))
    return not third_person and not word.endswith(("ing", "ed"))


def list_commits(root: Path, base: str | None = None) -> list[Commit]:
    """List the commits to check, newest first; none outside a Git checkout.

    `base`: a ref whose commits have landed. Raises ValueError when it names no commit.
    """
    if _git(root, "rev-parse", "--verify", "--quiet", "HEAD") is None:
        return []
    if base is not None and _git(root, "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}") is None:
        raise ValueError(f"the base {base} names no commit")
    landed = base or _remote_base(root)
    if landed is not None:
        return _log(root, f"{landed}..HEAD")
    added = (_git(root, "log", "--format=%H", "--diff-filter=A", "HEAD", "--", _OWN_PATH) or "").split()
    if not added:
        return []
    # Only descendants: a branch that forked off before the rule existed keeps its subjects.
    return [*_log(root, "--ancestry-path", f"{added[-1]}..HEAD"), *_log(root, "-1", added[-1])]


def _remote_base(root: Path) -> str | None:
    return next((ref for ref in REMOTE_BASES if _git(root, "rev-parse", "--verify", "--quiet", ref)), None)


def _log(root: Path, *arguments: str) -> list[Commit]:
    lines = (_git(root, "log", "--format=%h%x09%s", *arguments) or "").splitlines()
    return [Commit(*line.split("\t", 1)) for line in lines]


def _git(root: Path, *arguments: str) -> str | None:
    """Return the standard output of a Git command; None when it fails or Git is missing."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Print each subject that breaks the rule; exit status 1 when there is one, 2 for a base that does not exist."""
    parser = argparse.ArgumentParser(prog="python scripts/commits.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base", default=os.environ.get("COMMITS_BASE") or None, help="ref whose commits have landed")
    try:
        commits = list_commits(root, parser.parse_args(arguments).base)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    problems = [(commit, problem) for commit in commits if (problem := subject_problem(commit.subject))]
    for commit, problem in problems:
        print(f"{commit.hash} {commit.subject!r} {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
