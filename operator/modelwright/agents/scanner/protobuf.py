"""Walks the wire format of protocol buffers for the operators and files that a graph names.

All other fields are skipped, so that gigabytes of weights cost only their reading.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

MAX_NODES = 1_000_000
_MAX_NAME_BYTES = 4096
_MAX_DESCRIPTION_BYTES = 16 << 20

ONNX_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training", "com.microsoft"})
"""Domains of operators that the runtime contains. Operators of other domains are code that the runtime must be
given."""
_ACTING_OPERATOR = re.compile(
    r"PyFunc|File|(?<!TensorArray)Write|Save|Load|Snapshot|Summary|Reader|Record|Dataset|Debug|PrintV2|OpaqueCall"
    r"|Rpc|Remote|Gcs|BigQuery|BigTable|LMDB|Checkpoint|ConfigureDistributed|XlaHost|XlaSend|XlaRecv"
)
_SAVING_OPERATORS = frozenset({"SaveV2", "MergeV2Checkpoints", "ShardedFilename", "ShardedFilespec"})
"""Every SavedModel has these, for its own variables."""
TABLE_OPERATORS = frozenset(
    {
        "InitializeTableFromTextFile",
        "InitializeTableFromTextFileV2",
        "GenerateVocabRemapping",
        "FixedUnigramCandidateSampler",
    }
)
"""Operators that read words from a file beside the model, or from any other."""
PROGRAM_OPERATORS = frozenset({"XlaCallModule", "XlaCustomCall", "XlaCustomCallV2", "TRTEngineOp"})
"""Operators that contain, or call, a program in another language."""


def has_side_effects(operator: str) -> bool:
    """Return whether an operator of TensorFlow reads or writes files, uses the network, or calls Python."""
    return operator not in _SAVING_OPERATORS and _ACTING_OPERATOR.search(operator) is not None


def is_builtin_operator(operator: str) -> bool:
    """Return whether an operator of ONNX, as domain:name, is part of the runtime and has no other meaning."""
    domain, _, name = operator.partition(":")
    return domain in ONNX_DOMAINS and name not in ("EPContext", "PyOp")


# Fields with nested messages, and the strings that are collected, by message.
_TENSORFLOW_SCHEMA = {
    "saved": {2: "meta"},
    "meta": {2: "graph", 7: "objects"},
    "graph": {1: "node", 2: "library"},
    "library": {1: "function"},
    "function": {3: "node"},
    "node": {2: "op"},
    "objects": {1: "object"},
    "object": {4: "user"},
    "user": {3: "described"},
}
_KERAS_SCHEMA = {"saved": {1: "user"}, "user": {5: "described"}}
_ONNX_SCHEMA = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {4: "op", 7: "domain", 5: "attribute"},
    "sparse": {1: "tensor", 2: "tensor"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "tensor": {13: "external"},
    "external": {1: "key", 2: "value"},
}
_SENTENCEPIECE_SCHEMA = {"model": {1: "piece"}, "piece": {1: "op"}}
_STRING_LIMITS = {
    "op": _MAX_NAME_BYTES,
    "domain": _MAX_NAME_BYTES,
    "key": _MAX_NAME_BYTES,
    "value": _MAX_NAME_BYTES,
    "described": _MAX_DESCRIPTION_BYTES,
}
"""Strings, with the most bytes of each."""
_COLLECTED_MESSAGES = ("node", "external", "user", "piece")
"""Messages whose strings are collected."""


class ProtobufError(ValueError):
    """The bytes are not a message."""


@dataclass(frozen=True, slots=True)
class GraphNames:
    """Names in a graph.

    `operators`: of TensorFlow by name, of ONNX as domain:name. `locations`: files that hold its tensors.
    `descriptions`: Keras' descriptions of its layers, as JSON.
    """

    operators: frozenset[str]
    locations: frozenset[str] = frozenset()
    descriptions: tuple[str, ...] = ()


def read_tensorflow_graph(file: BinaryIO) -> GraphNames:
    """Read the names in a SavedModel. Raises ProtobufError."""
    messages = _collect_messages(file, _TENSORFLOW_SCHEMA, "saved")
    operators = frozenset(texts.get("op", "") for kind, texts in messages if kind == "node")
    return GraphNames(operators, descriptions=_list_descriptions(messages))


def read_keras_metadata(file: BinaryIO) -> tuple[str, ...]:
    """Read the descriptions of layers in a `keras_metadata.pb`, as JSON. Raises ProtobufError."""
    return _list_descriptions(_collect_messages(file, _KERAS_SCHEMA, "saved"))


def is_sentencepiece(file: BinaryIO) -> bool:
    """Return whether the file is a vocabulary of SentencePiece."""
    try:
        messages = _collect_messages(file, _SENTENCEPIECE_SCHEMA, "model")
    except ProtobufError:
        return False
    return bool(messages) and all("op" in texts for _, texts in messages)


def read_onnx_graph(file: BinaryIO) -> GraphNames:
    """Read the names in an ONNX model. Raises ProtobufError."""
    messages = _collect_messages(file, _ONNX_SCHEMA, "model")
    operators = (f"{texts.get('domain', '')}:{texts.get('op', '')}" for kind, texts in messages if kind == "node")
    locations = (
        texts.get("value", "") for kind, texts in messages if kind == "external" and texts.get("key") == "location"
    )
    return GraphNames(frozenset(operators), frozenset(locations))


def _list_descriptions(messages: list[tuple[str, dict[str, str]]]) -> tuple[str, ...]:
    return tuple(text for kind, texts in messages if kind == "user" and (text := texts.get("described", "").strip()))


def _collect_messages(file: BinaryIO, schema: dict[str, dict[int, str]], root: str) -> list[tuple[str, dict[str, str]]]:
    end = file.seek(0, 2)
    file.seek(0)
    messages: list[tuple[str, dict[str, str]]] = []
    _walk_message(file, end, schema, root, messages, 0)
    return messages


def _walk_message(
    file: BinaryIO,
    end: int,
    schema: dict[str, dict[int, str]],
    kind: str,
    messages: list[tuple[str, dict[str, str]]],
    depth: int,
) -> None:
    if depth > 64:
        raise ProtobufError("it is nested too deep")
    texts: dict[str, str] = {}
    if kind in _COLLECTED_MESSAGES:
        if len(messages) >= MAX_NODES:
            raise ProtobufError(f"it has more than {MAX_NODES} operators and tensors")
        messages.append((kind, texts))
    while file.tell() < end:
        key = _read_varint(file)
        field, wire = key >> 3, key & 7
        if not 0 < field < 1 << 29:
            # Readers differ: some reject it, others drop the upper bits, which makes it another field.
            raise ProtobufError("a field has no number")
        if wire == 2:
            size = _read_varint(file)
            after = file.tell() + size
            if after > end:
                raise ProtobufError("a part is longer than the whole")
            inner = schema.get(kind, {}).get(field)
            if inner in _STRING_LIMITS:
                if size > _STRING_LIMITS[inner]:
                    raise ProtobufError("a name is too long")
                texts[inner] = file.read(size).decode("utf-8", "replace")
            elif inner is not None:
                _walk_message(file, after, schema, inner, messages, depth + 1)
            file.seek(after)
        else:
            _SCALAR_READERS.get(wire, _reject_wire_type)(file)
    if file.tell() != end:
        raise ProtobufError("a part ends beyond the whole")


def _read_varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ProtobufError("it ends in the middle")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ProtobufError("a number is too long")


def _reject_wire_type(_: BinaryIO) -> None:
    raise ProtobufError("it is no message of protocol buffers")


_SCALAR_READERS: dict[int, Callable[[BinaryIO], object]] = {
    0: _read_varint,
    1: lambda file: file.seek(8, 1),
    5: lambda file: file.seek(4, 1),
}
