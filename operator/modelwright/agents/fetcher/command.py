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

from modelwright.agents.fetcher import digest, disk, selection, settings, signature, uri
from modelwright.agents.fetcher.cache import STATE_FOLDER, ArtifactCache, copy_into, move_into
from modelwright.agents.fetcher.digest import FileEntry
from modelwright.agents.fetcher.download import ChangeDetection, Downloader, DownloadResult, Fingerprint
from modelwright.agents.fetcher.errors import FetchError, FetchReason
from modelwright.agents.fetcher.file_tree import folder_digest, hash_file
from modelwright.agents.fetcher.port import FetchContext, detect_archive_form
from modelwright.agents.fetcher.redact import Redactor
from modelwright.agents.fetcher.report import FetchReport, format_failure, format_size, write_termination
from modelwright.agents.fetcher.selection import Selection
from modelwright.agents.fetcher.settings import ContainerPaths, FetchSettings
from modelwright.agents.fetcher.signature import SignatureJudgement
from modelwright.agents.fetcher.sources import open_source
from modelwright.agents.fetcher.store_credentials import StoreCredentials
from modelwright.agents.fetcher.threads import run_in_thread
from modelwright.agents.fetcher.workspace import Workspace, make_folder, remove_path

T = TypeVar("T")

_TERMINATED = 143  # what a shell says of a program ended by SIGTERM


@dataclass(frozen=True)
class FetchOutcome:
    """What the termination message of a success says."""

    digest: str
    size: int
    fetched: bool
    judgement: SignatureJudgement | None = None
    tree: str = ""
    """Digest of the files that a pod gets, where it was asked for."""
    hint: str = ""
    """What to try when the model server does not find its model in these files."""


def run_fetcher(
    arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None, stdout: TextIO | None = None
) -> int:
    """Runs the command; returns its exit code. Nothing that it prints or leaves behind holds a secret."""
    environment = os.environ if environment is None else environment
    options = _build_parser().parse_args(arguments)
    places = ContainerPaths.from_environment(environment, socket.gethostname())
    credentials = StoreCredentials(places.credentials, environment)
    stream = stdout or sys.stdout
    redact = Redactor()
    report = FetchReport(
        redact,
        plain=environment.get("MODELWRIGHT_FETCH_LOG", "plain" if stream.isatty() else "json") == "plain",
        stream=stream,
    )
    began = time.monotonic()
    try:
        for secret in (*_list_uri_secrets(options.uri), *credentials.list_secrets()):
            redact.add_secret(secret)
        outcome = asyncio.run(
            _run_command(options, settings.read_fetch_settings(environment), places, credentials, report)
        )
    except FetchError as error:
        return _report_failure(error.reason, error.message, places, report)
    except asyncio.CancelledError:
        report.log_event("stopped", "Told to stop; what was downloaded is kept for the next try")
        return _TERMINATED
    except MemoryError:
        return _report_failure(
            FetchReason.INTERNAL_ERROR,
            "The fetch ran out of memory. Raise its container's memory limit or lower MODELWRIGHT_FETCH_MEMORY_BYTES.",
            places,
            report,
        )
    except Exception as error:
        trace = "".join(traceback.format_exception(error))
        report.log_event("crash", "An error that fetch doesn't know", trace=trace)
        return _report_failure(
            FetchReason.INTERNAL_ERROR,
            f"{type(error).__name__}: {error}. This is a bug; the container's log has the details.",
            places,
            report,
        )
    seconds = round(time.monotonic() - began, 3)
    if isinstance(outcome, Fingerprint):
        told = {"fingerprint": outcome.fingerprint, "objects": outcome.objects, "bytes": outcome.size}
        write_termination(places.termination_log, json.dumps(told))
        report.log_event("done", f"Saw {outcome.fingerprint}, {outcome.objects} objects in {seconds:.1f} s", **told)
        return 0
    message = {"digest": outcome.digest, "sizeBytes": outcome.size, "fetched": outcome.fetched, "seconds": seconds}
    if outcome.tree:
        message["tree"] = outcome.tree
    if outcome.hint:
        message["hint"] = outcome.hint
    if outcome.judgement is not None:
        judgement = outcome.judgement
        message["signature"] = {name: report.redact(value) for name, value in judgement.to_json().items()}
        report.log_event("signature", f"{judgement.finding}: {judgement.message}", reason=str(judgement.finding))
    write_termination(places.termination_log, json.dumps(message))
    verb = "Resolved" if options.command == "resolve" else "Verified" if outcome.fetched else "Already there:"
    report.log_event("done", f"{verb} {outcome.digest}, {format_size(outcome.size)} in {seconds:.1f} s", **message)
    return 0


