"""Rules for relative paths that may be written below a folder. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from modelwright.agents.fetcher.errors import FetchError, FetchReason

_MAX_SEGMENT_BYTES = 255
_MAX_PATH_BYTES = 3000


def check_relative_path(name: str, where: str) -> str:
    """Return `name` as a clean relative posix path. Raises FetchError(UnsafeArchive) if it could leave the folder.

    `where`: the source of the path (an archive, a listing), for the message.
    """
    shown = ascii(name[:120])
    if not name or "\0" in name:
        raise _unsafe_path(where, shown, "is empty or holds a NUL byte")
    if "\\" in name:
        raise _unsafe_path(where, shown, "holds a backslash")
    if name.startswith("/") or (len(name) > 1 and name[1] == ":" and name[0].isalpha()):
        raise _unsafe_path(where, shown, "is absolute")
    segments = [segment for segment in name.split("/") if segment not in ("", ".")]
    if ".." in segments:
        raise _unsafe_path(where, shown, "climbs out of its folder with '..'")
    if not segments:
        return ""
    encoded = [segment.encode("utf-8", "surrogateescape") for segment in segments]
    if (
        any(len(segment) > _MAX_SEGMENT_BYTES for segment in encoded)
        or sum(map(len, encoded)) + len(encoded) > _MAX_PATH_BYTES
    ):
        raise _unsafe_path(where, shown, "is longer than a file system allows")
    return "/".join(segments)


def resolve_link_target(link: str, target: str, where: str) -> str:
    """Return the path, inside the folder, that the symbolic link at `link` points to. Raises FetchError(UnsafeArchive)
    if it is outside.

    `..` may only stand at the target's start: after a name it would be resolved from the target of that name, if it is
    a link, and `d -> .` with `x -> d/../secret` would leave the folder.
    """
    shown = ascii(link[:120])
    if not target or target.startswith("/") or "\\" in target or "\0" in target:
        raise _unsafe_path(where, shown, "is a link to an absolute or unusable path")
    resolved = link.split("/")[:-1]
    descended = False
    for segment in target.split("/"):
        if segment in ("", "."):
            continue
        if segment == "..":
            if not resolved or descended:
                raise _unsafe_path(where, shown, "is a link that leads out of the folder")
            resolved.pop()
        else:
            descended = True
            resolved.append(segment)
    return "/".join(resolved)


def check_listing_paths(paths: Iterable[str], where: str) -> None:
    """Raise FetchError(UnsafeArchive) unless all `paths` can exist together: none twice, none both a file and a
    folder."""
    known = set()
    for path in paths:
        if check_relative_path(path, where) != path:
            raise _unsafe_path(where, ascii(path[:120]), "is not a plain relative path")
        if path in known:
            raise _unsafe_path(where, ascii(path[:120]), "is there twice")
        known.add(path)
    for path in known:
        parent = path
        while "/" in parent:
            parent = parent.rsplit("/", 1)[0]
            if parent in known:
                raise _unsafe_path(where, ascii(parent[:120]), "is both a file and a folder")


def list_parents(path: str) -> list[str]:
    """Return the folders above a relative path, the outermost first."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _unsafe_path(where: str, shown: str, why: str) -> FetchError:
    return FetchError(
        FetchReason.UNSAFE_ARCHIVE,
        f"{where}: the path {shown} {why}; the artifact was discarded. Publish the artifact without it.",
    )
