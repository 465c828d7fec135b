"""Ways around the scan that ended in a Pass while a loader ran the payload. Each is harmless: it asks for the working
directory. Where the loader is here, the test has it load the file, so that the payload is known to be one."""

from __future__ import annotations

import bz2
import io
import json
import lzma
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from joblib.numpy_pickle_compat import _MAX_LEN
from sklearn.tree import DecisionTreeClassifier

from modelwright.agents.scanner import pickles, readers
from modelwright.agents.scanner.allow_list import AllowList
from modelwright.agents.scanner.artifact_scan import ArtifactScan

Load = Callable[[Path], Any]
CALL = b"cposix\ngetcwd\n(tR"
LOADED = CALL + b"."
PICKLED = b"\x80\x02" + LOADED
PADDING = b"N0" * 300
"""Longer than the head by which a file is classified."""


def scanned(folder: Path, name: str, data: bytes) -> dict[str, Any]:
    path = folder / "artifact" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return ArtifactScan(AllowList(("sklearn.*",))).scan_folder(folder / "artifact").build_report()


def by_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        return pickle.load(file)


def by_numpy(path: Path) -> Any:
    return np.load(path, allow_pickle=True)


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("_DOT_", "."), data)
    return buffer.getvalue()


def array_file(header: str) -> bytes:
    padded = header.encode() + b" " * (117 - len(header) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(padded)) + padded + PICKLED


def kind(code: bytes, flags: int | None = None) -> bytes:
    made = b"cnumpy\ndtype\n\x8c" + bytes([len(code)]) + code + b"\x89\x88\x87R"
    if flags is None:
        return made
    return made + b"(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK" + bytes([flags]) + b"tb"


def array(length: int, of: bytes) -> bytes:
    """What joblib writes before the bytes of an array."""
    return (
        b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}("
        b"\x8c\x08subclasscnumpy\nndarray\n\x8c\x05shapeK" + bytes([length]) + b"\x85\x8c\x05order\x8c\x01C"
        b"\x8c\x0aallow_mmap\x89\x8c\x05dtype" + of + b"ub"
    )


def with_arrays(after: bytes) -> bytes:
    """A file of joblib's. The bytes of its first array are no operations: another reader ends there."""
    return b"\x80\x04" + array(2, kind(b"u1")) + b"\xff\xff0" + after


def framed(data: bytes) -> bytes:
    return b"\x95" + struct.pack("<Q", len(data)) + data


def packed_as_once() -> bytes:
    """As joblib 0.9 packed. The bytes after the head are different at each try, until none of the first is zero."""
    while True:
        raw = PICKLED + os.urandom(2000)
        data = b"ZF" + hex(len(raw)).encode().ljust(_MAX_LEN) + zlib.compress(raw, 9)
        if b"\0" not in data[:512]:
            return data


def lzma_of_32_kib() -> bytes:
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 15}]
    return lzma.compress(PICKLED, format=lzma.FORMAT_ALONE, filters=filters)


FRAME = array(64, kind(b"u1")) + (b"0" + LOADED).ljust(64, b"\xff")
WITHOUT_FLAG = array(1, kind(b"O8", 0)) + b"N.C\x26AAAA" + (b"0" + LOADED).ljust(34, b"\xff") + b"0."
EMPTY = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0tC\x01btR."
INNER = array(1, kind(b"O8")) + framed(EMPTY + b"C\x20") + (b"0" + LOADED).ljust(32, b"\xff") + b"."

