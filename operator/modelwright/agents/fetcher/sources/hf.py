"""hf://: a model repository of the Hugging Face Hub, or of a server with its API, at one commit."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator

import httpx
from huggingface_hub import HfApi, RepoFile, hf_hub_url, set_client_factory
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from modelwright.agents.fetcher.errors import (
    FetchError,
    FetchReason,
    error_from_status,
    store_unreachable,
    untrusted_certificate,
)
from modelwright.agents.fetcher.port import ArtifactKind, FetchContext, Listing, RemoteFile
from modelwright.agents.fetcher.sources.objectstore import check_endpoint
from modelwright.agents.fetcher.store_http import StoreHttpClient, create_tls_context, refuse_metadata

_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubSource:
    """A model repository. huggingface_hub lists a commit's files; this client's own connections read them, as from any
    web server.

    The library's own download keeps a second cache beside the files, has no bound on stalls, and can't resume another
    pod's partial files.
    """

    def __init__(self, context: FetchContext) -> None:
        self._context = context
        self._where = context.uri.safe
        self._repository = f"{context.uri.authority}/{context.uri.path}"
        endpoint = check_endpoint("HF_ENDPOINT", context.credentials.get("HF_ENDPOINT")) or "https://huggingface.co"
        self._endpoint = endpoint
        token = context.credentials.get("HF_TOKEN")
        certificates = create_tls_context(context.credentials)
        set_client_factory(
            lambda: httpx.Client(
                follow_redirects=True,
                timeout=context.settings.stall_seconds,
                verify=certificates,
                # Applies to each request, also after redirects.
                event_hooks={"request": [lambda request: refuse_metadata(str(request.url))]},
            )
        )
        # False, not None: a token in a home directory must not be used
        self._api = HfApi(endpoint=endpoint, token=token or False, library_name="modelwright-fetch")
        self._private = {"Authorization": f"Bearer {token}"} if token else {}
        self._web = StoreHttpClient(context.credentials, context.settings)

    async def inspect(self, digest: str) -> Listing:
        revision = digest.removeprefix("git:") if digest.startswith("git:") else self._context.uri.reference
        commit, files = await asyncio.to_thread(self._list_commit, revision)
        ranges = await self._supports_ranges(files, commit)
        listed = tuple(self._build_remote_file(file, commit, ranges=ranges) for file in files)
        if digest.startswith("sha256:"):
            return Listing(ArtifactKind.DIRECTORY, listed)
        return Listing(ArtifactKind.PINNED, listed, pinned=f"git:{commit}")

    def _list_commit(self, revision: str) -> tuple[str, list[RepoFile]]:
        try:
            commit = self._api.model_info(
                self._repository, revision=revision, timeout=self._context.settings.stall_seconds
            ).sha
            if not commit or not _COMMIT.fullmatch(commit):
                raise FetchError(FetchReason.STORE_UNREACHABLE, f"{self._where}: the Hub's answer names no commit.")
            if _COMMIT.fullmatch(revision) and commit != revision:
                raise FetchError(
                    FetchReason.DIGEST_MISMATCH,
                    f"{self._where}: the Hub answered with commit {commit} instead of {revision}.",
                )
            files = []
            for item in self._api.list_repo_tree(self._repository, recursive=True, revision=commit):
                if isinstance(item, RepoFile):
                    files.append(_check_repo_file(item))
                if len(files) > self._context.settings.max_entries:
                    break
            return commit, files
        except RevisionNotFoundError:
            raise FetchError(
                FetchReason.ARTIFACT_NOT_FOUND, f"{self._where}: the model has no revision {revision}."
            ) from None
        except GatedRepoError:
            raise FetchError(
                FetchReason.ACCESS_DENIED,
                f"{self._where}: the model is gated. Accept its terms on the Hub, and give that account's HF_TOKEN.",
            ) from None
        except RepositoryNotFoundError:
            raise FetchError(
                FetchReason.ARTIFACT_NOT_FOUND,
                f"{self._where}: no such model, or it is private and HF_TOKEN may not read it.",
            ) from None
        except HfHubHTTPError as error:
            raise error_from_status(error.response.status_code, self._where) from None
        except httpx.InvalidURL:
            raise FetchError(
                FetchReason.INVALID_URI, f"{self._where}: {self._endpoint} leads to no usable URL."
            ) from None
        except HFValidationError:
            raise FetchError(FetchReason.INVALID_URI, f"{self._where}: the Hub allows no such name.") from None
        except httpx.TimeoutException:
            raise FetchError(
                FetchReason.DOWNLOAD_STALLED,
                f"{self._where}: no answer for {self._context.settings.stall_seconds:g} s",
                retry=True,
            ) from None
        except httpx.HTTPError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise untrusted_certificate(self._where) from None
            raise store_unreachable(
                f"{self._where}: no connection to {self._endpoint} ({type(error).__name__})"
            ) from None
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise store_unreachable(
                f"{self._where}: {self._endpoint} doesn't answer like a Hub ({type(error).__name__})"
            ) from None

    async def _supports_ranges(self, files: list[RepoFile], commit: str) -> bool:
        """Return whether the Hub serves parts of files; tried on one that is large enough to matter."""
        large = next((file for file in files if file.size > self._context.settings.part_bytes), None)
        if large is None:
            return True
        url = hf_hub_url(self._repository, large.path, revision=commit, endpoint=self._endpoint)
        return await self._context.with_stall_timeout(self._web.supports_ranges(url, self._private), self._where)

    def _build_remote_file(self, file: RepoFile, commit: str, *, ranges: bool) -> RemoteFile:
        sha256 = file.lfs.sha256 if file.lfs else ""
        small = file.size <= self._context.settings.part_bytes
        return RemoteFile(
            file.path,
            hf_hub_url(self._repository, file.path, revision=commit, endpoint=self._endpoint),
            file.size,
            version=sha256 or file.blob_id,
            ranges=ranges or small,
            sha256=sha256,
            git_blob="" if sha256 else file.blob_id,
        )

    def read(self, file: RemoteFile, start: int, stop: int | None) -> AsyncGenerator[bytes, None]:
        # a commit's files never change, and their bytes are compared with the listed hash: no ETag needed
        return self._web.read_range(file.key, start, stop, size=file.size, ranges=file.ranges, private=self._private)

    async def close(self) -> None:
        await self._web.close()


def _check_repo_file(file: RepoFile) -> RepoFile:
    """Return the file if its fields have their declared types: the library does not check them. Raises TypeError,
    ValueError."""
    hashes = [file.blob_id, *([file.lfs.sha256] if file.lfs else [])]
    if not all(isinstance(text, str) for text in (file.path, *hashes)) or type(file.size) is not int or file.size < 0:
        raise TypeError("a file without a path, a size or a hash")
    file.path.encode()
    return file
