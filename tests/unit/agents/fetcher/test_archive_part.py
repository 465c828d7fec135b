"""Unpacking a part of an archive or image: members outside it are ignored, members in it must keep the rules."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from modelwright.agents.fetcher.archive import UnpackedPart, unpack_archive
from modelwright.agents.fetcher.errors import FetchError, FetchReason
from modelwright.agents.fetcher.port import RemoteFile
from modelwright.agents.fetcher.selection import Selection
from modelwright.agents.fetcher.settings import FetchSettings

Member = tuple[str, bytes | None] | tuple[str, bytes, str]
"""Name and content, None for a folder; or name, type and target."""


def tar(*members: Member) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for member in members:
            info = tarfile.TarInfo(member[0])
            if len(member) == 3:
                info.type, info.linkname = member[1], member[2]
                archive.addfile(info)
            elif member[1] is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            else:
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def zipped(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, body in members.items():
            archive.writestr(name, body)
        for name, target in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
    return out.getvalue()


def unpacked(
    folder: Path,
    layers: Sequence[bytes],
    selection: Selection,
    *,
    form: str = "tar",
    settings: FetchSettings | None = None,
) -> tuple[dict[str, bytes], UnpackedPart]:
    tree, part = folder / "tree", UnpackedPart(selection)
    tree.mkdir()
    for layer in layers:
        packed = folder / "packed"
        packed.write_bytes(layer)
        file = RemoteFile("m", "m", len(layer), unpack=form, whiteouts=form == "tar")
        unpack_archive(packed, file, tree, settings or FetchSettings(), "oci://reg.io/m:1", part)
    return {path.relative_to(tree).as_posix(): path.read_bytes() for path in tree.rglob("*") if path.is_file()}, part


MODEL: tuple[Member, ...] = (("models", None), ("models/model.joblib", b"m"), ("models/sub/c.json", b"{}"))
LINK, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE
BASES: dict[str, tuple[Member, ...]] = {
    "scratch": (),
    "alpine": (("bin", None), ("bin/busybox", b"x"), ("bin/sh", LINK, "/bin/busybox")),
    "ubi": (("etc", None), ("etc/mtab", LINK, "/proc/mounts"), ("etc/localtime", LINK, "../usr/share/UTC")),
    "debian with merged usr": (("bin", LINK, "usr/bin"), ("bin/x", b"x"), ("usr/bin/y", HARD, "bin/x")),
    "one with devices": (("dev/null", tarfile.CHRTYPE, ""), ("run/pipe", tarfile.FIFOTYPE, "")),
    "one with names that lead out": (("/etc/passwd", b"x"), ("../x", b"x"), ("a\\b", b"x"), ("s/" + "n" * 300, b"x")),
    "one with large files": (("lib/large.so", bytes(9 << 20)),),
    "one with strange deletions": (("etc/.wh...", b""), ("etc/.wh..", b""), ("opt/.wh..wh..opq", b"")),
}


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_of_an_image_only_the_models_folder_is_unpacked(tmp_path: Path, base: tuple[Member, ...]) -> None:
    for number, layers in enumerate(([tar(*base, *MODEL)], [tar(*base), tar(*MODEL)], [tar(*MODEL), tar(*base)])):
        folder = tmp_path / str(number)
        folder.mkdir()
        result, _ = unpacked(folder, layers, Selection("models"))
        assert result == {"model.joblib": b"m", "sub/c.json": b"{}"}
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (("models/l", LINK, "/etc/passwd"), "absolute"),
        (("models/l", LINK, "../etc/passwd"), "leads out"),
        (("models/null", tarfile.CHRTYPE, ""), "device"),
        (("models/../../x", b"x"), "climbs out"),
        (("/models/x", b"x"), "absolute"),
        (("models/a\\b", b"x"), "backslash"),
        (("models/h", HARD, "etc/passwd"), "not unpacked"),
        (("models/h", HARD, "/etc/passwd"), "absolute"),
    ],
)
def test_within_the_part_the_rules_stay(tmp_path: Path, bad: Member, says: str) -> None:
    with pytest.raises(FetchError) as caught:
        unpacked(tmp_path, [tar(("etc/passwd", b"x"), *MODEL, bad)], Selection("models"))
    assert caught.value.reason is FetchReason.UNSAFE_ARCHIVE
    assert says in caught.value.message


def test_links_within_the_part_work(tmp_path: Path) -> None:
    body = tar(("m/v1/x", b"x"), ("m/latest", LINK, "v1"), ("m/copy", HARD, "m/v1/x"))
    result, _ = unpacked(tmp_path, [body], Selection("m"))
    assert result == {"v1/x": b"x", "copy": b"x"}
    assert (tmp_path / "tree" / "latest" / "x").read_bytes() == b"x"


NEXT: dict[str, tuple[tuple[Member, ...], dict[str, bytes]]] = {
    "a file of it is deleted": ((("models/.wh.model.joblib", b""),), {"sub/c.json": b"{}"}),
    "a folder of it is deleted": ((("models/.wh.sub", b""),), {"model.joblib": b"m"}),
    "it is deleted": (((".wh.models", b""),), {}),
    "it is deleted, and made again": (((".wh.models", b""), ("models/n", b"n")), {"n": b"n"}),
    "it is made again, and what was before hidden": ((("models/n", b"n"), ("models/.wh..wh..opq", b"")), {"n": b"n"}),
    "all is hidden": (((".wh..wh..opq", b""), ("models/n", b"n")), {"n": b"n"}),
    "its neighbour is deleted": (((".wh.models-2", b""),), {"model.joblib": b"m", "sub/c.json": b"{}"}),
    "a link is in its place": ((("models", LINK, "opt/models"), ("opt/models/n", b"n")), {}),
    "a file is in its place": ((("models", b"file"),), {"models": b"file"}),
    "a file was in its place": ((("models", b"file"), ("models", None), ("models/n", b"n")), {"n": b"n"}),
}


@pytest.mark.parametrize(("layer", "left"), NEXT.values(), ids=NEXT)
def test_later_layer_changes_the_part(tmp_path: Path, layer: tuple[Member, ...], left: dict[str, bytes]) -> None:
    result, _ = unpacked(tmp_path, [tar(*MODEL), tar(*layer)], Selection("models"))
    assert result == left


@pytest.mark.parametrize("marker", [".wh.a", "a/.wh.b", ".wh..wh..opq", "a/.wh..wh..opq"])
def test_a_folder_above_the_part_is_deleted_with_it(tmp_path: Path, marker: str) -> None:
    layers = [tar(("a/b/c/m", b"1")), tar((marker, b""), ("a/b/c/n", b"2"))]
    assert unpacked(tmp_path, layers, Selection("a/b/c"))[0] == {"n": b"2"}


def test_a_link_above_the_part_is_named_with_where_it_leads(tmp_path: Path) -> None:
    layers = [tar(("lib", LINK, "usr/lib"), ("usr/lib/m/x", b"x"))]
    result, part = unpacked(tmp_path, layers, Selection("lib/m"))
    assert result == {}
    assert "'lib' is a link to 'usr/lib'" in part.candidates.nothing_selected("oci://reg.io/m:1").message


@pytest.mark.parametrize("form", ["tar", "zip"])
@pytest.mark.parametrize(
    ("selection", "left"),
    [
        (Selection("my-model"), {"model.joblib": b"m", "sub/._c": b"c"}),
        (Selection("my-model/model.joblib"), {"model.joblib": b"m"}),
        (Selection("my-model/sub"), {"._c": b"c"}),
        (Selection("", (), ("._*", "*/._*")), {"my-model/model.joblib": b"m", "README": b"r"}),
        (Selection("my-model", ("*.joblib",)), {"model.joblib": b"m"}),
        (Selection("other"), {}),
    ],
)
def test_an_archive_with_one_folder_on_top(
    tmp_path: Path, form: str, selection: Selection, left: dict[str, bytes]
) -> None:
    members = {"my-model/model.joblib": b"m", "my-model/sub/._c": b"c", "README": b"r"}
    body = tar(*members.items()) if form == "tar" else zipped(members)
    assert unpacked(tmp_path, [body], selection, form=form)[0] == left
    folders = [path for path in (tmp_path / "tree").rglob("*") if path.is_dir()]
    assert all(any(folder.iterdir()) for folder in folders), "no folder is left empty"


def test_zip_members_outside_the_part_are_ignored(tmp_path: Path) -> None:
    body = zipped({"m/x": b"x", "../y": b"y", "z": b"z"}, {"bin/sh": "/bin/busybox", "m/l": "x", "long": "x" * 5000})
    assert unpacked(tmp_path, [body], Selection("m"), form="zip")[0] == {"x": b"x", "l": b"x"}


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_excluded_members_need_no_room_but_count_as_read(tmp_path: Path, form: str) -> None:
    members = {"large": bytes(5_000_000), "m/x": b"x"}
    body = tar(*members.items()) if form == "tar" else zipped(members)
    limit = FetchSettings(max_unpacked_bytes=2_000_000)
    if form == "zip":
        assert unpacked(tmp_path, [body], Selection("m"), form=form, settings=limit)[0] == {"x": b"x"}
        return
    with pytest.raises(FetchError) as caught:
        unpacked(tmp_path, [body], Selection("m"), form=form, settings=limit)
    assert caught.value.reason is FetchReason.ARTIFACT_TOO_LARGE


def test_a_bomb_outside_of_the_part_is_one_too(tmp_path: Path) -> None:
    with pytest.raises(FetchError) as caught:
        unpacked(tmp_path, [tar(("zeros", bytes(80 << 20)), ("m/x", b"x"))], Selection("m"))
    assert caught.value.reason is FetchReason.UNSAFE_ARCHIVE
    assert "MAX_UNPACKED_RATIO" in caught.value.message


def test_a_header_after_a_large_member_is_bounded_as_before(tmp_path: Path) -> None:
    first = tarfile.TarInfo("large")
    first.size = 1 << 20
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 200 << 20
    body = gzip.compress(first.tobuf() + bytes(1 << 20) + header.tobuf() + bytes(200 << 20), 1)
    with pytest.raises(FetchError) as caught:
        unpacked(tmp_path, [body], Selection("m"))
    assert caught.value.reason is FetchReason.UNSAFE_ARCHIVE
    assert "header" in caught.value.message