RUN: list[tuple[str, str, bytes, Load]] = [
    ("a number that is octal to the reader in C", "m.txt", b"I010\n0" + LOADED, by_pickle),
    ("a number that ends at a zero byte in C", "m.txt", PADDING + b"I1\0x\n0" + LOADED, by_pickle),
    ("a long number that does", "m.txt", PADDING + b"L1\0x\n0" + LOADED, by_pickle),
    ("a place of the memo that does", "m.txt", PADDING + b"Np0\n0g0\0x\n0" + LOADED, by_pickle),
    ("a list that gets no state", "m.txt", b"(lNb0" + LOADED, joblib.load),
    ("a list that gets an empty state", "m.txt", b"(l(NNtb0" + LOADED, joblib.load),
    ("an array of bytes that grows", "m.txt", PADDING + b"\x96" + b"\0" * 8 + b"K\1a0" + LOADED, joblib.load),
    ("a line of 17 MiB", "m.txt", b"V" + b"A" * (17 << 20) + b"\n0" + LOADED, by_pickle),
    ("LZMA with a small window", "fingerprint.pb", lzma_of_32_kib(), joblib.load),
    ("packed as joblib once did", "m.txt", packed_as_once(), joblib.load),
    (
        "elements called object",
        "a.npy",
        array_file("{'descr': 'object', 'fortran_order': False, 'shape': (1,)}"),
        by_numpy,
    ),
    (
        "elements named twice",
        "a.npy",
        array_file("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), 'descr': '|O'}"),
        by_numpy,
    ),
    (
        "an object among the elements",
        "a.npy",
        array_file("{'descr': 'f8,O', 'fortran_order': False, 'shape': (1,)}"),
        by_numpy,
    ),
    (
        "an array of joblib's within a frame",
        "m.joblib",
        with_arrays(framed(FRAME) + b"C\x3e" + b"A" * 62 + b"0."),
        joblib.load,
    ),
    ("an array of objects whose frame goes on", "m.joblib", with_arrays(INNER), joblib.load),
    (
        "a type of one byte",
        "m.joblib",
        with_arrays(array(4, kind(b"c")) + b"C\x28AA" + (b"0" + LOADED).ljust(38, b"\xff") + b"0."),
        joblib.load,
    ),
]


