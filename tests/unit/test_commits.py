"""Commit subjects: the rule, and which commits it applies to."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts import commits


@pytest.mark.parametrize(
    "subject",
    [
        "Read runtimes in one place",
        "Embed the dashboards",
        "Focus the doctor on one Model",
        "Release 1.2.3",
        "cli: Split the model card from its lineage",
        "Re-read the policy after a restart",
        "Add " + "a" * 68,
        'Revert "' + "a" * 80 + '"',
        "Merge branch 'a-name-that-is-long-enough-to-go-beyond-seventy-two-characters' into main",
    ],
)
def test_an_imperative_subject_passes(subject: str) -> None:
    assert commits.subject_problem(subject) is None


@pytest.mark.parametrize(
    ("subject", "problem"),
    [
        ("Add " + "a" * 69, "has 73 characters"),
        ("Added the dashboards", "imperative: Added"),
        ("Adding the dashboards", "imperative: Adding"),
        ("Statuses lost with a backup", "imperative: Statuses"),
        ("The dashboards are embedded", "imperative: The"),
        ("add the dashboards", "capital letter"),
        ("fixup! Add the dashboards", "capital letter"),
        ("Add the dashboards.", "full stop"),
        ("", "capital letter"),
    ],
)
def test_another_subject_is_refused_with_the_reason(subject: str, problem: str) -> None:
    assert problem in (commits.subject_problem(subject) or "")


def _git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def _commit(folder: Path, subject: str, *files: str) -> None:
    for name in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(subject)
        _git(folder, "add", name)
    _git(folder, "commit", "--allow-empty", "--allow-empty-message", "-m", subject)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits, the rule's own, and one after it."""
    folder = tmp_path / "repository"
    folder.mkdir()
    _git(folder, "init", "--initial-branch", "main")
    _commit(folder, "Statuses were lost", "a")
    _commit(folder, "Dashboards", "b")
    _commit(folder, "Check commit subjects", "scripts/commits.py")
    _commit(folder, "Added a thing", "c")
    return folder


def _subjects(folder: Path, base: str | None = None) -> list[str]:
    return [commit.subject for commit in commits.list_commits(folder, base)]


def test_without_a_base_commits_since_the_rule_are_checked(repository: Path) -> None:
    assert _subjects(repository) == ["Added a thing", "Check commit subjects"]


def test_a_branch_from_before_the_rule_is_not_checked(repository: Path) -> None:
    _git(repository, "checkout", "-b", "old", "main~3")
    _commit(repository, "Older things", "d")
    _git(repository, "checkout", "main")
    _git(repository, "merge", "old")
    assert _subjects(repository) == ["Merge branch 'old'", "Added a thing", "Check commit subjects"]


def test_a_named_base_leaves_out_what_has_landed(repository: Path) -> None:
    assert _subjects(repository, "HEAD~1") == ["Added a thing"]
    assert _subjects(repository, "HEAD") == []


def test_the_remote_base_is_the_default(repository: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    _git(tmp_path, "clone", str(repository), str(clone))
    assert _subjects(clone) == []
    _commit(clone, "Add a thing", "d")
    assert _subjects(clone) == ["Add a thing"]


def test_a_single_commit_checkout_is_checked_as_far_as_it_is_seen(repository: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    _git(tmp_path, "clone", "--depth", "1", f"file://{repository}", str(clone))
    _git(clone, "remote", "remove", "origin")
    assert _subjects(clone) == ["Added a thing"]


def test_a_folder_without_git_has_nothing_to_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert _subjects(tmp_path) == []
    assert commits.main([], tmp_path) == 0


def test_the_exit_status_tells_refused_subjects_from_a_missing_base(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commits.main([], repository) == 1
    assert "'Added a thing' does not start with a verb in the imperative" in capsys.readouterr().err
    assert commits.main(["--base", "HEAD"], repository) == 0
    assert commits.main(["--base", "gone"], repository) == 2
