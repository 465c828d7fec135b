"""The command line: `resolve` reports an artifact's digest, `get` downloads a verified copy, `fingerprint` detects
changes of data."""

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
from modelwright.agents.fetcher.cache import STATE_FOLDER, ArtifactCache, CachedArtifact, copy_into, move_into
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

_TERMINATED = 143  # a shell's exit code for a program ended by SIGTERM


@dataclass(frozen=True)
class FetchOutcome:
    """Content of the termination message of a success."""

    digest: str
    size: int
    fetched: bool
    judgement: SignatureJudgement | None = None
    tree: str = ""
    """Digest of the files that a pod gets, if it was requested."""
    hint: str = ""
    """Advice if the model server does not find its model in these files."""


@dataclass(frozen=True)
class FetchJob:
    """One run of the command: its options, and what every command needs."""

    options: argparse.Namespace
    limits: FetchSettings
    places: ContainerPaths
    credentials: StoreCredentials
    report: FetchReport

    @property
    def part(self) -> Selection:
        """The part of the artifact in the options. Raises FetchError if it is invalid."""
        return selection.parse_selection(self.options.path, self.options.include, self.options.exclude)

    async def with_downloader(
        self,
        address: str,
        work: Callable[[Downloader], Awaitable[T]],
        part: Selection = Selection(),  # noqa: B008 - it is frozen
    ) -> T:
        """Do the work with a downloader of the artifact at `address`."""
        parsed = uri.parse_uri(address)
        secret = self.credentials.get("MODELWRIGHT_CREDENTIALS_SECRET")
        await run_in_thread(_check_secret, self.places.credentials, secret)
        context = FetchContext(parsed, self.credentials, self.limits, self.places.source_root, part)
        self.report.log_event("start", f"Reading {parsed.safe}", uri=parsed.safe)
        source = open_source(context)
        try:
            return await work(Downloader(context, source, self.report))
        finally:
            await source.close()


def run_fetcher(
    arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None, stdout: TextIO | None = None
) -> int:
    """Run the command and return its exit code. Its output and its files contain no secret."""
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
    started = time.monotonic()
    try:
        for secret in (*_list_uri_secrets(options.uri), *credentials.list_secrets()):
            redact.add_secret(secret)
        limits = settings.read_fetch_settings(environment)
        outcome = asyncio.run(_run_command(FetchJob(options, limits, places, credentials, report)))
    except FetchError as error:
        return _report_failure(error.reason, error.message, places, report)
    except asyncio.CancelledError:
        report.log_event("stopped", "Stopped; the downloaded bytes are kept for the next try")
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
        report.log_event("crash", "Unexpected error", trace=trace)
        return _report_failure(
            FetchReason.INTERNAL_ERROR,
            f"{type(error).__name__}: {error}. This is a bug; the container's log has the details.",
            places,
            report,
        )
    seconds = round(time.monotonic() - started, 3)
    if isinstance(outcome, Fingerprint):
        _report_fingerprint(outcome, seconds, places, report)
    else:
        verb = "Resolved" if options.command == "resolve" else "Verified" if outcome.fetched else "Already there:"
        _report_outcome(outcome, verb, seconds, places, report)
    return 0


def _report_fingerprint(fingerprint: Fingerprint, seconds: float, places: ContainerPaths, report: FetchReport) -> None:
    message = {"fingerprint": fingerprint.fingerprint, "objects": fingerprint.objects, "bytes": fingerprint.size}
    write_termination(places.termination_log, json.dumps(message))
    text = f"Fingerprint {fingerprint.fingerprint} of {fingerprint.objects} objects in {seconds:.1f} s"
    report.log_event("done", text, **message)