def _report_failure(reason: FetchReason, message: str, places: ContainerPaths, report: FetchReport) -> int:
    # redacted before it is cut: half a secret is still one
    write_termination(places.termination_log, format_failure(reason, report.redact(message)))
    report.log_event("failed", f"{reason}: {message}", reason=str(reason))
    return 1


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m modelwright.agents.fetcher",
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
    look.add_argument(
        "--changed",
        type=ChangeDetection,
        choices=list(ChangeDetection),
        default=ChangeDetection.ETAG,
        help="what is compared",
    )
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


def _parse_selection(options: argparse.Namespace) -> Selection:
    return selection.parse_selection(options.path, options.include, options.exclude)


def _list_uri_secrets(text: str) -> list[str]:
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


async def _run_command(
    options: argparse.Namespace,
    limits: FetchSettings,
    places: ContainerPaths,
    credentials: StoreCredentials,
    report: FetchReport,
) -> FetchOutcome | Fingerprint:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(limits.parallel, "fetch"))
    task = asyncio.current_task()
    with suppress(NotImplementedError, RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGTERM, lambda: task.cancel() if task else None)
    if options.command == "resolve":
        if options.trusted_key:
            return await _resolve_signature(options, limits, places, credentials, report)
        if options.tree:
            return await _resolve_tree(options, options.digest or "", limits, places, credentials, report)
        return await _with_downloader(
            options.uri, limits, places, credentials, report, _resolve_digest, _parse_selection(options)
        )
    if options.command == "look":
        return await _with_downloader(
            options.uri,
            limits,
            places,
            credentials,
            report,
            lambda downloader: downloader.take_fingerprint(options.changed),
        )
    if options.only_cached and options.cache is None:
        raise FetchError(FetchReason.INTERNAL_ERROR, "get --only-cached needs --cache.")
    if options.digest is None and options.cache is not None:
        raise FetchError(FetchReason.INTERNAL_ERROR, "get --cache needs --digest.")
    wanted = digest.check_digest_form(options.digest) if options.digest is not None else ""
    if options.cache is not None:
        return await _get_cached(options, wanted, limits, places, credentials, report)
    if options.dest is None:
        raise FetchError(FetchReason.INTERNAL_ERROR, "get needs --dest, --cache or both.")
    return await _get_direct(options, wanted, limits, places, credentials, report)


async def _with_downloader(
    text: str,
    limits: FetchSettings,
    places: ContainerPaths,
    credentials: StoreCredentials,
    report: FetchReport,
    work: Callable[[Downloader], Awaitable[T]],
    wanted: Selection = Selection(),  # noqa: B008 - it is frozen
) -> T:
    address = uri.parse_uri(text)
    await run_in_thread(_check_secret, places.credentials, credentials.get("MODELWRIGHT_CREDENTIALS_SECRET"))
    context = FetchContext(address, credentials, limits, places.source_root, wanted)
    report.log_event("start", f"Reading {address.safe}", uri=address.safe)
    source = open_source(context)
    try:
        return await work(Downloader(context, source, report))
    finally:
        await source.close()


