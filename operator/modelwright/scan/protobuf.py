"""Walks the wire format of protocol buffers for the operators and files that a graph names. What isn't asked for is
passed over, so that gigabytes of weights cost nothing but reading."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

MOST_NODES = 1_000_000
_MOST_NAME = 4096
_MOST_DESCRIBED = 16 << 20

ONNX = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training", "com.microsoft"})
"""Domains of operators that come with the runtime. Another's operators are code that the runtime must be given."""
_ACTS = re.compile(
    r"PyFunc|File|(?<!TensorArray)Write|Save|Load|Snapshot|Summary|Reader|Record|Dataset|Debug|PrintV2|OpaqueCall"
    r"|Rpc|Remote|Gcs|BigQuery|BigTable|LMDB|Checkpoint|ConfigureDistributed|XlaHost|XlaSend|XlaRecv"
)
_ACTS_NOT = frozenset({"SaveV2", "MergeV2Checkpoints", "ShardedFilename", "ShardedFilespec"})
"""Every SavedModel has these, for its own variables."""
TABLES = frozenset({
    "InitializeTableFromTextFile", "InitializeTableFromTextFileV2", "GenerateVocabRemapping",
    "FixedUnigramCandidateSampler",
})  # fmt: skip
"""Read words from a file beside the model, or from any other."""
PROGRAMS = frozenset({"XlaCallModule", "XlaCustomCall", "XlaCustomCallV2", "TRTEngineOp"})
"""Hold, or call, a program in another language."""


def acts(operator: str) -> bool:
    """Whether an operator of TensorFlow's reads or writes files, speaks to others, or calls Python."""
    return operator not in _ACTS_NOT and _ACTS.search(operator) is not None


def is_known(operator: str) -> bool:
    """Whether an operator of ONNX, as domain:name, comes with the runtime and stands for nothing else."""
    domain, _, name = operator.partition(":")
    return domain in ONNX and name not in ("EPContext", "PyOp")


# Fields that hold further messages, and the strings that are asked for, by message.
_TF = {
    "saved": {2: "meta"}, "meta": {2: "graph", 7: "objects"}, "graph": {1: "node", 2: "library"},
    "library": {1: "function"}, "function": {3: "node"}, "node": {2: "op"},
    "objects": {1: "object"}, "object": {4: "user"}, "user": {3: "described"},
}  # fmt: skip
_KERAS = {"saved": {1: "user"}, "user": {5: "described"}}
_ONNX = {
    "model": {7: "graph", 20: "training", 25: "function"}, "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"}, "function": {7: "node", 11: "attribute"},
    "node": {4: "op", 7: "domain", 5: "attribute"}, "sparse": {1: "tensor", 2: "tensor"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "tensor": {13: "external"}, "external": {1: "key", 2: "value"},
}  # fmt: skip
_TEXTS = {"op": _MOST_NAME, "domain": _MOST_NAME, "key": _MOST_NAME, "value": _MOST_NAME, "described": _MOST_DESCRIBED}
"""Strings, with the bytes that each may have."""
_KEPT = ("node", "external", "user")
"""Messages whose strings are asked for."""


class Malformed(ValueError):
    """The bytes are no message."""


@dataclass(frozen=True, slots=True)
class Graph:
    """What a graph names. `operators`: of TensorFlow by name, of ONNX as domain:name. `locations`: files that hold its
    tensors. `described`: what Keras has written about its layers, as JSON."""

    operators: frozenset[str]
    locations: frozenset[str] = frozenset()
    described: tuple[str, ...] = ()


def tensorflow_graph(file: BinaryIO) -> Graph:
    """What a SavedModel names. Raises Malformed."""
    found = _kept(file, _TF, "saved")
    operators = frozenset(texts.get("op", "") for kind, texts in found if kind == "node")
    return Graph(operators, described=_described(found))


def keras_metadata(file: BinaryIO) -> tuple[str, ...]:
    """What a `keras_metadata.pb` says of layers, as JSON. Raises Malformed."""
    return _described(_kept(file, _KERAS, "saved"))


def onnx_graph(file: BinaryIO) -> Graph:
    """What an ONNX model names. Raises Malformed."""
    found = _kept(file, _ONNX, "model")
    operators = (f"{texts.get('domain', '')}:{texts.get('op', '')}" for kind, texts in found if kind == "node")
    locations = (
        texts.get("value", "") for kind, texts in found if kind == "external" and texts.get("key") == "location"
    )
    return Graph(frozenset(operators), frozenset(locations))


def _described(found: list[tuple[str, dict[str, str]]]) -> tuple[str, ...]:
    return tuple(text for kind, texts in found if kind == "user" and (text := texts.get("described", "").strip()))


def _kept(file: BinaryIO, schema: dict[str, dict[int, str]], root: str) -> list[tuple[str, dict[str, str]]]:
    end = file.seek(0, 2)
    file.seek(0)
    found: list[tuple[str, dict[str, str]]] = []
    _message(file, end, schema, root, found, 0)
    return found


def _message(
    file: BinaryIO,
    end: int,
    schema: dict[str, dict[int, str]],
    kind: str,
    found: list[tuple[str, dict[str, str]]],
    depth: int,
) -> None:
    if depth > 64:
        raise Malformed("it is nested too deep")
    texts: dict[str, str] = {}
    if kind in _KEPT:
        if len(found) >= MOST_NODES:
            raise Malformed(f"it has more than {MOST_NODES} operators and tensors")
        found.append((kind, texts))
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
                if size > _TEXTS[inner]:
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
