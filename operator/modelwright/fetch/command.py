"""The command line: `resolve` tells an artifact's digest, `get` brings a verified copy, `look` tells whether data has
changed."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO, TypeVar
from urllib.parse import unquote, urlsplit

from modelwright.fetch import digest, disk, selection, settings, signature, uri
from modelwright.fetch.cache import STATE, Cache, copy_into, place_into
from modelwright.fetch.credentials import Credentials
from modelwright.fetch.digest import Entry
from modelwright.fetch.download import Changed, Downloader, Look, Result
from modelwright.fetch.errors import FetchError, Reason
from modelwright.fetch.port import Context, archive_form
from modelwright.fetch.redact import Redactor
from modelwright.fetch.report import Report, failure_message, size_text, write_termination
from modelwright.fetch.selection import Selection
from modelwright.fetch.settings import Places, Settings
from modelwright.fetch.signature import Judgement
from modelwright.fetch.sources import open_source
from modelwright.fetch.threads import in_thread
from modelwright.fetch.tree import digest_of, hash_file
from modelwright.fetch.workspace import Workspace, make_folder, remove

T = TypeVar("T")

_TERMINATED = 143  # what a shell says of a program ended by SIGTERM


@dataclass(frozen=True)
class Outcome:
    """What the termination message of a success says."""

    digest: str
    size: int
    fetched: bool
    judgement: Judgement | None = None
    tree: str = ""
    """Digest of the files that a pod gets, where it was asked for."""
    hint: str = ""
    """What to try when the model server does not find its model in these files."""


def main(
    arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None, stdout: TextIO | None = None
) -> int:
    """Runs the command; returns its exit code. Nothing that it prints or leaves behind holds a secret."""
    environment = os.environ if environment is None else environment
    options = _parser().parse_args(arguments)
    places = Places.from_environment(environment, socket.gethostname())
    credentials = Credentials(places.credentials, environment)
    stream = stdout or sys.stdout
    redact = Redactor()
    report = Report(
        redact,
        plain=environment.get("MODELWRIGHT_FETCH_LOG", "plain" if stream.isatty() else "json") == "plain",
        stream=stream,
    )
    began = time.monotonic()
    try:
        for secret in (*_uri_secrets(options.uri), *credentials.secrets()):
            redact.add(secret)
        outcome = asyncio.run(_run(options, settings.from_environment(environment), places, credentials, report))
    except FetchError as error:
        return _failed(error.reason, error.message, places, report)
    except asyncio.CancelledError:
        report.event("stopped", "Told to stop; what was downloaded is kept for the next try")
        return _TERMINATED
    except MemoryError:
        return _failed(
            Reason.INTERNAL_ERROR,
            "The fetch ran out of memory. Raise its container's memory limit or lower MODELWRIGHT_FETCH_MEMORY_BYTES.",
            places,
            report,
        )
    except Exception as error:
        trace = "".join(traceback.format_exception(error))
        report.event("crash", "An error that fetch doesn't know", trace=trace)
        return _failed(
            Reason.INTERNAL_ERROR,
            f"{type(error).__name__}: {error}. This is a bug; the container's log has the details.",
            places,
            report,
        )
    seconds = round(time.monotonic() - began, 3)
    if isinstance(outcome, Look):
        told = {"fingerprint": outcome.fingerprint, "objects": outcome.objects, "bytes": outcome.size}
        write_termination(places.termination_log, json.dumps(told))
        report.event("done", f"Saw {outcome.fingerprint}, {outcome.objects} objects in {seconds:.1f} s", **told)
        return 0
    message = {"digest": outcome.digest, "sizeBytes": outcome.size, "fetched": outcome.fetched, "seconds": seconds}
    if outcome.tree:
        message["tree"] = outcome.tree
    if outcome.hint:
        message["hint"] = outcome.hint
    if outcome.judgement is not None:
        judgement = outcome.judgement
        message["signature"] = {name: report.redact(value) for name, value in judgement.wire().items()}
        report.event("signature", f"{judgement.finding}: {judgement.message}", reason=str(judgement.finding))
    write_termination(places.termination_log, json.dumps(message))
    verb = "Resolved" if options.command == "resolve" else "Verified" if outcome.fetched else "Already there:"
    report.event("done", f"{verb} {outcome.digest}, {size_text(outcome.size)} in {seconds:.1f} s", **message)
    return 0


def _failed(reason: Reason, message: str, places: Places, report: Report) -> int:
    # redacted before it is cut: half a secret is still one
    write_termination(places.termination_log, failure_message(reason, report.redact(message)))
    report.event("failed", f"{reason}: {message}", reason=str(reason))
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m modelwright.fetch",
        description="Brings a model's artifact, and proves that it is the right one.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    resolve = commands.add_parser("resolve", help="tell digest and size, store nothing")
    resolve.add_argument("--uri", required=True, help="where the artifact is")
    resolve.add_argument("--digest", help="sha256:... which the artifact must have, where it is known already")
    resolve.add_argument(
        "--trusted-key",
        action="append",
        default=[],
        metavar="NAME=PEM",
        help="tell also whether one of these keys has signed the artifact",
    )
    resolve.add_argument(
        "--tree",
        action="store_true",
        help="tell also the digest of the files that a pod gets, unpacked, which proves them in a shared cache",
    )
    _add_selection(resolve)
    look = commands.add_parser("look", help="tell a fingerprint of data, store nothing")
    look.add_argument("--uri", required=True, help="where the data is")
    look.add_argument("--changed", type=Changed, choices=list(Changed), default=Changed.ETAG, help="what is compared")
    get = commands.add_parser("get", help="bring a verified copy")
    get.add_argument("--uri", required=True, help="where the artifact is")
    get.add_argument("--digest", help="sha256:... or git:..., which the artifact must have; needed for a cache")
    get.add_argument("--dest", type=Path, help="folder that gets the files")
    get.add_argument("--cache", type=Path, help="shared cache; the files are in <cache>/<digest, with - for :>/")
    get.add_argument(
        "--tree", default="", help="sha256:... of the files, as `resolve --tree` tells it: proves the cache"
    )
    _add_selection(get)
    get.add_argument(
        "--only-cached", action="store_true", help="verify what is in the cache; ask no store, and write nothing"
    )
    return parser


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--path", default="", help="the folder or file within the artifact that is the model")
    for name, what in (("--include", "takes only files that match one"), ("--exclude", "leaves files out that match")):
        parser.add_argument(name, action="append", default=[], metavar="PATTERN", help=f"{what}; may be repeated")


def _selection(options: argparse.Namespace) -> Selection:
    return selection.parse(options.path, options.include, options.exclude)


def _uri_secrets(text: str) -> list[str]:
    """Password, user and query of the uri as given, in the forms in which libraries quote them."""
    try:
        split = urlsplit(text)
        found = [split.query, split.password or "", *(pair.partition("=")[2] for pair in split.query.split("&"))]
    except ValueError:
        return []
    if split.scheme in ("http", "https"):
        found.append(split.username or "")
    # a short value of a query (v=1) is no secret, and masking it would garble every message
    return [form for value in found for form in {value, unquote(value)} if len(value) >= 8 or value == split.password]


async def _run(
    options: argparse.Namespace, limits: Settings, places: Places, credentials: Credentials, report: Report
) -> Outcome | Look:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(limits.parallel, "fetch"))
    task = asyncio.current_task()
    with suppress(NotImplementedError, RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGTERM, lambda: task.cancel() if task else None)
    if options.command == "resolve":
        if options.trusted_key:
            return await _verify(options, limits, places, credentials, report)
        if options.tree:
            return await _unpacked(options, options.digest or "", limits, places, credentials, report)
        return await _with_downloader(options.uri, limits, places, credentials, report, _resolve, _selection(options))
    if options.command == "look":
        return await _with_downloader(
            options.uri, limits, places, credentials, report, lambda downloader: downloader.look(options.changed)
        )
    if options.only_cached and options.cache is None:
        raise FetchError(Reason.INTERNAL_ERROR, "get --only-cached needs --cache.")
    if options.digest is None and options.cache is not None:
        raise FetchError(Reason.INTERNAL_ERROR, "get --cache needs --digest.")
    wanted = digest.check_form(options.digest) if options.digest is not None else ""
    if options.cache is not None:
        return await _get_cached(options, wanted, limits, places, credentials, report)
    if options.dest is None:
        raise FetchError(Reason.INTERNAL_ERROR, "get needs --dest, --cache or both.")
    return await _get_direct(options, wanted, limits, places, credentials, report)


async def _with_downloader(
    text: str,
    limits: Settings,
    places: Places,
    credentials: Credentials,
    report: Report,
    work: Callable[[Downloader], Awaitable[T]],
    wanted: Selection = Selection(),  # noqa: B008 - it is frozen
) -> T:
    address = uri.parse(text)
    await in_thread(_check_secret, places.credentials, credentials.get("MODELWRIGHT_CREDENTIALS_SECRET"))
    context = Context(address, credentials, limits, places.source_root, wanted)
    report.event("start", f"Reading {address.safe}", uri=address.safe)
    source = open_source(context)
    try:
        return await work(Downloader(context, source, report))
    finally:
        await source.close()


def _check_secret(folder: Path, name: str) -> None:
    """A Secret that is named must be there: without it, the store's address may be missing too. Blocking."""
    if name and not (folder.is_dir() and any(entry.is_file() for entry in folder.iterdir())):
        raise FetchError(
            Reason.ACCESS_DENIED,
            f"The Secret {name} (credentialsSecretRef) does not exist in this namespace, or is empty.",
        )


