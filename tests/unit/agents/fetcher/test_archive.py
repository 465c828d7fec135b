"""Unpacking: honest archives come out whole, hostile ones leave nothing outside and fill nothing."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from modelwright.agents.fetcher.archive import unpack_archive
from modelwright.agents.fetcher.errors import FetchError, FetchReason
from modelwright.agents.fetcher.port import RemoteFile, detect_archive_form
from modelwright.agents.fetcher.settings import FetchSettings


def _unpack(
    tmp_path: Path, body: bytes, form: str, settings: FetchSettings | None = None, *, whiteouts: bool = False
) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir(exist_ok=True)
    packed = tmp_path / "packed"
    packed.write_bytes(body)
    unpack_archive(
        packed,
        RemoteFile("m", "m", len(body), unpack=form, whiteouts=whiteouts),
        tree,
        settings or FetchSettings(),
        "s3://b/m",
    )
    return tree


def _tar(*members: tarfile.TarInfo | tuple[str, bytes], mode: str = "w", **attributes: object) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tuple):
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                for name, value in attributes.items():
                    setattr(info, name, value)
                archive.addfile(info, io.BytesIO(member[1]))
            else:
                archive.addfile(member)
    return out.getvalue()


def _special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def _zip(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members:
            archive.writestr(name, body)
    return out.getvalue()


def _zip_link(name: str, target: str) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info, target.encode()


HONEST = (("model/a.txt", b"a"), ("model/sub/b.bin", b"b" * 5000), ("./c", b""))


@pytest.mark.parametrize(
    ("form", "body"),
    [
        ("zip", _zip(*HONEST)),
        ("tar", _tar(*HONEST)),
        ("tar.gz", _tar(*HONEST, mode="w:gz")),
        ("tar", _tar(*HONEST, mode="w:gz")),
    ],
)
def test_honest_archives_come_out_whole_and_readable(tmp_path: Path, form: str, body: bytes) -> None:
    tree = _unpack(tmp_path, body, form)
    files = {path.relative_to(tree).as_posix(): path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    assert files == {"model/a.txt": b"a", "model/sub/b.bin": b"b" * 5000, "c": b""}
    assert stat.S_IMODE((tree / "model").stat().st_mode) == 0o755
    assert stat.S_IMODE((tree / "c").stat().st_mode) == 0o644


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_of_every_tar_dialect(tmp_path: Path, tar_format: int) -> None:
    name = "/".join(["part" * 10] * 3) + "/weights-1"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as archive:
        info = tarfile.TarInfo(name)
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    assert (_unpack(tmp_path, out.getvalue(), "tar") / name).read_bytes() == b"abc"


def test_of_mode_owner_and_time_only_the_execute_bit_is_kept(tmp_path: Path) -> None:
    tree = _unpack(tmp_path, _tar(("run", b"x"), mode="w", uid=12345) + b"", "tar")
    assert (tree / "run").stat().st_uid == os.getuid()
    tree = _unpack(tmp_path, _tar(("run", b"x"), ("run2", b"y")), "tar")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("tool")
        info.mode, info.size = 0o6755, 1
        archive.addfile(info, io.BytesIO(b"x"))
    tree = _unpack(tmp_path, out.getvalue(), "tar")
    assert stat.S_IMODE((tree / "tool").stat().st_mode) == 0o755


def test_links_within_the_archive_work(tmp_path: Path) -> None:
    body = _tar(
        ("v1/m.bin", b"weights"),
        _special("latest", tarfile.SYMTYPE, "v1"),
        _special("copy", tarfile.LNKTYPE, "v1/m.bin"),
    )
    tree = _unpack(tmp_path, body, "tar")
    assert (tree / "latest" / "m.bin").read_bytes() == b"weights"
    assert (tree / "copy").read_bytes() == b"weights"
    tree = _unpack(tmp_path, _zip(("z/m.bin", b"w"), _zip_link("zl", "z")), "zip")
    assert (tree / "zl" / "m.bin").read_bytes() == b"w"


HOSTILE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "tar absolute path": ("tar", lambda: _tar(("/tmp/evil", b"x"))),
    "tar climbing path": ("tar", lambda: _tar(("../evil", b"x"))),
    "tar climbing in the middle": ("tar", lambda: _tar(("a/../../evil", b"x"))),
    "tar link out": ("tar", lambda: _tar(_special("l", tarfile.SYMTYPE, "../.."))),
    "tar absolute link": ("tar", lambda: _tar(_special("l", tarfile.SYMTYPE, "/etc"))),
    "tar link through a link": (
        "tar",
        lambda: _tar(_special("d", tarfile.SYMTYPE, "."), _special("x", tarfile.SYMTYPE, "d/../evil")),
    ),
    "tar file through a link": ("tar", lambda: _tar(_special("d", tarfile.SYMTYPE, "e"), ("d/x", b"x"))),
    "tar folder through a link": (
        "tar",
        lambda: _tar(_special("d", tarfile.SYMTYPE, "e"), _special("d/f", tarfile.DIRTYPE)),
    ),
    "tar hard link out": ("tar", lambda: _tar(_special("h", tarfile.LNKTYPE, "../../etc/passwd"))),
    "tar hard link to an absolute path": ("tar", lambda: _tar(_special("h", tarfile.LNKTYPE, "/etc/passwd"))),
    "tar hard link to a link": (
        "tar",
        lambda: _tar(_special("s", tarfile.SYMTYPE, "t"), _special("h", tarfile.LNKTYPE, "s")),
    ),
    "tar hard link through a link": (
        "tar",
        lambda: _tar(("e/x", b"x"), _special("d", tarfile.SYMTYPE, "e"), _special("h", tarfile.LNKTYPE, "d/x")),
    ),
    "tar device": ("tar", lambda: _tar(_special("dev", tarfile.CHRTYPE))),
    "tar block device": ("tar", lambda: _tar(_special("dev", tarfile.BLKTYPE))),
    "tar pipe": ("tar", lambda: _tar(_special("pipe", tarfile.FIFOTYPE))),
    "tar file over a folder": ("tar", lambda: _tar(("a/b", b"x"), ("a", b"y"))),
    "zip climbing path": ("zip", lambda: _zip(("../evil", b"x"))),
    "zip absolute path": ("zip", lambda: _zip(("/evil", b"x"))),
    "zip with backslashes": ("zip", lambda: _zip(("..\\evil", b"x"))),
    "zip link out": ("zip", lambda: _zip(_zip_link("l", "../../etc"))),
    "zip file through a link": ("zip", lambda: _zip(_zip_link("d", "e"), ("d/x", b"x"))),
    "not an archive": ("zip", lambda: b"not an archive at all" * 10),
    "empty zip file": ("zip", lambda: b""),
    "not a tar": ("tar", lambda: b"not an archive at all" * 100),
    "gzip of no tar": ("tar.gz", lambda: gzip.compress(b"not an archive at all" * 100)),
    "zip cut short": ("zip", lambda: _zip(("a", os.urandom(5000)))[:3000]),
    "tar.gz cut short": ("tar.gz", lambda: _tar(("a", os.urandom(50000)), mode="w:gz")[:20000]),
    "tar cut short": ("tar", lambda: _tar(("a", os.urandom(50000)))[:20000]),
    "zip with a flipped bit": ("zip", lambda: _flip(_zip(("a", os.urandom(5000))), 500)),
    "gzip with a flipped bit": ("tar.gz", lambda: _flip(_tar(("a", os.urandom(50000)), mode="w:gz"), 20000)),
    "encrypted zip": ("zip", lambda: _encrypted()),
}


def _flip(body: bytes, at: int) -> bytes:
    return body[:at] + bytes([body[at] ^ 0xFF]) + body[at + 1 :]


def _encrypted() -> bytes:
    """The flag of encryption set in both headers."""
    body = bytearray(_zip(("a", b"secret" * 10)))
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        body[body.index(sign) + offset] |= 1
    return bytes(body)


@pytest.mark.parametrize(("form", "make"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_and_damaged_archives_are_refused(tmp_path: Path, form: str, make: Callable[[], bytes]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises(FetchError) as caught:
        _unpack(outside, make(), form)
    assert caught.value.reason is FetchReason.UNSAFE_ARCHIVE, caught.value.message
    assert "s3://b/m" in caught.value.message
    assert {path.name for path in outside.iterdir()} == {"tree", "packed"}
    assert {path.name for path in tmp_path.iterdir()} == {"outside"}


def test_bomb_is_refused_by_its_announced_size_before_writing(tmp_path: Path) -> None:
    for form, body in (
        ("zip", _zip(("zeros", bytes(3_000_000)))),
        ("tar.gz", _tar(("zeros", bytes(3_000_000)), mode="w:gz")),
    ):
        folder = tmp_path / form
        folder.mkdir()
        with pytest.raises(FetchError) as caught:
            _unpack(folder, body, form, FetchSettings(max_unpacked_bytes=2_000_000))
        assert caught.value.reason is FetchReason.ARTIFACT_TOO_LARGE
        assert "MAX_UNPACKED_BYTES" in caught.value.message
        assert list((folder / "tree").iterdir()) == []


def test_a_zip_that_lies_about_its_size_is_stopped(tmp_path: Path) -> None:
    body = bytearray(_zip(("zeros", bytes(3_000_000))))
    for sign, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", body, body.index(sign) + offset, 100)
    with pytest.raises(FetchError) as caught:
        _unpack(tmp_path, bytes(body), "zip", FetchSettings(max_unpacked_bytes=2_000_000))
    assert caught.value.reason in (FetchReason.UNSAFE_ARCHIVE, FetchReason.ARTIFACT_TOO_LARGE)
    assert sum(path.stat().st_size for path in (tmp_path / "tree").iterdir()) < 2_000_000


def test_archive_with_a_huge_ratio_is_refused(tmp_path: Path) -> None:
    body = gzip.compress(_tar(("zeros", bytes(80 << 20))), 9)
    with pytest.raises(FetchError) as caught:
        _unpack(tmp_path, body, "tar.gz")
    assert caught.value.reason is FetchReason.UNSAFE_ARCHIVE
    assert "MAX_UNPACKED_RATIO" in caught.value.message


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_too_many_entries_are_refused(tmp_path: Path, form: str) -> None:
    members = [(f"f{number}", b"") for number in range(20)]
    with pytest.raises(FetchError) as caught:
        _unpack(tmp_path, _zip(*members) if form == "zip" else _tar(*members), form, FetchSettings(max_entries=10))
    assert caught.value.reason is FetchReason.ARTIFACT_TOO_LARGE


def test_a_giant_header_does_not_fill_the_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 200 << 20
    body = gzip.compress(info.tobuf() + bytes(200 << 20), 1)
    tracemalloc.start()
    try:
        with pytest.raises(FetchError) as caught:
            _unpack(tmp_path, body, "tar.gz")
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.reason is FetchReason.UNSAFE_ARCHIVE


def test_layer_deletes_files_of_earlier_layers(tmp_path: Path) -> None:
    _unpack(
        tmp_path, _tar(("keep/a", b"1"), ("gone/b", b"2"), ("cleared/c", b"3"), ("file", b"4")), "tar", whiteouts=True
    )
    layer = _tar((".wh.gone", b""), ("cleared/new", b"5"), ("cleared/.wh..wh..opq", b""), (".wh.file", b""))
    tree = _unpack(tmp_path, layer, "tar", whiteouts=True)
    files = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
    assert files == {"keep/a", "cleared/new"}


def test_a_deletion_marker_is_an_ordinary_file_elsewhere(tmp_path: Path) -> None:
    assert (_unpack(tmp_path, _tar((".wh.x", b"")), "tar") / ".wh.x").exists()


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("m.zip", "zip"),
        ("M.TAR.GZ", "tar.gz"),
        ("m.tgz", "tar.gz"),
        ("m.tar", "tar"),
        ("m.bin", ""),
        (".zip", ""),
        ("zip", ""),
    ],
)
def test_archive_form_by_file_name(name: str, form: str) -> None:
    assert detect_archive_form(name) == form
