"""Walks the wire format of protocol buffers for the operators that a graph uses. What isn't asked for is passed over,
so that gigabytes of weights cost nothing but reading."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import BinaryIO

MOST_NODES = 1_000_000
_MOST_NAME = 4096

ONNX = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training", "com.microsoft"})
"""Domains of operators that come with the runtime. Another's operators are code that the runtime must be given."""
_ACTS = re.compile(
    r"PyFunc|File|(?<!TensorArray)Write|Save|Load|Snapshot|Summary|Reader|Record|Dataset|Debug|PrintV2|OpaqueCall"
    r"|Rpc|Remote|Gcs|BigQuery|BigTable|LMDB|Checkpoint|ConfigureDistributed|XlaHost|XlaSend|XlaRecv"
)
_ACTS_NOT = frozenset({"SaveV2", "MergeV2Checkpoints", "ShardedFilename", "ShardedFilespec"})
"""Every SavedModel has these, for its own variables."""
TABLES = frozenset({"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"})
"""Read words from a file beside the model, or from any other."""


def acts(operator: str) -> bool:
    """Whether an operator of TensorFlow's reads or writes files, speaks to others, or calls Python."""
    return operator not in _ACTS_NOT and _ACTS.search(operator) is not None


def is_known(operator: str) -> bool:
    """Whether an operator of ONNX, as domain:name, comes with the runtime and stands for nothing else."""
    domain, _, name = operator.partition(":")
    return domain in ONNX and name not in ("EPContext", "PyOp")


# Fields that hold further messages, and the strings that are told, by message.
_TF = {
    "saved": {2: "meta"}, "meta": {2: "graph"}, "graph": {1: "node", 2: "library"}, "library": {1: "function"},
    "function": {3: "node"}, "node": {2: "op"},
}  # fmt: skip
_ONNX = {
    "model": {7: "graph", 25: "function"}, "graph": {1: "node"}, "function": {7: "node"},
    "node": {4: "op", 7: "domain", 5: "attribute"}, "attribute": {6: "graph", 11: "graph"},
}  # fmt: skip
_TEXTS = ("op", "domain")


class Malformed(ValueError):
    """The bytes are no message."""


def tensorflow_operators(file: BinaryIO) -> frozenset[str]:
    """The operators of a SavedModel. Raises Malformed."""
    return frozenset(texts.get("op", "") for texts in _nodes(file, _TF, "saved"))


def onnx_operators(file: BinaryIO) -> frozenset[str]:
    """The operators of an ONNX model, as domain:name. Raises Malformed."""
    return frozenset(f"{texts.get('domain', '')}:{texts.get('op', '')}" for texts in _nodes(file, _ONNX, "model"))


def _nodes(file: BinaryIO, schema: dict[str, dict[int, str]], root: str) -> list[dict[str, str]]:
    end = file.seek(0, 2)
    file.seek(0)
    found: list[dict[str, str]] = []
    _message(file, end, schema, root, found, 0)
    return found


def _message(
    file: BinaryIO, end: int, schema: dict[str, dict[int, str]], kind: str, found: list[dict[str, str]], depth: int
) -> None:
    if depth > 64:
        raise Malformed("it is nested too deep")
    texts: dict[str, str] = {}
    if kind == "node":
        if len(found) >= MOST_NODES:
            raise Malformed(f"it has more than {MOST_NODES} operators")
        found.append(texts)
    while file.tell() < end:
        key = _varint(file)
        field, wire = key >> 3, key & 7
        if not 0 < field < 1 << 29:
            # Readers differ in whether they refuse it or drop the upper bits, which makes it another field.
            raise Malformed("a field has no number")
        if wire == 2:
            size = _varint(file)
            after = file.tell() + size
            if after > end:
                raise Malformed("a part is longer than the whole")
            inner = schema.get(kind, {}).get(field)
            if inner in _TEXTS:
                if size > _MOST_NAME:
                    raise Malformed("a name is too long")
                texts[inner] = file.read(size).decode("utf-8", "replace")
            elif inner is not None:
                _message(file, after, schema, inner, found, depth + 1)
            file.seek(after)
        else:
            _SCALARS.get(wire, _refuse)(file)
    if file.tell() != end:
        raise Malformed("a part ends beyond the whole")


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise Malformed("it ends in the middle")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise Malformed("a number is too long")


def _refuse(_: BinaryIO) -> None:
    raise Malformed("it is no message of protocol buffers")


_SCALARS: dict[int, Callable[[BinaryIO], object]] = {
    0: _varint,
    1: lambda file: file.seek(8, 1),
    5: lambda file: file.seek(4, 1),
}