async def _resolve(downloader: Downloader) -> Outcome:
    result = await downloader.resolve()
    return Outcome(result.digest, result.size, fetched=False)


async def _unpacked(
    options: argparse.Namespace, wanted: str, limits: Settings, places: Places, credentials: Credentials, report: Report
) -> Outcome:
    """Digest, size and the digest of the files, which are brought for that and thrown away."""
    wanted = digest.check_form(wanted) if wanted else ""
    with disk.temporary("The artifact") as folder:

        async def work(downloader: Downloader) -> Outcome:
            result = await _download(downloader, wanted, folder)
            tree = await in_thread(digest_of, folder / "tree")
            return Outcome(result.digest, result.size, fetched=False, tree=tree)

        return await _with_downloader(options.uri, limits, places, credentials, report, work, _selection(options))


async def _verify(
    options: argparse.Namespace, limits: Settings, places: Places, credentials: Credentials, report: Report
) -> Outcome:
    """Digest, size and what the artifact's signature is worth. A bad one is a finding and no failure: the same content
    would be found to be so again."""
    keys = dict(pair.split("=", 1) for pair in options.trusted_key)
    wanted = digest.check_form(options.digest) if options.digest else ""
    part = _selection(options)
    content = await _with_downloader(
        options.uri,
        limits,
        places,
        credentials,
        report,
        lambda downloader: downloader.examine(wanted, signature.FILE_NAME, signature.MAX_BYTES),
        part,
    )
    bundle = content.signature
    if content.single:
        try:
            bundle = await _with_downloader(
                options.uri if content.within else signature.address(options.uri),
                limits,
                places,
                credentials,
                report,
                lambda downloader: downloader.read(signature.MAX_BYTES),
                Selection(signature.address(part.path)) if content.within else Selection(),
            )
        except FetchError as error:
            if error.reason is not Reason.ARTIFACT_NOT_FOUND:
                raise
    if content.unknown:
        judgement = signature.unfit(f"No signature can be compared with this artifact. {content.unknown}")
    elif bundle is None:
        where = uri.parse(options.uri).safe
        where = f"{where.rstrip('/')}/{part.path}" if content.within else where
        judgement = signature.missing(where, single=content.single)
    else:
        judgement = await in_thread(signature.judge, bundle, content.entries, keys, single=content.single)
    found = Outcome(content.result.digest, content.result.size, fetched=False, judgement=judgement)
    if not options.tree:
        return found
    # What was judged is what is unpacked: another content has another digest, and is refused.
    unpacked = await _unpacked(options, found.digest, limits, places, credentials, report)
    return replace(found, tree=unpacked.tree)