def _check_secret(folder: Path, name: str) -> None:
    """A Secret that is named must be there: without it, the store's address may be missing too. Blocking."""
    if name and not (folder.is_dir() and any(entry.is_file() for entry in folder.iterdir())):
        raise FetchError(
            FetchReason.ACCESS_DENIED,
            f"The Secret {name} (credentialsSecretRef) does not exist in this namespace, or is empty.",
        )


async def _resolve_digest(downloader: Downloader) -> FetchOutcome:
    result = await downloader.resolve()
    return FetchOutcome(result.digest, result.size, fetched=False)


async def _resolve_tree(
    options: argparse.Namespace,
    wanted: str,
    limits: FetchSettings,
    places: ContainerPaths,
    credentials: StoreCredentials,
    report: FetchReport,
) -> FetchOutcome:
    """Digest, size and the digest of the files, which are brought for that and thrown away."""
    wanted = digest.check_digest_form(wanted) if wanted else ""
    with disk.temporary_folder("The artifact") as folder:

        async def work(downloader: Downloader) -> FetchOutcome:
            result = await _download_artifact(downloader, wanted, folder)
            tree = await run_in_thread(folder_digest, folder / "tree")
            return FetchOutcome(result.digest, result.size, fetched=False, tree=tree)

        return await _with_downloader(options.uri, limits, places, credentials, report, work, _parse_selection(options))


async def _resolve_signature(
    options: argparse.Namespace,
    limits: FetchSettings,
    places: ContainerPaths,
    credentials: StoreCredentials,
    report: FetchReport,
) -> FetchOutcome:
    """Digest, size and what the artifact's signature is worth. A bad one is a finding and no failure: the same content
    would be found to be so again."""
    keys = dict(pair.split("=", 1) for pair in options.trusted_key)
    wanted = digest.check_digest_form(options.digest) if options.digest else ""
    part = _parse_selection(options)
    content = await _with_downloader(
        options.uri,
        limits,
        places,
        credentials,
        report,
        lambda downloader: downloader.examine_files(wanted, signature.SIGNATURE_FILE, signature.MAX_SIGNATURE_BYTES),
        part,
    )
    bundle = content.signature
    if content.single:
        try:
            bundle = await _with_downloader(
                options.uri if content.within else signature.signature_uri(options.uri),
                limits,
                places,
                credentials,
                report,
                lambda downloader: downloader.read_single_file(signature.MAX_SIGNATURE_BYTES),
                Selection(signature.signature_uri(part.path)) if content.within else Selection(),
            )
        except FetchError as error:
            if error.reason is not FetchReason.ARTIFACT_NOT_FOUND:
                raise
    if content.unknown:
        judgement = signature.invalid_signature(f"No signature can be compared with this artifact. {content.unknown}")
    elif bundle is None:
        where = uri.parse_uri(options.uri).safe
        where = f"{where.rstrip('/')}/{part.path}" if content.within else where
        judgement = signature.missing_signature(where, single=content.single)
    else:
        judgement = await run_in_thread(signature.judge_signature, bundle, content.entries, keys, single=content.single)
    found = FetchOutcome(content.result.digest, content.result.size, fetched=False, judgement=judgement)
    if not options.tree:
        return found
    # What was judged is what is unpacked: another content has another digest, and is refused.
    unpacked = await _resolve_tree(options, found.digest, limits, places, credentials, report)
    return replace(found, tree=unpacked.tree)


