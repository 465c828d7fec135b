"""The rows of peers that were run: when one says nothing any more, and what a run writes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from devcluster import parts
from scripts import peers
from tests.e2e.peers import PEERS, Peer, chosen

ROOT = Path(__file__).resolve().parents[2]
FILES = {"a.yaml": b"a: 1\n", "b/c.lua": b"return 1\n"}


@pytest.mark.parametrize(
    ("now", "same"),
    [
        (dict(reversed(FILES.items())), True),
        (FILES | {"a.yaml": b"a: 2\n"}, False),
        (FILES | {"a.yaml": b"a: 1"}, False),
        ({"d.yaml": FILES["a.yaml"], "b/c.lua": FILES["b/c.lua"]}, False),
        ({"a.yaml": FILES["b/c.lua"], "b/c.lua": FILES["a.yaml"]}, False),
        ({"a.yaml": FILES["a.yaml"]}, False),
        (FILES | {"d.yaml": b""}, False),
        ({}, False),
    ],
    ids=["order", "content", "line end", "renamed", "contents swapped", "one is gone", "one is new", "none"],
)
def test_the_hash_is_of_paths_and_contents(now: dict[str, bytes], same: bool) -> None:
    assert (peers.digest(now) == peers.digest(FILES)) is same


def row(**more: Any) -> peers.Row:
    return {
        "peer": "argocd",
        "outcome": "passed",
        "date": "2026-11-29T10:00:00Z",
        "files": {"a": "1", "b": "2"},
        **more,
    }


AGAIN = "make test-peers PEER=argocd"


@pytest.mark.parametrize(
    ("rows", "now", "line"),
    [
        ([row()], {"a": "1", "b": "2"}, None),
        ([row()], {"a": "1", "b": "3"}, f"peers to run again: argocd (b changed): {AGAIN}"),
        ([row()], {"a": "3", "b": "3"}, f"peers to run again: argocd (a, b changed): {AGAIN}"),
        ([row()], {"a": "1", "b": ""}, f"peers to run again: argocd (b changed): {AGAIN}"),
        ([row()], {"a": "1", "b": "2", "c": "3"}, f"peers to run again: argocd (c changed): {AGAIN}"),
        ([row()], {"a": "1"}, f"peers to run again: argocd (b changed): {AGAIN}"),
        ([], {"a": "1"}, f"peers to run again: argocd (never run): {AGAIN}"),
        ([row(peer="flux")], {"a": "1"}, f"peers to run again: argocd (never run): {AGAIN}"),
        ([row(outcome="failed")], {"a": "1", "b": "2"}, f"peers to run again: argocd (failed on 2026-11-29): {AGAIN}"),
    ],
    ids=[
        "as it was",
        "one",
        "two",
        "gone",
        "declared since",
        "declared no longer",
        "no rows",
        "another's row",
        "failed",
    ],
)
def test_what_is_to_be_run_again(rows: list[peers.Row], now: dict[str, str], line: str | None) -> None:
    assert peers.stale_peers(rows, {"argocd": now}) == ([] if line is None else [line])


def test_a_new_row_takes_the_place_of_its_peers_and_no_others() -> None:
    rows = [row(), row(peer="flux", outcome="failed")]
    new = row(date="2026-11-30T10:00:00Z")
    assert peers.replaced(rows, new) == [new, rows[1]]
    assert peers.replaced([rows[1]], new) == [new, rows[1]]


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_what_a_peer_depends_on_is_there(peer: Peer) -> None:
    assert [what for what, found in peers.hashes(ROOT, peer).items() if not found] == []
    assert all((ROOT / path).is_file() for path in peer.wire)
    known = {part.name: part for part in parts.GO_TOOLS}
    assert [name for name in peer.parts if not known[name].on_request] == []
    assert re.fullmatch(r"\d+\.\d+\.\d+", peers.version(peer))


def test_every_test_of_a_peer_is_in_the_table() -> None:
    words = ("pytest.mark.peer", "BOTH_GATEWAYS")
    files = {str(p.relative_to(ROOT)): p.read_text() for p in ROOT.glob("tests/**/test_*.py")}
    marked = {name for name, text in files.items() if any(word in text for word in words)}
    assert marked - {str(Path(__file__).relative_to(ROOT))} == {test for peer in PEERS for test in peer.tests}


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_contributing_lists_its_tests(peer: Peer) -> None:
    (line,) = re.findall(rf"^\| `{peer.name}` \|.*", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert all(f"`{path}`" in line for path in (*peer.tests, *peer.wire))


def test_a_peer_that_is_not_known_is_refused_by_name() -> None:
    assert chosen(["flux"]) == [peer for peer in PEERS if peer.name == "flux"]
    assert chosen([]) == list(PEERS)
    with pytest.raises(ValueError, match="no peer is called argo: there are argocd, flux, kube-router, envoy"):
        chosen(["flux", "argo"])


DUMMY = Peer("dummy", ("test_dummy.py",), parts=(), files=("given", "gone.yaml"), wire=())
OTHER = row(peer="other")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of one peer. Its pytest needs no plugins."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    (tmp_path / "docs/figures").mkdir(parents=True)
    (tmp_path / "given").mkdir()
    (tmp_path / "given/a.yaml").write_text("a: 1\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = peer: dummy\n")
    peers.write(tmp_path, [OTHER])
    _test(tmp_path, "assert True")
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    return tmp_path


def _test(project: Path, body: str) -> None:
    text = f"import pytest\n\n@pytest.mark.peer\ndef test_it():\n    {body}\n\ndef test_else():\n    assert False\n"
    (project / DUMMY.tests[0]).write_text(text)


def _stale(project: Path) -> list[str]:
    return peers.stale_peers(peers.read(project), {"dummy": peers.hashes(project, DUMMY)})


def test_a_passed_run_is_written_and_valid_until_a_change(project: Path) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True, check=True).stdout
    assert peers.run(project, [DUMMY])
    made, other = peers.read(project)
    assert other == OTHER
    assert (made["peer"], made["outcome"], made["failed"], made["commit"]) == ("dummy", "passed", [], head.strip())
    assert made["hash"] == peers.combined(made["files"])
    assert made["files"]["gone.yaml"] == ""
    assert set(made["files"]) == {"test_dummy.py", "given", "gone.yaml"}
    assert _stale(project) == []

    (project / "docs/else.md").write_text("nothing of the peer's\n")
    assert _stale(project) == []
    (project / "given/b.yaml").write_text("b: 1\n")
    (project / "gone.yaml").write_text("back: true\n")
    assert _stale(project) == ["peers to run again: dummy (given, gone.yaml changed): make test-peers PEER=dummy"]
    (project / "given/b.yaml").unlink()
    (project / "gone.yaml").unlink()
    assert _stale(project) == []
    (project / "given/a.yaml").rename(project / "given/c.yaml")
    assert _stale(project) == ["peers to run again: dummy (given changed): make test-peers PEER=dummy"]


def test_a_run_that_failed_is_written_as_failed_with_what_failed(project: Path) -> None:
    _test(project, "assert False")
    assert not peers.run(project, [DUMMY])
    made, other = peers.read(project)
    assert other == OTHER
    assert (made["outcome"], made["failed"]) == ("failed", ["test_it"])
    assert made["commit"].endswith("-dirty"), "the test is not the committed one"
    assert _stale(project) == [f"peers to run again: dummy (failed on {made['date'][:10]}): make test-peers PEER=dummy"]


def test_a_file_that_can_not_be_read_by_pytest_is_a_failure(project: Path) -> None:
    (project / DUMMY.tests[0]).write_text("import no_such_module\n")
    assert not peers.run(project, [DUMMY])
    assert [(made["peer"], made["outcome"]) for made in peers.read(project)] == [
        ("dummy", "failed"),
        ("other", "passed"),
    ]


@pytest.mark.parametrize(
    "body", ["pytest.skip('no cluster for it')", "pytest.exit('stopped', 2)"], ids=["skipped", "stopped"]
)
def test_a_run_that_tried_nothing_leaves_the_row_as_it_is(
    project: Path, body: str, capfd: pytest.CaptureFixture[str]
) -> None:
    _test(project, body)
    assert not peers.run(project, [DUMMY])
    assert peers.read(project) == [OTHER]
    assert "dummy was not run" in capfd.readouterr().out