async def _get_cached(
    options: argparse.Namespace, wanted: str, limits: Settings, places: Places, credentials: Credentials, report: Report
) -> Outcome:
    tree = digest.check_form(options.tree) if options.tree else ""
    part = _selection(options)
    name = part.name or uri.parse(options.uri).basename
    cache = Cache(options.cache, wanted, places.holder, limits, report, tree=tree, name=name, part=part.key)
    size = await in_thread(cache.lookup)
    fetched = False
    if size is None and options.only_cached:
        raise FetchError(
            Reason.NOT_CACHED,
            f"The shared cache doesn't hold {wanted}, or not as it has to be. This pod may not fetch it; the operator "
            "has a pod of the ModelVersion bring it again.",
        )
    if size is None:
        await in_thread(cache.prepare)
        async with cache.claimed() as mine:
            if mine:

                async def work(downloader: Downloader) -> Outcome:
                    result = await _download(downloader, wanted, cache.work)
                    await in_thread(cache.commit, cache.work / "tree", result.size, result.hashes)
                    return Outcome(result.digest, result.size, fetched=True)

                size = (await _with_downloader(options.uri, limits, places, credentials, report, work, part)).size
                fetched = True
            else:
                size = await in_thread(cache.lookup)
    if size is None:
        raise FetchError(
            Reason.INTERNAL_ERROR,
            f"{cache.place}: the cached artifact was changed by something else. The pod tries again.",
        )
    if options.dest is not None:
        await in_thread(copy_into, cache.place, options.dest)
    return Outcome(wanted, size, fetched, hint=await in_thread(_hint, cache.place, options.uri, part))


