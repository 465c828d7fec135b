"""The scan passes no file for which one of Python's readers would import something."""

from __future__ import annotations

import io
import pickletools
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from modelwright.agents.scanner import readers
from modelwright.agents.scanner.allow_list import AllowList
from modelwright.agents.scanner.artifact_scan import ArtifactScan

LINES = st.sampled_from(
    [
        b"0",
        b"1",
        b"01",
        b"010",
        b"0x1",
        b"1L",
        b"1\0x",
        b" 1",
        b"+1",
        b"1_0",
        b"-1",
        b"'a'",
        b"'os'",
        b"a",
        b"os",
        b"getcwd",
        b"1e5",
        b"inf",
        b"",
        b"\\u0041",
        b"\xff",
    ]
)
BYTES = st.binary(max_size=12)
LENGTHS = {
    "BINSTRING": 4,
    "BINBYTES": 4,
    "BINUNICODE": 4,
    "LONG4": 4,
    "BINBYTES8": 8,
    "BINUNICODE8": 8,
    "BYTEARRAY8": 8,
    "SHORT_BINSTRING": 1,
    "SHORT_BINBYTES": 1,
    "SHORT_BINUNICODE": 1,
    "LONG1": 1,
}
TWO_LINES = {"GLOBAL", "INST"}
FIXED = {
    "BININT": 4,
    "BININT1": 1,
    "BININT2": 2,
    "BINFLOAT": 8,
    "PROTO": 1,
    "BINGET": 1,
    "LONG_BINGET": 4,
    "BINPUT": 1,
    "LONG_BINPUT": 4,
    "EXT1": 1,
    "EXT2": 2,
    "EXT4": 4,
}


def operation(entry: pickletools.OpcodeInfo) -> st.SearchStrategy[bytes]:
    code = entry.code.encode("latin-1")
    if entry.name in LENGTHS:
        size = LENGTHS[entry.name]
        return BYTES.map(lambda data: code + len(data).to_bytes(size, "little") + data)
    if entry.name == "FRAME":
        return st.integers(0, 40).map(lambda size: code + size.to_bytes(8, "little"))
    if entry.name in FIXED:
        # The first bytes are small, so that places of the memo are there.
        rest = bytes(FIXED[entry.name] - 1)
        return st.integers(0, 5).map(lambda number: code + bytes([number]) + rest)
    if entry.name in TWO_LINES:
        return st.just(code + b"os\ngetcwd\n")
    if entry.arg is not None:
        return LINES.map(lambda line: code + line + b"\n")
    return st.just(code)


OPERATIONS = st.one_of([operation(entry) for entry in pickletools.opcodes])
PICKLES = st.lists(OPERATIONS, max_size=25).map(lambda parts: b"".join(parts) + b"0cos\ngetcwd\n)R.")


def check(name: str, data: bytes) -> None:
    names: list[tuple[str, str]] = []
    for reader in readers.READERS:
        readers.load_with_reader(io.BytesIO(data), reader, names)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_bytes(data)
        report = ArtifactScan(AllowList()).scan_folder(Path(folder)).build_report()
    assert not names or report["outcome"] != "Pass", (names, report)


@given(data=PICKLES)
def test_what_a_reader_would_import_is_no_pass(data: bytes) -> None:
    check("fingerprint.pb", data)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_to_an_end(data: bytes) -> None:
    for name in (
        "m.pkl",
        "m.onnx",
        "a.npy",
        "m.safetensors",
        "saved_model.pb",
        "c.yaml",
        "config.json",
        "config.pbtxt",
    ):
        check(name, data)


HEADS = st.sampled_from(
    [
        b"",
        b"GGUF\x03\0\0\0" + bytes(8) + b"\x01" + bytes(7),
        b"GGUF\x02\0\0\0" + bytes(8) + b"\x02" + bytes(7),
        b"\x3a",
        b"\x12",
        b"\x0a",
        b"PK\x03\x04",
        b"\x93NUMPY\1\0",
        b"{",
        b'backend: "',
        b"flavors: ",
        b"\x80\x04",
    ]
)
NAMES = st.sampled_from(
    [
        "m.gguf",
        "m.onnx",
        "saved_model.pb",
        "keras_metadata.pb",
        "config.pbtxt",
        "MLmodel",
        "m.json",
        "m.keras",
        "m.npy",
        "m.safetensors",
        "m.pt2",
        "chat.jinja",
        "modules.json",
        "model-settings.json",
        "m.yaml",
        "m.pkl",
    ]
)


@given(NAMES, HEADS, st.binary(max_size=60))
def test_no_bytes_end_the_scan_before_it_has_reported(name: str, head: bytes, rest: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_bytes(head + rest)
        report = ArtifactScan(AllowList()).scan_folder(Path(folder)).build_report()
    assert report["outcome"] in ("Pass", "Fail", "Inconclusive")
