"""`python -m tests.scale.bench_fetch`: fetch beside dedicated clients of the same store, in the same run.

One large file and many small ones, from versitygw on this machine to its disk. Every client is a process of its own,
timed from its start to its end; rounds alternate; the median counts. Fetch also hashes, verifies and renames; the S3
clients only copy. curl is no S3 client: it gets a signed URL of the one file, and shows what the server and the disk
can do at most; `curl, then sha256sum` does as much as fetch does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore

from devcluster import paths
from devcluster.processes import interrupt_on_sigterm
from tests.fetch.harness import Container, folder_digest, sha256
from tests.fetch.stores import S3

FIGURES = Path(__file__).parents[2] / "docs" / "figures" / "fetch.json"
RCLONE = "1.75.1"
BOUND = 0.8
OURS = "modelwright fetch"
S3_CLIENTS = ("obstore", "rclone")

# what a careful user of the library would write: one stream to one file, sixteen objects at a time
_RAW = """
import asyncio, os, sys
import obstore
from obstore.store import S3Store
endpoint, prefix, dest, parallel = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
store = S3Store("models", endpoint=endpoint, region="us-east-1", client_options={"allow_http": True, "timeout": "1h"})

async def one(path, limit):
    async with limit:
        target = os.path.join(dest, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        result = await obstore.get_async(store, path)
        with open(target, "wb") as out:
            async for data in result.stream():
                out.write(data)

async def main():
    limit = asyncio.Semaphore(parallel)
    names = []
    async for page in obstore.list(store, prefix, chunk_size=1000):
        names += [meta["path"] for meta in page]
    await asyncio.gather(*(one(name, limit) for name in names))

asyncio.run(main())
"""


@dataclass(frozen=True)
class Load:
    """What is fetched: `count` files of `size` bytes below one prefix."""

    name: str
    prefix: str
    count: int
    size: int

    @property
    def megabytes(self) -> float:
        return self.count * self.size / 1e6


@dataclass
class Client:
    """`command(dest)` is what is run; it must leave all files below `dest`."""

    name: str
    command: Callable[[Path], Sequence[str]]
    environment: dict[str, str]


def fill(s3: S3, load: Load) -> dict[str, bytes]:
    """Random content; returns it by path below the prefix."""
    files = {f"{number // 100:03d}/{number:05d}.bin": os.urandom(load.size) for number in range(load.count)}

    async def upload() -> None:
        store = s3._client()
        limit = asyncio.Semaphore(16)

        async def one(path: str, body: bytes) -> None:
            async with limit:
                await obstore.put_async(store, f"{load.prefix}/{path}", body)

        await asyncio.gather(*(one(path, body) for path, body in files.items()))

    asyncio.run(upload())
    return files


def clients(s3: S3, load: Load, container: Container, digest: str) -> list[Client]:
    secret = s3.secret(s3.url)
    one = next(iter(sorted((s3.folder / "data" / "models" / load.prefix).rglob("*.bin")))).relative_to(
        s3.folder / "data" / "models"
    )
    ours = {
        **os.environ,
        "PYTHONPATH": "operator",
        "MODELWRIGHT_CREDENTIALS": str(container.credentials),
        "MODELWRIGHT_TERMINATION_LOG": str(container.termination),
    }
    uri = f"s3://models/{load.prefix if load.count > 1 else one}"
    found = [
        Client(
            OURS,
            lambda dest: [
                sys.executable,
                "-m",
                "modelwright.agents.fetcher",
                "get",
                "--uri",
                uri,
                "--digest",
                digest,
                "--dest",
                str(dest),
            ],
            ours,
        ),
        Client(
            "obstore",
            lambda dest: [sys.executable, "-c", _RAW, s3.url, load.prefix, str(dest), "16"],
            {**os.environ, **secret},
        ),
    ]
    if load.count == 1:
        signed = obstore.sign(s3._client(), "GET", str(one), timedelta(hours=1))
        transfer = 'curl -sSf --noproxy "*" -o "$1/0" "$2"'
        for name, script in (("curl", transfer), ("curl, then sha256sum", f'{transfer} && sha256sum "$1/0"')):
            found.append(
                Client(
                    name, lambda dest, script=script: ["sh", "-c", script, "sh", str(dest), signed], dict(os.environ)
                )
            )
    rclone = build_rclone()
    if rclone is not None:
        remote = f":s3,provider=Other,env_auth=true,region=us-east-1,endpoint='{s3.url}':models/{load.prefix}"
        # as its documentation advises for many small files and for fast stores
        tuned = ["--transfers", "16", "--checkers", "16", "--fast-list", "--config", os.devnull]
        found.append(
            Client("rclone", lambda dest: [str(rclone), "copy", remote, str(dest), *tuned], {**os.environ, **secret})
        )
    return found


def build_rclone() -> Path | None:
    """rclone from its Go module, once per version; None, said aloud, where it can't be built."""
    program = paths.cache() / "bin" / f"rclone-{RCLONE}" / "rclone"
    if program.exists():
        return program
    if not shutil.which("go"):
        print("  without Go there is no rclone to compare with")
        return None
    print(f"  building rclone {RCLONE}, which takes minutes", flush=True)
    done = subprocess.run(
        ["go", "install", "-trimpath", "-ldflags", "-s -w", f"github.com/rclone/rclone@v{RCLONE}"],
        env={**os.environ, "GOBIN": str(program.parent), "CGO_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"  rclone could not be built: {done.stderr[-500:]}")
    return program if program.exists() else None


def timed(client: Client, dest: Path, load: Load) -> float:
    """Seconds; the copy is checked for completeness outside the time."""
    shutil.rmtree(dest, ignore_errors=True)
    dest.mkdir(parents=True)
    began = time.monotonic()
    done = subprocess.run(client.command(dest), env=client.environment, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"{client.name} failed ({done.returncode}): {done.stdout[-1000:]}{done.stderr[-1000:]}")
    copied = [path.stat().st_size for path in dest.rglob("*") if path.is_file()]
    if (len(copied), sum(copied)) != (load.count, load.count * load.size):
        raise SystemExit(f"{client.name} left {len(copied)} files with {sum(copied)} bytes")
    return seconds


def measure(s3: S3, load: Load, rounds: int, folder: Path) -> list[dict[str, object]]:
    files = fill(s3, load)
    digest = folder_digest(files) if load.count > 1 else sha256(next(iter(files.values())))
    del files
    container = Container(folder)
    container.give(s3.secret(s3.url))
    competitors = clients(s3, load, container, digest)
    seconds: dict[str, list[float]] = {client.name: [] for client in competitors}
    for turn in range(rounds):
        # each goes first as often as any other
        for client in competitors[turn % len(competitors) :] + competitors[: turn % len(competitors)]:
            os.sync()
            seconds[client.name].append(timed(client, folder / "dest", load))
            print(f"  {load.name}, round {turn + 1}: {client.name} {seconds[client.name][-1]:.2f} s", flush=True)
    shutil.rmtree(folder / "dest")
    unit, amount = ("MB/s", load.megabytes) if load.count == 1 else ("files/s", float(load.count))
    speed = {name: amount / statistics.median(times) for name, times in seconds.items()}
    rows: list[dict[str, object]] = [
        {"name": f"{load.name}: {name}", "value": round(value, 1), "unit": unit, "bound": None, "holds": None}
        for name, value in speed.items()
    ]
    best = max((name for name in speed if name in S3_CLIENTS), key=lambda name: speed[name])
    for other in (best, *(name for name in speed if name not in (*S3_CLIENTS, OURS))):
        ratio = speed[OURS] / speed[other]
        bound = BOUND if other == best else None
        what = f"the best S3 client ({best})" if other == best else other
        rows.append(
            {
                "name": f"{load.name}: {OURS} to {what}",
                "value": round(ratio, 2),
                "unit": "ratio",
                "bound": bound,
                "holds": None if bound is None else ratio >= bound,
            }
        )
    return rows


def host() -> dict[str, object]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cores": os.cpu_count(), "memoryGiB": round(memory, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=400, help="size of the large file")
    parser.add_argument("--files", type=int, default=10_000, help="number of small files, of 10 kB each")
    options = parser.parse_args()
    interrupt_on_sigterm()
    s3 = S3()
    try:
        s3.start()
        work = s3.folder / "work"
        work.mkdir()
        rows = []
        for load in (
            Load(f"one file of {options.megabytes} MB", "large", 1, options.megabytes * 1_000_000),
            Load(f"{options.files} files of 10 kB", "small", options.files, 10_000),
        ):
            rows += measure(s3, load, options.rounds, work)
    finally:
        s3.stop()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    result = {
        "command": "make bench-fetch",
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": commit.stdout.strip(),
        "host": host(),
        "figures": rows,
    }
    width = max(len(str(row["name"])) for row in rows)
    for row in rows:
        verdict = "" if row["holds"] is None else f"  at least {row['bound']}: {'yes' if row['holds'] else 'NO'}"
        print(f"{row['name']:<{width}}  {row['value']:>8} {row['unit']}{verdict}")
    if (options.rounds, options.megabytes, options.files) == (5, 400, 10_000):
        FIGURES.parent.mkdir(parents=True, exist_ok=True)
        FIGURES.write_text(json.dumps(result, indent=2) + "\n")
        print(f"written to {FIGURES}")


if __name__ == "__main__":
    main()
