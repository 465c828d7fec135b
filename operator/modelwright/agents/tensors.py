"""Parses the tensors of a request or an answer of the Open Inference Protocol (V2), in JSON or with the binary tensor
extension."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from modelwright import untrusted_json

TENSOR_DOCUMENT = untrusted_json.JsonLimits(64 << 20, values=4_000_000)
"""Its bytes are bounded where it is received. Images are sent as lists of this many numbers."""
_INTEGER_CODES = {
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
}
_FLOAT_CODES = {"FP16": "e", "FP32": "f", "FP64": "d"}
FLOAT_TYPES = frozenset({*_FLOAT_CODES, "BF16"})
_LABEL_TYPES = frozenset({*_INTEGER_CODES, "BOOL", "BYTES"})

MAX_DIMENSIONS = 64

Scalar = float | int | bytes


class TensorError(ValueError):
    """The message does not follow the protocol; the text says why."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor, flattened in row-major order. Values are floats (FP*, BF16), integers (also BOOL) or bytes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[Scalar]

    @property
    def is_float(self) -> bool:
        """True for numbers, which may be close to each other; labels are equal or not."""
        return self.datatype in FLOAT_TYPES


def parse_tensors(
    body: bytes, header_length: int | None = None, part: Literal["inputs", "outputs"] = "outputs"
) -> dict[str, Tensor]:
    """Parse the outputs, or the inputs, by name.

    `header_length`: length of the JSON in bytes if binary data follows it (Inference-Header-Content-Length). Raises
    TensorError.
    """
    if header_length is not None and not 0 < header_length <= len(body):
        raise TensorError(f"Inference-Header-Content-Length is {header_length}, of {len(body)} bytes")
    try:
        document = untrusted_json.parse_json(body[:header_length], TENSOR_DOCUMENT)
        entries = document[part]
        if not isinstance(entries, list):
            raise TensorError(f"{part} is no list")
        binary = body[header_length:] if header_length is not None else b""
        tensors: dict[str, Tensor] = {}
        for entry in entries:
            tensor, binary = _parse_tensor(entry, binary)
            if tensor.name in tensors:
                raise TensorError(f"tensor {tensor.name} is there twice")
            tensors[tensor.name] = tensor
    except TensorError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, struct.error) as error:
        raise TensorError(f"{type(error).__name__}: {error}") from error
    if not tensors:
        raise TensorError(f"there are no {part}")
    return tensors


def _parse_tensor(entry: dict[str, Any], binary: bytes) -> tuple[Tensor, bytes]:
    name, datatype, shape = entry["name"], entry["datatype"], tuple(entry["shape"])
    if not isinstance(name, str):
        raise TensorError("a tensor has no name")
    if datatype not in _LABEL_TYPES and datatype not in FLOAT_TYPES:
        raise TensorError(f"tensor {name}: datatype {datatype} is not known")
    if len(shape) > MAX_DIMENSIONS or not all(isinstance(size, int) and 0 <= size < 2**63 for size in shape):
        raise TensorError(f"tensor {name}: shape {str(shape)[:100]}")
    size = (entry.get("parameters") or {}).get("binary_data_size")
    values: Sequence[Scalar]
    if size is None:
        read = _parse_float if datatype in FLOAT_TYPES else _encode_text if datatype == "BYTES" else _parse_integer
        values = [read(value) for value in _flatten_values(entry["data"], max(len(shape), 1))]
    else:
        if not isinstance(size, int) or not 0 <= size <= len(binary):
            raise TensorError(f"tensor {name}: binary_data_size is {size}, and {len(binary)} bytes are left")
        values, binary = _unpack_values(datatype, binary[:size]), binary[size:]
    if len(values) != math.prod(shape):
        raise TensorError(f"tensor {name}: shape {list(shape)} and {len(values)} values")
    return Tensor(name, datatype, shape, values), binary


def _flatten_values(data: Any, depth: int) -> Iterator[Any]:
    """Yield the values of a flat or nested list."""
    if not isinstance(data, list) or depth < 1:
        raise TensorError("data is no list as shape says")
    for value in data:
        if isinstance(value, list):
            yield from _flatten_values(value, depth - 1)
        else:
            yield value


def _parse_float(value: Any) -> float:
    # Servers that write strict JSON send null for NaN.
    if value is None:
        return math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise TensorError(f"{value!r} is no number")


def _parse_integer(value: Any) -> int:
    if (isinstance(value, int) or (isinstance(value, float) and value.is_integer())) and -(2**63) <= value < 2**64:
        return int(value)
    raise TensorError(f"{value!r} is no integer")


def _encode_text(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    raise TensorError(f"{value!r} is no text")


def _unpack_values(datatype: str, data: bytes) -> Sequence[Scalar]:
    """Decode the little-endian values of a binary tensor."""
    if datatype == "BYTES":
        return list(_split_texts(data))
    if datatype == "BF16":
        # The upper half of a single-precision number.
        halves = struct.unpack(f"<{len(data) // 2}H", data)
        return struct.unpack(f"<{len(halves)}f", struct.pack(f"<{len(halves)}I", *(half << 16 for half in halves)))
    code = "B" if datatype == "BOOL" else {**_INTEGER_CODES, **_FLOAT_CODES}[datatype]
    return struct.unpack(f"<{len(data) // struct.calcsize(f'<{code}')}{code}", data)


def _split_texts(data: bytes) -> Iterator[bytes]:
    """Yield the texts of a BYTES tensor: each is preceded by its length, four bytes."""
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + length > len(data):
            raise TensorError("a text is longer than the data")
        yield data[at : at + length]
        at += length