async def _get_direct(
    options: argparse.Namespace, wanted: str, limits: Settings, places: Places, credentials: Credentials, report: Report
) -> Outcome:
    dest: Path = options.dest
    staging, part = dest / STATE, _selection(options)
    if not wanted:
        # Nothing would prove that what an earlier try left is of the same content.
        await in_thread(remove, staging)
    size = await in_thread(_already_there, dest, staging, wanted) if wanted else None
    if size is not None:
        return Outcome(wanted, size, fetched=False, hint=await in_thread(_hint, dest, options.uri, part))

    async def work(downloader: Downloader) -> Outcome:
        result = await _download(downloader, wanted, staging)
        hint = await in_thread(_hint, staging / "tree", options.uri, part)
        await in_thread(place_into, staging / "tree", dest)
        await in_thread(remove, staging)
        return Outcome(result.digest, result.size, fetched=True, hint=hint)

    return await _with_downloader(options.uri, limits, places, credentials, report, work, part)


def _hint(folder: Path, address: str, part: Selection) -> str:
    """What to write when the model server does not find its model in these files: where they lie in one folder, as in
    an archive of a folder, or in an image's `models/`, as in KServe's modelcars. '' when nothing suggests it. Blocking.
    """
    try:
        with os.scandir(folder) as entries:
            found = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    except OSError:
        # What is wrong with the files is for others to say: a hint never fails a fetch.
        return ""
    alone = next(iter(found)) if len(found) == 1 else "models" if address.startswith("oci://") else ""
    if not found.get(alone):
        return ""
    path = f"{part.path}/{alone}" if part.path else alone
    what = "holds nothing but the folder" if len(found) == 1 else "has a folder"
    which = f"The artifact {what} {path[:300]!a}"
    return f"{which}: if the model is in it, make a ModelVersion whose artifact.path names it."


async def _download(downloader: Downloader, wanted: str, folder: Path) -> Result:
    workspace = Workspace(folder)
    try:
        return await downloader.get(wanted, workspace)
    except FetchError as error:
        workspace.close()
        # what is proven wrong is no beginning to go on from; after any other failure the next try goes on
        if error.reason in (Reason.DIGEST_MISMATCH, Reason.UNSAFE_ARCHIVE, Reason.ARTIFACT_TOO_LARGE):
            await in_thread(remove, folder)
        raise


def _already_there(dest: Path, staging: Path, wanted: str) -> int | None:
    """The artifact's size when an earlier run of this container left it whole in `dest`. Blocking.

    Found out by hashing it again, so only for what is stored as it is published: a file or a folder, not an archive.
    """
    with disk.writing(dest, "The artifact"):
        make_folder(dest)
        if staging.exists():
            return None
        entries = []
        for folder, _, names in os.walk(dest):
            for name in names:
                place = Path(folder, name)
                if place.is_symlink() or not place.is_file():
                    return None
                entries.append(Entry(place.relative_to(dest).as_posix(), place.stat().st_size, hash_file(place)))
    single = len(entries) == 1 and not archive_form(entries[0].path) and f"sha256:{entries[0].sha256}" == wanted
    if entries and (single or digest.of_directory(entries) == wanted):
        return sum(entry.size for entry in entries)
    return None
