"""Artifact URIs: the parts of each scheme's address, and a form without secrets. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from modelwright.agents.fetcher.errors import FetchError, FetchReason

SCHEMES = ("s3", "gs", "az", "http", "https", "hf", "oci", "pvc")

_SCHEME_FORMS = {
    "s3": "s3://<bucket>/<key or prefix>",
    "gs": "gs://<bucket>/<object or prefix>",
    "az": "az://<account>/<container>/<blob or prefix>",
    "http": "http://<host>/<path of one file>",
    "https": "https://<host>/<path of one file>",
    "hf": "hf://<organisation>/<name>[@<revision>]",
    "oci": "oci://<registry>/<repository>[:<tag>|@sha256:<digest>]",
    "pvc": "pvc://<claim>[/<path>]",
}

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x20\x7f]")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,221}")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER = re.compile(r"\$?[a-z0-9][a-z0-9-]{0,62}")
_CLAIM = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_HUB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
_HUB_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,254}")
_REGISTRY = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9][A-Za-z0-9.-]*)(:[0-9]{1,5})?")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_OCI_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class ArtifactURI:
    """The parts of an artifact's address.

    `authority` is the bucket, Azure account, claim, registry or HTTP host (with its port); for hf it is the
    organisation. `container` is set for az only. `path` has no leading slash; `prefix`: it can only be a folder (it
    ended in a slash). `reference` is a tag, a digest or a revision. `raw` may contain secrets and must never be
    printed; `safe` is the printable form.
    """

    scheme: str
    authority: str
    path: str
    safe: str
    container: str = ""
    reference: str = ""
    prefix: bool = False
    raw: str = field(default="", repr=False)

    @property
    def basename(self) -> str:
        """Name of the file that a single object becomes."""
        return (
            unquote(self.path).rsplit("/", 1)[-1] if self.scheme in ("http", "https") else self.path.rsplit("/", 1)[-1]
        )

    def __str__(self) -> str:
        return self.safe


def parse_uri(text: str) -> ArtifactURI:
    """Parse `text`. Raises FetchError(InvalidURI) with the error and the scheme's form."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in SCHEMES:
        named = (
            f"scheme {scheme!r}"
            if separator and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,31}", scheme)
            else "no known scheme"
        )
        raise FetchError(
            FetchReason.INVALID_URI,
            f"The artifact uri has {named}; it must begin with one of {', '.join(s + '://' for s in SCHEMES)}.",
        )
    if len(text) > 4096:
        raise _invalid_uri(scheme, "it is longer than 4096 characters")
    if _CONTROL_CHARACTERS.search(text) and (
        scheme not in ("s3", "gs", "az", "pvc")
        or _CONTROL_CHARACTERS.sub("", text.replace(" ", "")) != text.replace(" ", "")
    ):
        raise _invalid_uri(scheme, "it holds a blank or a control character")
    return _PARSERS[scheme](scheme, rest, text)


def _invalid_uri(scheme: str, why: str) -> FetchError:
    return FetchError(
        FetchReason.INVALID_URI, f"The artifact uri is not usable: {why}. Its form is {_SCHEME_FORMS[scheme]}."
    )


def _split_path(scheme: str, path: str, *, may_be_empty: bool = False) -> tuple[str, bool]:
    """Return the path without its trailing slash, and whether it had one."""
    prefix = path.endswith("/")
    path = path.removesuffix("/")
    if not path:
        if may_be_empty:
            return "", True
        raise _invalid_uri(scheme, "it names no object, file or folder")
    segments = path.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        raise _invalid_uri(scheme, "its path has an empty, '.' or '..' segment")
    return path, prefix


def _parse_bucket(scheme: str, rest: str, text: str) -> ArtifactURI:
    bucket, _, key = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise _invalid_uri(scheme, "its bucket name is empty or has characters that a bucket can't have")
    path, prefix = _split_path(scheme, key)
    return ArtifactURI(scheme, bucket, path, text, prefix=prefix, raw=text)