def _report_outcome(
    outcome: FetchOutcome, verb: str, seconds: float, places: ContainerPaths, report: FetchReport
) -> None:
    message: dict[str, object] = {
        "digest": outcome.digest,
        "sizeBytes": outcome.size,
        "fetched": outcome.fetched,
        "seconds": seconds,
    }
    if outcome.tree:
        message["tree"] = outcome.tree
    if outcome.hint:
        message["hint"] = outcome.hint
    if outcome.judgement is not None:
        judgement = outcome.judgement
        message["signature"] = {name: report.redact(value) for name, value in judgement.to_json().items()}
        report.log_event("signature", f"{judgement.finding}: {judgement.message}", reason=str(judgement.finding))
    write_termination(places.termination_log, json.dumps(message))
    report.log_event("done", f"{verb} {outcome.digest}, {format_size(outcome.size)} in {seconds:.1f} s", **message)


def _report_failure(reason: FetchReason, message: str, places: ContainerPaths, report: FetchReport) -> int:
    # redacted before it is truncated: half a secret is still one
    write_termination(places.termination_log, format_failure(reason, report.redact(message)))
    report.log_event("failed", f"{reason}: {message}", reason=str(reason))
    return 1


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m modelwright.agents.fetcher",
        description="Downloads a model's artifact and verifies its digest.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    resolve = commands.add_parser("resolve", help="report digest and size, store nothing")
    resolve.add_argument("--uri", required=True, help="where the artifact is")
    resolve.add_argument("--digest", help="sha256:... which the artifact must have, where it is known already")
    resolve.add_argument(
        "--trusted-key",
        action="append",
        default=[],
        metavar="NAME=PEM",
        help="also report whether one of these keys has signed the artifact",
    )
    resolve.add_argument(
        "--tree",
        action="store_true",
        help="also report the digest of the files that a pod gets, unpacked, which proves them in a shared cache",
    )
    _add_selection(resolve)
    # Operators up to 0.1 write `look` into their pods.
    fingerprint = commands.add_parser(
        "fingerprint", aliases=["look"], help="report a fingerprint of data, store nothing"
    )
    fingerprint.set_defaults(command="fingerprint")
    fingerprint.add_argument("--uri", required=True, help="where the data is")
    fingerprint.add_argument(
        "--changed",
        type=ChangeDetection,
        choices=list(ChangeDetection),
        default=ChangeDetection.ETAG,
        help="what is compared",
    )
    get = commands.add_parser("get", help="download a verified copy")
    get.add_argument("--uri", required=True, help="where the artifact is")
    get.add_argument("--digest", help="sha256:... or git:..., which the artifact must have; needed for a cache")
    get.add_argument("--dest", type=Path, help="folder that gets the files")
    get.add_argument("--cache", type=Path, help="shared cache; the files are in <cache>/<digest, with - for :>/")
    get.add_argument(
        "--tree", default="", help="sha256:... of the files, as `resolve --tree` reports it: proves the cache"
    )
    _add_selection(get)
    get.add_argument(
        "--only-cached", action="store_true", help="verify the cached copy; contact no store, and write nothing"
    )
    return parser


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--path", default="", help="the folder or file within the artifact that is the model")
    for name, effect in (
        ("--include", "takes only files that match one"),
        ("--exclude", "leaves files out that match"),
    ):
        parser.add_argument(name, action="append", default=[], metavar="PATTERN", help=f"{effect}; may be repeated")


def _list_uri_secrets(text: str) -> list[str]:
    """Return password, user and query of the given uri, in the forms in which libraries quote them."""
    try:
        split = urlsplit(text)
        values = [split.query, split.password or "", *(pair.partition("=")[2] for pair in split.query.split("&"))]
    except ValueError:
        return []
    if split.scheme in ("http", "https"):
        values.append(split.username or "")
    # a short value of a query (v=1) is no secret, and masking it would garble every message
    return [form for value in values for form in {value, unquote(value)} if len(value) >= 8 or value == split.password]