async def _get_cached(
    options: argparse.Namespace,
    wanted: str,
    limits: FetchSettings,
    places: ContainerPaths,
    credentials: StoreCredentials,
    report: FetchReport,
) -> FetchOutcome:
    tree = digest.check_digest_form(options.tree) if options.tree else ""
    part = _parse_selection(options)
    name = part.name or uri.parse_uri(options.uri).basename
    cache = ArtifactCache(options.cache, wanted, places.holder, limits, report, tree=tree, name=name, part=part.key)
    size = await run_in_thread(cache.find_size)
    fetched = False
    if size is None and options.only_cached:
        raise FetchError(
            FetchReason.NOT_CACHED,
            f"The shared cache doesn't hold {wanted}, or not as it has to be. This pod may not fetch it; the operator "
            "has a pod of the ModelVersion bring it again.",
        )
    if size is None:
        await run_in_thread(cache.prepare_folders)
        async with cache.hold_claim() as mine:
            if mine:

                async def work(downloader: Downloader) -> FetchOutcome:
                    result = await _download_artifact(downloader, wanted, cache.work)
                    await run_in_thread(cache.commit_tree, cache.work / "tree", result.size, result.hashes)
                    return FetchOutcome(result.digest, result.size, fetched=True)

                size = (await _with_downloader(options.uri, limits, places, credentials, report, work, part)).size
                fetched = True
            else:
                size = await run_in_thread(cache.find_size)
    if size is None:
        raise FetchError(
            FetchReason.INTERNAL_ERROR,
            f"{cache.place}: the cached artifact was changed by something else. The pod tries again.",
        )
    if options.dest is not None:
        await run_in_thread(copy_into, cache.place, options.dest)
    return FetchOutcome(wanted, size, fetched, hint=await run_in_thread(_suggest_path, cache.place, options.uri, part))


async def _get_direct(
    options: argparse.Namespace,
    wanted: str,
    limits: FetchSettings,
    places: ContainerPaths,
    credentials: StoreCredentials,
    report: FetchReport,
) -> FetchOutcome:
    dest: Path = options.dest
    staging, part = dest / STATE_FOLDER, _parse_selection(options)
    if not wanted:
        # Nothing would prove that what an earlier try left is of the same content.
        await run_in_thread(remove_path, staging)
    size = await run_in_thread(_find_finished, dest, staging, wanted) if wanted else None
    if size is not None:
        return FetchOutcome(
            wanted, size, fetched=False, hint=await run_in_thread(_suggest_path, dest, options.uri, part)
        )

    async def work(downloader: Downloader) -> FetchOutcome:
        result = await _download_artifact(downloader, wanted, staging)
        hint = await run_in_thread(_suggest_path, staging / "tree", options.uri, part)
        await run_in_thread(move_into, staging / "tree", dest)
        await run_in_thread(remove_path, staging)
        return FetchOutcome(result.digest, result.size, fetched=True, hint=hint)

    return await _with_downloader(options.uri, limits, places, credentials, report, work, part)


def _suggest_path(folder: Path, address: str, part: Selection) -> str:
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


async def _download_artifact(downloader: Downloader, wanted: str, folder: Path) -> DownloadResult:
    workspace = Workspace(folder)
    try:
        return await downloader.download_verified(wanted, workspace)
    except FetchError as error:
        workspace.close()
        # what is proven wrong is no beginning to go on from; after any other failure the next try goes on
        if error.reason in (FetchReason.DIGEST_MISMATCH, FetchReason.UNSAFE_ARCHIVE, FetchReason.ARTIFACT_TOO_LARGE):
            await run_in_thread(remove_path, folder)
        raise


def _find_finished(dest: Path, staging: Path, wanted: str) -> int | None:
    """The artifact's size when an earlier run of this container left it whole in `dest`. Blocking.

    Found out by hashing it again, so only for what is stored as it is published: a file or a folder, not an archive.
    """
    with disk.translate_errors(dest, "The artifact"):
        make_folder(dest)
        if staging.exists():
            return None
        entries = []
        for folder, _, names in os.walk(dest):
            for name in names:
                place = Path(folder, name)
                if place.is_symlink() or not place.is_file():
                    return None
                entries.append(FileEntry(place.relative_to(dest).as_posix(), place.stat().st_size, hash_file(place)))
    single = len(entries) == 1 and not detect_archive_form(entries[0].path) and f"sha256:{entries[0].sha256}" == wanted
    if entries and (single or digest.directory_digest(entries) == wanted):
        return sum(entry.size for entry in entries)
    return None
