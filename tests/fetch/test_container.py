"""The container as a whole: shared cache under many pods, full disks, bounded memory, archives, restarts."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fetch.harness import Container, folder_digest, random_bytes, sha256, tree
from tests.fetch.stores import S3
from tests.lib.fetch_processes import started
from tests.servers.http_faults import FaultProxy, FaultServer, Page

pytestmark = pytest.mark.fetch


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


def _zip(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return out.getvalue()


def test_twenty_pods_fill_a_shared_cache_with_one_download(tmp_path: Path) -> None:
    s3 = started(S3)
    files = {f"part-{number}": random_bytes(1_500_000, number) for number in range(8)}
    s3.put("shared", files)
    size = sum(map(len, files.values()))
    pods = []
    with FaultProxy(s3.address) as proxy:
        for number in range(20):
            (tmp_path / f"pod-{number}").mkdir()
            pod = Container(tmp_path / f"pod-{number}", {"MODELWRIGHT_POD_UID": f"pod-{number}"})
            pod.cache = tmp_path / "cache"
            pod.give(s3.secret(proxy.url))
            pods.append(pod)
        expected = folder_digest(files)
        arguments = ("get", "--uri", "s3://models/shared", "--digest", expected, "--cache", tmp_path / "cache")
        running = [pod.process(*arguments) for pod in pods]
        outcomes = [pod.finish(process) for pod, process in zip(pods, running, strict=True)]
        assert [outcome.code for outcome in outcomes] == [0] * 20, [outcome.text for outcome in outcomes]
        assert sum(outcome.message["fetched"] for outcome in outcomes) == 1
        assert proxy.seen < size * 1.1
    assert tree(pods[0].cached(expected)) == files


def test_a_pod_killed_while_it_fills_the_cache_is_passed_over(tmp_path: Path) -> None:
    s3 = started(S3)
    s3.put("passed", {"m.bin": random_bytes(6_000_000)})
    expected = folder_digest({"m.bin": random_bytes(6_000_000)})
    pods = []
    for number in range(3):
        (tmp_path / f"pod-{number}").mkdir()
        pod = Container(tmp_path / f"pod-{number}", {"MODELWRIGHT_POD_UID": f"pod-{number}"})
        pod.environment["MODELWRIGHT_FETCH_CLAIM_SECONDS"] = "2"
        pods.append(pod)
    arguments = ("get", "--uri", "s3://models/passed", "--digest", expected, "--cache", tmp_path / "cache")
    with FaultProxy(s3.address) as proxy:
        for pod in pods:
            pod.give(s3.secret(proxy.url))
        proxy.bytes_per_second = 1_000_000
        first = pods[0].process(*arguments)
        while proxy.seen < 1_000_000 and first.poll() is None:
            time.sleep(0.01)
        others = [pod.process(*arguments) for pod in pods[1:]]
        first.kill()
        first.communicate()
        proxy.behave()
        outcomes = [pod.finish(process) for pod, process in zip(pods[1:], others, strict=True)]
        assert [outcome.code for outcome in outcomes] == [0, 0], [outcome.text for outcome in outcomes]
        assert sum(outcome.message["fetched"] for outcome in outcomes) == 1


def test_stopped_container_releases_its_claim(server: FaultServer, container: Container) -> None:
    server.pages["/m.bin"] = Page(random_bytes(3_000_000), stall_after=300_000)
    arguments = ("get", "--uri", f"{server.url}/m.bin", "--digest", sha256(random_bytes(3_000_000)))
    process = container.process(
        *arguments,
        "--cache",
        container.cache,
        MODELWRIGHT_FETCH_STALL_SECONDS="60",
        MODELWRIGHT_FETCH_PART_BYTES="2000000",
    )
    claims = container.cache / ".modelwright" / "claims"
    deadline = time.monotonic() + 20
    while not (claims.is_dir() and list(claims.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(claims.iterdir())
    process.send_signal(signal.SIGTERM)
    outcome = container.finish(process)
    assert outcome.code == 143, outcome.text
    assert list(claims.iterdir()) == []


def test_memory_stays_bounded_however_large_the_artifact(container: Container) -> None:
    s3 = started(S3)
    size = 400 << 20
    with (s3.folder / "data" / "models" / "large.bin").open("wb") as file:
        file.truncate(size)
    container.give(s3.secret(s3.url))
    # Not ru_maxrss: that is never below what the process was forked from, and pytest has everything imported.
    script = (
        "import pathlib, sys; from modelwright.agents.fetcher.__main__ import _keep_memory, run_fetcher; "
        "_keep_memory();"
        "code = run_fetcher(sys.argv[1:]); status = pathlib.Path('/proc/self/status').read_text();"
        "print(int(status.split('VmHWM:')[1].split()[0]) // 1024, file=sys.stderr); sys.exit(code)"
    )
    for command in (("resolve",), ("get", "--digest", sha256(bytes(size)), "--dest", str(container.dest))):
        done = subprocess.run(
            [sys.executable, "-c", script, *command, "--uri", "s3://models/large.bin"],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": "operator",
                "MODELWRIGHT_CREDENTIALS": str(container.credentials),
                "MODELWRIGHT_TERMINATION_LOG": str(container.termination),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert int(done.stderr.split()[-1]) < 280, "MiB"
    (s3.folder / "data" / "models" / "large.bin").unlink()


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("unshare"), reason="mounts a small disk, as root")
@pytest.mark.parametrize("announced", [True, False])
def test_full_disk_is_reported_before_or_while_it_fills(
    server: FaultServer, container: Container, announced: bool
) -> None:
    body = random_bytes(6_000_000)
    server.pages["/m.bin"] = Page(body, ranges=announced, length=announced)
    container.dest.mkdir()
    command = [sys.executable, "-m", "modelwright.agents.fetcher", "get", "--uri", f"{server.url}/m.bin"]
    command += ["--digest", sha256(body), "--dest", str(container.dest)]
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            f'mount -t tmpfs -o size=4m none {container.dest} && exec "$@"',
            "sh",
            *command,
        ],
        env={**os.environ, "PYTHONPATH": "operator", "MODELWRIGHT_TERMINATION_LOG": str(container.termination)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    outcome = container._outcome(1, done.stdout)
    assert outcome.reason == "DiskFull", outcome.text
    assert ("needs 6.0 MB more" if announced else "no space left") in outcome.message["message"]


def test_a_folder_that_can_not_be_written_is_named(server: FaultServer, container: Container) -> None:
    server.pages["/m.bin"] = Page(b"x")
    outcome = container.run("get", "--uri", f"{server.url}/m.bin", "--digest", sha256(b"x"), "--dest", "/proc/models")
    assert outcome.reason == "InternalError"
    assert "/proc/models" in outcome.message["message"]


def test_archive_is_verified_and_unpacked_and_removed(server: FaultServer, container: Container) -> None:
    files = {"saved_model.pb": random_bytes(400_000), "variables/v": b"v"}
    body = _zip(files)
    server.pages["/m.zip"] = Page(body)
    assert container.get(f"{server.url}/m.zip", sha256(body)).code == 0
    assert tree(container.dest) == files
    cached = container.get_cached(f"{server.url}/m.zip", sha256(body))
    assert cached.code == 0
    assert tree(container.cached(sha256(body))) == files
    assert cached.message["sizeBytes"] == len(body)


@pytest.mark.parametrize(
    ("files", "limits", "reason"),
    [
        ({"../evil": b"x"}, {}, "UnsafeArchive"),
        ({"bomb": bytes(3_000_000)}, {"MODELWRIGHT_FETCH_MAX_UNPACKED_BYTES": "1000000"}, "ArtifactTooLarge"),
        ({f"{number}": b"" for number in range(30)}, {"MODELWRIGHT_FETCH_MAX_ENTRIES": "20"}, "ArtifactTooLarge"),
    ],
    ids=["climbs out", "bomb", "too many entries"],
)
def test_a_hostile_archive_leaves_nothing(
    server: FaultServer, container: Container, files: dict[str, bytes], limits: dict[str, str], reason: str
) -> None:
    body = _zip(files)
    server.pages["/m.zip"] = Page(body)
    before = {path.name for path in container.folder.iterdir()}
    outcome = container.get(f"{server.url}/m.zip", sha256(body), **limits)
    assert outcome.reason == reason, outcome.text
    assert tree(container.dest) == {}
    assert {path.name for path in container.folder.iterdir()} - before == {"models", "termination-log"}
    container.get_cached(f"{server.url}/m.zip", sha256(body), **limits)
    assert not container.cached(sha256(body)).exists()


def test_container_with_finished_work_contacts_no_store(server: FaultServer, container: Container) -> None:
    server.pages["/m.bin"] = Page(b"weights")
    assert container.get(f"{server.url}/m.bin", sha256(b"weights")).message["fetched"] is True
    server.pages.clear()
    again = container.get(f"{server.url}/m.bin", sha256(b"weights"))
    assert (again.code, again.message["fetched"]) == (0, False)
    (container.dest / "m.bin").write_bytes(b"changed")
    assert container.get(f"{server.url}/m.bin", sha256(b"weights")).code == 1, "changed work is not believed"


def test_a_cached_artifact_can_be_copied_out(server: FaultServer, container: Container) -> None:
    server.pages["/m.bin"] = Page(b"weights")
    arguments = ("get", "--uri", f"{server.url}/m.bin", "--digest", sha256(b"weights"), "--cache", container.cache)
    assert container.run(*arguments, "--dest", container.dest).code == 0
    assert tree(container.dest) == {"m.bin": b"weights"}


def test_files_of_the_same_name_are_replaced_and_others_stay(server: FaultServer, container: Container) -> None:
    server.pages["/m.bin"] = Page(b"new")
    container.dest.mkdir()
    (container.dest / "m.bin").write_bytes(b"old")
    (container.dest / "lost+found").mkdir()
    assert container.get(f"{server.url}/m.bin", sha256(b"new")).code == 0
    assert tree(container.dest) == {"m.bin": b"new"}
    assert (container.dest / "lost+found").is_dir()


def test_progress_is_logged_regularly_and_not_too_often(container: Container) -> None:
    s3 = started(S3)
    s3.put("slow", {"m.bin": random_bytes(4_000_000)})
    with FaultProxy(s3.address) as proxy:
        proxy.bytes_per_second = 800_000
        container.give(s3.secret(proxy.url))
        outcome = container.resolve(
            "s3://models/slow", MODELWRIGHT_FETCH_PROGRESS_SECONDS="0.5", MODELWRIGHT_FETCH_PARALLEL="1"
        )
    assert outcome.code == 0
    lines = outcome.events("progress")
    assert 1 <= len(lines) <= outcome.message["seconds"] / 0.5 + 1
    assert [line["bytes"] for line in lines] == sorted(line["bytes"] for line in lines)
    assert all(line["totalBytes"] == 4_000_000 for line in lines)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("get", "--uri", "s3://b/k", "--digest", "sha256:" + "0" * 64), "--dest"),
        (("get", "--uri", "s3://b/k", "--digest", "latest", "--dest", "/tmp/x"), "--digest"),
        (("get", "--uri", "http://h/m", "--digest", "git:" + "0" * 40, "--dest", "/tmp/x"), "git:"),
        (("resolve", "--uri", "ftp://h/m"), "s3://"),
    ],
)
def test_wrong_arguments_end_with_a_reason_for_the_status(
    container: Container, server: FaultServer, arguments: tuple[str, ...], says: str
) -> None:
    server.pages["/m"] = Page(b"x")
    given = [argument.replace("http://h", server.url) for argument in arguments]
    outcome = container.run(*given)
    assert outcome.code == 1
    assert says in outcome.message["message"]


def test_the_termination_message_has_the_agreed_form(server: FaultServer, container: Container) -> None:
    server.pages["/m.bin"] = Page(b"weights")
    outcome = container.resolve(f"{server.url}/m.bin")
    assert set(outcome.message) == {"digest", "sizeBytes", "fetched", "seconds"}
    server.pages.clear()
    outcome = container.resolve(f"{server.url}/{'x' * 3900}")
    assert set(outcome.message) == {"reason", "message"}
    assert len(outcome.termination.encode()) <= 4096