async def _run_command(job: FetchJob) -> FetchOutcome | Fingerprint:
    options = job.options
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(job.limits.parallel, "fetch"))
    task = asyncio.current_task()
    with suppress(NotImplementedError, RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGTERM, lambda: task.cancel() if task else None)
    if options.command == "resolve":
        if options.trusted_key:
            return await _resolve_signature(job)
        if options.tree:
            return await _resolve_tree(job, options.digest or "")
        return await job.with_downloader(options.uri, _resolve_digest, job.part)
    if options.command == "fingerprint":
        return await job.with_downloader(
            options.uri,
            lambda downloader: downloader.take_fingerprint(options.changed),
        )
    if options.only_cached and options.cache is None:
        raise FetchError(FetchReason.INTERNAL_ERROR, "get --only-cached needs --cache.")
    if options.digest is None and options.cache is not None:
        raise FetchError(FetchReason.INTERNAL_ERROR, "get --cache needs --digest.")
    expected = digest.check_digest_form(options.digest) if options.digest is not None else ""
    if options.cache is not None:
        return await _get_cached(job, expected)
    if options.dest is None:
        raise FetchError(FetchReason.INTERNAL_ERROR, "get needs --dest, --cache or both.")
    return await _get_direct(job, expected)


def _check_secret(folder: Path, name: str) -> None:
    """Require that a named Secret exists: without it, the store's address may be missing too. Blocking."""
    if name and not (folder.is_dir() and any(entry.is_file() for entry in folder.iterdir())):
        raise FetchError(
            FetchReason.ACCESS_DENIED,
            f"The Secret {name} (credentialsSecretRef) does not exist in this namespace, or is empty.",
        )


async def _resolve_digest(downloader: Downloader) -> FetchOutcome:
    result = await downloader.resolve()
    return FetchOutcome(result.digest, result.size, fetched=False)


async def _resolve_tree(job: FetchJob, expected: str) -> FetchOutcome:
    """Return digest, size and the digest of the files, which are downloaded for that and discarded."""
    expected = digest.check_digest_form(expected) if expected else ""
    with disk.temporary_folder("The artifact") as folder:

        async def work(downloader: Downloader) -> FetchOutcome:
            result = await _download_artifact(downloader, expected, folder)
            tree = await run_in_thread(folder_digest, folder / "tree")
            return FetchOutcome(result.digest, result.size, fetched=False, tree=tree)

        return await job.with_downloader(job.options.uri, work, job.part)