@pytest.mark.parametrize(("name", "data", "load"), [case[1:] for case in RUN], ids=[case[0] for case in RUN])
def test_payload_that_a_loader_runs_does_not_pass(
    name: str, data: bytes, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = scanned(tmp_path, name, data)
    ran = []
    monkeypatch.setattr("posix.getcwd", lambda: ran.append(True))
    try:
        load(tmp_path / "artifact" / name)
    except Exception as error:
        print(f"after that the loader failed: {error}")
    assert ran, "the payload is none"
    assert report["outcome"] != "Pass", report["message"]


def two_tables() -> bytes:
    """An archive with two tables: readers that count from the end and from the start take different ones."""
    first, second = zipped(data_DOT_pkl=PICKLED + b" " * 99), zipped(data_DOT_pkl=pickle.dumps({}, 2))
    table, end = second.rfind(b"PK\x01\x02"), second.rfind(b"PK\x05\x06")
    end_record = bytearray(second[end:])
    struct.pack_into("<I", end_record, 16, first.rfind(b"PK\x01\x02"))
    entries = bytearray(second[table:end])
    struct.pack_into("<I", entries, 42, first.rfind(b"PK\x01\x02") - table)
    return first + second[:table] + bytes(entries) + bytes(end_record)


def member(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


def hidden(data: bytes) -> bytes:
    """A member whose number has one bit more than there are."""
    return bytes([data[0] | 0x80]) + b"\x80\x80\x80\x10" + data[1:]


def graph(operator: bytes) -> bytes:
    return member(2, member(2, member(1, member(2, operator))))


def keras(**layer: Any) -> bytes:
    return zipped(config_DOT_json=json.dumps({"config": {"layers": [layer]}}).encode())


NO_PASS: list[tuple[str, str, bytes]] = [
    # numpy takes pointers from the bytes of these two, which ends the process.
    ("numbers with the flag of objects", "m.joblib", with_arrays(array(8, kind(b"u8", 63)) + PICKLED.ljust(64) + b".")),
    ("objects without their flag", "m.joblib", with_arrays(WITHOUT_FLAG)),
    (
        "a class of joblib's in two places",
        "m.joblib",
        with_arrays(array(2, kind(b"u1")).replace(b"\n)", b"\n2)", 1) + b"\xff\xff0."),
    ),
    ("a packed pickle before an archive", "m.joblib", bz2.compress(PICKLED) + zipped(config_DOT_json=b"{}")),
    ("an archive with two tables", "m.pt", two_tables()),
    ("something before an archive", "m.keras", b"something" + zipped(config_DOT_json=b"{}")),
    ("something after an archive", "m.keras", zipped(config_DOT_json=b"{}") + b"something"),
    ("weights in a name only", "m.safetensors", b"\xff" * 8 + b"{"),
    ("weights without a description", "m.safetensors", (2).to_bytes(8, "little") + b"[]"),
    ("LZ4 called weights", "m.safetensors", b"\x04\x22\x4d\x18" + b"\0" * 4 + b"{}"),
    ("a member's name for a file outside of archives", "a!/data/0", b"\xff\x00\xff"),
    ("bytes in a text", "m.txt", b"a text" + b" " * 600 + b"\x89HDF\r\n\x1a\n\x00"),
    ("a number that older versions read", "m.txt", b"I" + b"1" * 5000 + b"\n0" + LOADED),
    ("a pickle of protocol 1 called weights", "fingerprint.pb", b"\x80\x01"),
    (
        "an array over bytes of its own",
        "m.pkl",
        b"\x80\x04cnumpy\nndarray\nK\x01\x85" + kind(b"O8") + b"C\x08AAAAAAAA\x87R.",
    ),
    ("a graph as text", "saved_model.pbtxt", b'node { op: "PyFunc" }'),
    ("a graph in a field whose number is too large", "saved_model.pb", hidden(graph(b"ReadFile"))),
    *(
        (f"the operator {name}", "saved_model.pb", graph(name.encode()))
        for name in (
            "WholeFileReaderV2",
            "WriteScalarSummary",
            "CreateSummaryFileWriter",
            "TFRecordDatasetV2",
            "SqlDataset",
            "DebugIdentityV2",
            "SnapshotDatasetV2",
            "InitializeTableFromTextFileV2",
            "TryRpc",
            "Addons>Anything",
        )
    ),
    ("another graph in an operator", "m.onnx", b"\x3a\x1c\x0a\x1a\x22\x09EPContext\x3a\x0dcom.microsoft"),
    ("a function of Keras' in code", "m.keras", keras(class_name="__lambda__", config={"value": "x"})),
    ("a module that Keras imports", "m.keras", keras(module="os", class_name="function", config="system")),
    ("a class that Keras imports", "m.keras", keras(module="builtins", class_name="exec", config={})),
    ("a helper of Keras'", "m.keras", keras(module="keras.utils", class_name="function", config="get_file")),
    ("a target of Hydra's in JSON", "config.json", b'{"model": {"_target_": "os.getcwd"}}'),
    ("a target of Hydra's in YAML", "model_config.yaml", b"model:\n  _target_: os.getcwd\n"),
    ("a tag of HyperPyYAML's", "hyperparams.yaml", b"a: !apply:os.getcwd\n"),
    ("a tag that nobody knows", "c.yaml", b"a: !mine x\n"),
    ("code of a repository", "model-settings.json", b'{"parameters": {"extra": {"trust_remote_code": true}}}'),
    ("a library that Triton loads", "config.pbtxt", b'model_operations { op_library_filename: "ops" }'),
    ("a runtime that Triton loads", "config.pbtxt", b'backend: "onnxruntime"\nruntime: "x"'),
    ("aliases in MLflow's description", "MLmodel", b"a: &a {b: c}\nflavors:\n  sklearn: {<<: [*a, *a]}\n"),
]


@pytest.mark.parametrize(("name", "data"), [case[1:] for case in NO_PASS], ids=[case[0] for case in NO_PASS])
def test_it_is_no_pass(name: str, data: bytes, tmp_path: Path) -> None:
    report = scanned(tmp_path, name, data)
    assert report["outcome"] != "Pass", report["message"]


def fields(*entries: tuple[str, bytes, int]) -> bytes:
    """A type of numpy's with fields, as a pickle has it."""
    named = b"".join(b"\x8c\x01" + name.encode() for name, _, _ in entries)
    placed = b"".join(b"\x8c\x01" + name.encode() + of + b"K" + bytes([at]) + b"\x86" for name, of, at in entries)
    state = b"(K\x03\x8c\x01|N(" + named + b"t}(" + placed + b"uK\x10K\x01K\x1bt"
    return b"\x80\x04cnumpy\ndtype\n\x8c\x03V16\x89\x88\x87R" + state + b"b."


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ((("a", kind(b"O8"), 0), ("b", kind(b"u8"), 4)), "overlap"),
        ((("a", kind(b"O8"), 0), ("b", kind(b"u8"), 12)), "beyond"),
    ],
)
def test_no_number_becomes_an_object_of_numpys(entries: Any, why: str, tmp_path: Path) -> None:
    """numpy believes a pickled type, and takes a pointer from wherever it says."""
    report = scanned(tmp_path, "m.pkl", fields(*entries))
    assert (report["outcome"], why in report["message"]) == ("Inconclusive", True), report