def _parse_azure(scheme: str, rest: str, text: str) -> ArtifactURI:
    account, _, tail = rest.partition("/")
    container, _, key = tail.partition("/")
    if not _ACCOUNT.fullmatch(account):
        raise _invalid_uri(scheme, "its storage account must be 3 to 24 lower-case letters and digits")
    if not _CONTAINER.fullmatch(container):
        raise _invalid_uri(scheme, "its container is missing or has characters that a container can't have")
    path, prefix = _split_path(scheme, key)
    return ArtifactURI(scheme, account, path, text, container=container, prefix=prefix, raw=text)


def _parse_claim(scheme: str, rest: str, text: str) -> ArtifactURI:
    claim, _, tail = rest.partition("/")
    if not _CLAIM.fullmatch(claim):
        raise _invalid_uri(scheme, "its claim is not the name of a PersistentVolumeClaim")
    path, prefix = _split_path(scheme, tail, may_be_empty=True)
    return ArtifactURI(scheme, claim, path, text, prefix=prefix, raw=text)


def _parse_http(scheme: str, rest: str, text: str) -> ArtifactURI:
    del rest
    try:
        split = urlsplit(text)
        host, port = split.hostname, split.port
    except ValueError as error:
        raise _invalid_uri(scheme, "its host or port can't be read") from error
    if not host:
        raise _invalid_uri(scheme, "it has no host")
    if split.fragment:
        raise _invalid_uri(scheme, "it has a fragment (#...), which no server ever sees")
    name = unquote(split.path).rsplit("/", 1)[-1]
    if not name:
        raise _invalid_uri(scheme, "it must name one file: HTTP has no folders")
    if (
        name in (".", "..")
        or _CONTROL_CHARACTERS.sub("", name.replace(" ", "")) != name.replace(" ", "")
        or "\\" in name
    ):
        raise _invalid_uri(scheme, "its last path segment is not usable as a file name")
    shown_host = f"[{host}]" if ":" in host else host
    authority = shown_host if port is None else f"{shown_host}:{port}"
    safe = f"{scheme}://{authority}{split.path}" + ("?..." if split.query else "")
    return ArtifactURI(scheme, authority, split.path.lstrip("/"), safe, raw=text)


def _parse_hub(scheme: str, rest: str, text: str) -> ArtifactURI:
    repository, at, revision = rest.partition("@")
    organisation, _, name = repository.partition("/")
    if not _HUB_NAME.fullmatch(organisation) or not _HUB_NAME.fullmatch(name):
        raise _invalid_uri(scheme, "it must name an organisation and a model, and nothing below it")
    if at and (not _HUB_REVISION.fullmatch(revision) or ".." in revision):
        raise _invalid_uri(scheme, "its revision is not a branch, a tag or a commit")
    return ArtifactURI(scheme, organisation, name, text, reference=revision or "main", raw=text)


def _parse_oci(scheme: str, rest: str, text: str) -> ArtifactURI:
    registry, _, tail = rest.partition("/")
    if "@" in registry:
        raise FetchError(
            FetchReason.INVALID_URI,
            "The artifact uri holds a user name or password before the registry; put them into the credentials "
            "Secret (.dockerconfigjson).",
        )
    if not _REGISTRY.fullmatch(registry):
        raise _invalid_uri(scheme, "its registry is not a host")
    name, at, digest = tail.partition("@")
    repository, colon, tag = name.partition(":")
    if not _REPOSITORY.fullmatch(repository):
        raise _invalid_uri(
            scheme, "its repository must be lower-case path segments of letters, digits, '.', '_' and '-'"
        )
    if at and not _OCI_DIGEST.fullmatch(digest):
        raise _invalid_uri(scheme, "its digest must be sha256: and 64 lower-case hexadecimal digits")
    if colon and not _TAG.fullmatch(tag):
        raise _invalid_uri(scheme, "its tag is not a tag")
    return ArtifactURI(scheme, registry, repository, text, reference=digest or tag or "latest", raw=text)


_PARSERS = {
    "s3": _parse_bucket,
    "gs": _parse_bucket,
    "az": _parse_azure,
    "pvc": _parse_claim,
    "http": _parse_http,
    "https": _parse_http,
    "hf": _parse_hub,
    "oci": _parse_oci,
}