async def _resolve_signature(job: FetchJob) -> FetchOutcome:
    """Return digest, size and the judgement of the artifact's signature.

    An invalid signature is a finding and not a failure: the same content would have it again.
    """
    options = job.options
    keys = dict(pair.split("=", 1) for pair in options.trusted_key)
    expected = digest.check_digest_form(options.digest) if options.digest else ""
    part = job.part
    content = await job.with_downloader(
        options.uri,
        lambda downloader: downloader.examine_files(expected, signature.SIGNATURE_FILE, signature.MAX_SIGNATURE_BYTES),
        part,
    )
    bundle = content.signature
    if content.single:
        try:
            bundle = await job.with_downloader(
                options.uri if content.within else signature.signature_uri(options.uri),
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
    outcome = FetchOutcome(content.result.digest, content.result.size, fetched=False, judgement=judgement)
    if not options.tree:
        return outcome
    # Exactly the judged content is unpacked: other content has another digest and is rejected.
    unpacked = await _resolve_tree(job, outcome.digest)
    return replace(outcome, tree=unpacked.tree)


async def _get_cached(job: FetchJob, expected: str) -> FetchOutcome:
    options = job.options
    tree = digest.check_digest_form(options.tree) if options.tree else ""
    part = job.part
    name = part.name or uri.parse_uri(options.uri).basename
    cached = CachedArtifact(expected, tree=tree, name=name, part=part.key)
    cache = ArtifactCache(options.cache, cached, job.places.holder, job.limits, job.report)
    size = await run_in_thread(cache.find_size)
    fetched = False
    if size is None and options.only_cached:
        raise FetchError(
            FetchReason.NOT_CACHED,
            f"The shared cache doesn't hold {expected} intact. This pod may not fetch it; the operator has a "
            "pod of the ModelVersion download it again.",
        )
    if size is None:
        await run_in_thread(cache.prepare_folders)
        async with cache.hold_claim() as acquired:
            if acquired:

                async def work(downloader: Downloader) -> FetchOutcome:
                    result = await _download_artifact(downloader, expected, cache.work)
                    await run_in_thread(cache.commit_tree, cache.work / "tree", result.size, result.hashes)
                    return FetchOutcome(result.digest, result.size, fetched=True)

                size = (await job.with_downloader(options.uri, work, part)).size
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
    return FetchOutcome(
        expected, size, fetched, hint=await run_in_thread(_suggest_path, cache.place, options.uri, part)
    )


async def _get_direct(job: FetchJob, expected: str) -> FetchOutcome:
    options = job.options
    dest: Path = options.dest
    staging, part = dest / STATE_FOLDER, job.part
    if not expected:
        # Nothing would prove that leftovers of an earlier try belong to the same content.
        await run_in_thread(remove_path, staging)
    size = await run_in_thread(_find_finished, dest, staging, expected) if expected else None
    if size is not None:
        return FetchOutcome(
            expected, size, fetched=False, hint=await run_in_thread(_suggest_path, dest, options.uri, part)
        )

    async def work(downloader: Downloader) -> FetchOutcome:
        result = await _download_artifact(downloader, expected, staging)
        hint = await run_in_thread(_suggest_path, staging / "tree", options.uri, part)
        await run_in_thread(move_into, staging / "tree", dest)
        await run_in_thread(remove_path, staging)
        return FetchOutcome(result.digest, result.size, fetched=True, hint=hint)

    return await job.with_downloader(options.uri, work, part)


def _suggest_path(folder: Path, address: str, part: Selection) -> str:
    """Suggest a path for a model server that does not find its model in these files. Blocking.

    The model may be in a single folder, as in an archive of a folder, or in an image's `models/`, as in KServe's
    modelcars. '' without a suggestion.
    """
    try:
        with os.scandir(folder) as entries:
            entries_by_name = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    except OSError:
        # Other code reports errors of the files: a hint never fails a fetch.
        return ""
    alone = (
        next(iter(entries_by_name)) if len(entries_by_name) == 1 else "models" if address.startswith("oci://") else ""
    )
    if not entries_by_name.get(alone):
        return ""
    path = f"{part.path}/{alone}" if part.path else alone
    content = "holds nothing but the folder" if len(entries_by_name) == 1 else "has a folder"
    which = f"The artifact {content} {path[:300]!a}"
    return f"{which}: if the model is in it, make a ModelVersion whose artifact.path names it."


async def _download_artifact(downloader: Downloader, expected: str, folder: Path) -> DownloadResult:
    workspace = Workspace(folder)
    try:
        return await downloader.download_verified(expected, workspace)
    except FetchError as error:
        workspace.close()
        # content that is proven wrong must not be resumed; after any other failure the next try resumes
        if error.reason in (FetchReason.DIGEST_MISMATCH, FetchReason.UNSAFE_ARCHIVE, FetchReason.ARTIFACT_TOO_LARGE):
            await run_in_thread(remove_path, folder)
        raise


def _find_finished(dest: Path, staging: Path, expected: str) -> int | None:
    """Return the artifact's size if an earlier run of this container left it complete in `dest`. Blocking.

    It is hashed again, so this works only for content that is stored as published: a file or a folder, not an archive.
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
    single = (
        len(entries) == 1 and not detect_archive_form(entries[0].path) and f"sha256:{entries[0].sha256}" == expected
    )
    if entries and (single or digest.directory_digest(entries) == expected):
        return sum(entry.size for entry in entries)
    return None