@pytest.mark.parametrize("code", "?bBhHiIlLqQefdFDSUVmMOuc")
@pytest.mark.parametrize("digits", ["", "1", "2", "3", "4", "8", "16", "32"])
def test_a_type_has_the_size_that_numpy_gives_it(code: str, digits: str) -> None:
    stand = pickles._parse_dtype((code + digits,))
    try:
        real = np.dtype(code + digits)
    except TypeError:
        return
    if isinstance(stand, pickles.DtypeStandIn):
        assert (stand.size, stand.objects) == (real.itemsize, real.hasobject)


def plain(kinds: Any, **how: Any) -> Callable[[Path], Any]:
    return lambda folder: joblib.dump(np.zeros(3, kinds), folder / "m.joblib", **how)


PASS: list[tuple[str, Callable[[Path], Any]]] = [
    ("fields", plain([("a", "i4"), ("b", "f8", (2,)), ("c", "S3")])),
    ("aligned fields", plain(np.dtype([("a", "i1"), ("b", "i8")], align=True))),
    ("texts", plain("U7")),
    ("days", plain("M8[D]")),
    ("fields with an object", plain([("a", "O"), ("b", "i4")])),
    ("a tree", lambda folder: joblib.dump(DecisionTreeClassifier().fit([[0], [1]], [0, 1]), folder / "m.joblib")),
    ("many arrays", lambda folder: joblib.dump([np.ones(9) for _ in range(200)], folder / "m.joblib")),
    ("bytes that grow", lambda folder: (folder / "m.pkl").write_bytes(pickle.dumps(bytearray(b"abc"), 5))),
    (
        "fields in numpy's own file",
        lambda folder: np.save(folder / "a.npy", np.zeros(2, [("a", "<i4"), ("b", "<f8", 2)])),
    ),
    ("members written as a stream", lambda folder: (folder / "m.keras").write_bytes(streamed())),
    (
        "a layer of Keras'",
        lambda folder: (folder / "m.keras").write_bytes(
            keras(module="keras.layers", class_name="Dense", config={"activation": "relu"}, registered_name=None)
        ),
    ),
    ("a graph", lambda folder: (folder / "saved_model.pb").write_bytes(graph(b"MatMul") + graph(b"SaveV2"))),
    ("a text with other letters", lambda folder: (folder / "words.txt").write_text("größe\tüber\r\n")),
    ("YAML with its own tags", lambda folder: (folder / "c.yaml").write_text("a: !!str 1\nb: ! x\nc: !!binary aGk=\n")),
]


def streamed() -> bytes:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: Any) -> int:
            raise io.UnsupportedOperation

        def tell(self) -> int:
            raise io.UnsupportedOperation

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("metadata.json", '{"keras_version": "3.5.0"}')
    return pipe.getvalue()


@pytest.mark.parametrize("put", [case[1] for case in PASS], ids=[case[0] for case in PASS])
def test_files_written_by_libraries_pass(put: Callable[[Path], Any], tmp_path: Path) -> None:
    put(tmp_path)
    report = ArtifactScan(AllowList(("sklearn.*",))).scan_folder(tmp_path).build_report()
    assert report["outcome"] == "Pass", report["message"]


@pytest.mark.parametrize("place", [b"r\xff\xff\xff\x7f", b"p2147483647\n", b"p 99999999\0\n"])
def test_no_place_of_a_memo_costs_gigabytes(place: bytes) -> None:
    for reader in readers.READERS:
        assert "memo" in readers.load_with_reader(io.BytesIO(b"N" + place + b"."), reader, [])


def test_a_pickle_begins_only_so_many_arrays_at_once(tmp_path: Path) -> None:
    """Each operation checks all of them."""
    begun = b"\x80\x04cjoblib.numpy_pickle\nNumpyArrayWrapper\nq\0" + b")\x81h\0" * 1000
    report = scanned(tmp_path, "m.pkl", begun + b".")
    assert (report["outcome"], "open at once" in report["message"]) == ("Inconclusive", True), report
