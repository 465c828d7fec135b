"""Reads a pickle as Python would, without importing or calling anything.

The standard library's own machine runs it, so that the names are exactly those that an import would get, in any order,
memo or encoding. Imported objects are replaced by an inert stand-in that accepts every call and returns another
stand-in. A list of opcodes is not enough: it would have to guess which of the strings before STACK_GLOBAL is the name.
"""

from __future__ import annotations

import _compat_pickle
import math
import pickle
import pickletools
import re
import struct
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

MAX_OPERATIONS = 20_000_000
MAX_TEXT_BYTES = 16 << 20
"""Most bytes of one text. Longer ones are not names, and no model needs them."""
_SKIP_FROM_BYTES = 64 << 10
"""Values of at least this many bytes are skipped: they can't become a name."""


class OpaquePickleError(Exception):
    """The effect of the pickle can't be determined; the text says why."""


class StandIn:
    """Stands for an object that the pickle would have imported, or the result of calling it."""

    __slots__ = ("imported", "origin")

    def __init__(self, origin: str = "", *, imported: bool = False) -> None:
        self.origin, self.imported = origin, imported

    def __setitem__(self, key: Any, value: Any) -> None:
        """Accept an item."""

    def append(self, value: Any) -> None:
        """Accept an element."""

    def extend(self, values: Any) -> None:
        """Accept elements."""

    def add(self, value: Any) -> None:
        """Accept a member."""


class DtypeStandIn(StandIn):
    """Stands for a numpy dtype. `size`: bytes of an element; `objects`: elements are pickled."""

    __slots__ = ("kind", "objects", "size")

    def __init__(self, kind: str, size: int) -> None:
        super().__init__(_DTYPE)
        self.kind, self.size, self.objects = kind, size, kind == "O"

    def apply_state(self, state: Any) -> None:
        """Apply a state as numpy does, which trusts all of it.

        Raises OpaquePickleError if the size would differ from that of the type's name, or if bytes could be taken for
        objects.
        """
        if not isinstance(state, tuple) or len(state) not in (8, 9):
            raise OpaquePickleError("a type of numpy's has an unknown state")
        _, _, base, _, fields, size, _, flags = state[:8]
        if type(flags) is not int:
            raise OpaquePickleError("a type of numpy's has an unknown state")
        if size not in (-1, self.size) or (size == -1 and self.kind in "SUV"):
            raise OpaquePickleError("a type of numpy's has another size than its name")
        parts = [_check_subtype(base, 1, self.size)] if base is not None else []
        if isinstance(fields, dict):
            parts += [_check_subtype(entry, 0, self.size) for entry in fields.values()]
        elif fields is not None:
            raise OpaquePickleError("a type of numpy's has unknown fields")
        ends = 0
        for start, end, part in sorted(parts, key=lambda placed: placed[:2]):
            if start < ends:
                raise OpaquePickleError("a type of numpy's has fields that overlap")
            ends = end
            self.objects = self.objects or part.objects
        wrong = flags & _OBJECT_FLAGS != _OBJECT_FLAGS if self.objects else flags & ~_OTHER_FLAGS
        if wrong:
            raise OpaquePickleError("a type of numpy's has flags that do not fit it")


def _check_subtype(entry: Any, at: int, whole: int) -> tuple[int, int, DtypeStandIn]:
    """Return start and end of a part of a type, and the part. `entry`: the part with its offset, or with its shape if
    `at` is 1."""
    if not isinstance(entry, tuple) or len(entry) < 2 or not isinstance(entry[0], DtypeStandIn):
        raise OpaquePickleError("a type of numpy's has fields of unknown types")
    part, place = entry[0], entry[1]
    lengths = (place if isinstance(place, tuple) else (place,)) if at else ()
    if not all(type(number) is int and number >= 0 for number in lengths or (place,)):
        raise OpaquePickleError("a type of numpy's has fields at unknown places")
    start = 0 if at else place
    end = start + part.size * math.prod(lengths)
    if end > whole:
        raise OpaquePickleError("a type of numpy's has fields beyond its end")
    return start, end, part


class JoblibWrapper(StandIn):
    """Stands for the object that joblib writes before the bytes of an array."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        super().__init__(_WRAPPER)
        self.state: dict[Any, Any] = {}


ImportCallback = Callable[[str, str], None]
_DTYPE = "numpy.dtype"
_NDARRAY = "numpy.ndarray"
_OBJECT_FLAGS = 27
"""Flags of a type with objects: numpy always sets them, and without them reads a pointer from the bytes."""
_OTHER_FLAGS = 16 | 128 | 8
"""Flags of a type without objects: needs Python, aligned as in C, must be zeroed."""
_MAX_OPEN_WRAPPERS = 64
_MAX_DIGITS = 4000
"""Python rejects longer numbers only since 3.10.7."""
_WRAPPER = "joblib.numpy_pickle.NumpyArrayWrapper"
_WRAPPER_MEMBERS = {"subclass", "shape", "order", "dtype", "allow_mmap", "numpy_array_alignment_bytes"}
_DTYPE_NAME = re.compile(r"[<>|=]?([?bBhHiIlLqQefdFDSUVmMO]|[biufcSUVmMO](?=\d))(\d{0,9})\Z", re.ASCII)
_ITEM_BYTES = {
    "?": 1,
    "b": 1,
    "B": 1,
    "h": 2,
    "H": 2,
    "i": 4,
    "I": 4,
    "l": 8,
    "L": 8,
    "q": 8,
    "Q": 8,
    "e": 2,
    "f": 4,
    "d": 8,
    "F": 8,
    "D": 16,
    "m": 8,
    "M": 8,
    "O": 8,
}


class PickleMachine(pickle._Unpickler):
    """Runs one pickle.

    `on_import` receives each name that would be imported. `arrays`: read as joblib does. `framed`: read as Python's own
    reader does, and joblib with it: it takes a whole frame from the file at once; the reader in C does not.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO, on_import: ImportCallback, *, arrays: bool, framed: bool = True) -> None:
        super().__init__(file, encoding="latin-1")
        self._file, self._on_import, self._arrays, self._framed = file, on_import, arrays, framed
        self.has_joblib_arrays = False
        """Whether the pickle contains arrays of joblib, after which other readers continue differently."""
        self._open_wrappers: list[tuple[list[Any], int, Any]] = []
        """Wrappers on the stack with their places: only joblib's own order of operations may take them."""

    def find_class(self, module: Any, name: Any) -> StandIn:
        if isinstance(module, StandIn) or isinstance(name, StandIn):
            raise OpaquePickleError("a name of something to import is made by the pickle itself")
        if type(module) is not str or type(name) is not str:
            raise pickle.UnpicklingError("a name is no text")
        module, name = _map_to_python_3(module, name, self.proto)
        self._on_import(module, name)
        if name.rpartition(".")[2] == "NumpyArrayWrapper":
            self.has_joblib_arrays = True
            return StandIn(_WRAPPER, imported=True)
        return StandIn(f"{module}.{name}", imported=True)

    def persistent_load(self, pid: Any) -> StandIn:  # noqa: ARG002
        return StandIn()

    def get_extension(self, code: int) -> None:
        raise OpaquePickleError(f"it names what to import by the number {code} of a registry")

    def load(self) -> None:
        """Run to STOP. Raises OpaquePickleError, or the machine's own error for an invalid pickle."""
        self._plain = plain = _FrameReader(self._file, framed=self._framed)
        self.read, self.readinto, self.readline = plain.read, plain.readinto, plain.readline
        self.metastack: list[Any] = []
        self.stack: list[Any] = []
        self.append = self.stack.append
        self.proto = 0
        for _ in range(MAX_OPERATIONS):
            try:
                self.dispatch[self.read(1)[0]](self)
            except pickle._Stop:  # type: ignore[attr-defined]
                plain.require_no_frame("it ends")
                return
            if self.has_joblib_arrays and self._arrays:
                self._track_wrappers()
        raise OpaquePickleError(f"it has more than {MAX_OPERATIONS} operations")

    def _track_wrappers(self) -> None:
        """Verify that wrappers are only where joblib puts them: elsewhere its reader might take bytes of an array where
        this one does not."""
        for stack, index, wrapper in self._open_wrappers:
            if len(stack) <= index or stack[index] is not wrapper:
                raise OpaquePickleError("an array of joblib's is not where joblib puts it")
        top = self.stack[-1] if self.stack else None
        if isinstance(top, StandIn) and top.origin == _WRAPPER:
            place = (self.stack, len(self.stack) - 1, top)
            if not any(
                wrapper is top and index == place[1] and stack is place[0]
                for stack, index, wrapper in self._open_wrappers
            ):
                if isinstance(top, JoblibWrapper) or any(wrapper is top for _, _, wrapper in self._open_wrappers):
                    raise OpaquePickleError("an array of joblib's is used twice")
                if len(self._open_wrappers) >= _MAX_OPEN_WRAPPERS:
                    raise OpaquePickleError(f"more than {_MAX_OPEN_WRAPPERS} arrays of joblib's are open at once")
                self._open_wrappers.append(place)

    def _release_wrapper(self, wrapper: Any) -> None:
        self._open_wrappers = [entry for entry in self._open_wrappers if entry[2] is not wrapper]

    def _call_result(self, callee: Any, arguments: Any) -> StandIn:
        if not isinstance(callee, StandIn):
            raise pickle.UnpicklingError("what is called is no function")
        if callee.origin == _DTYPE and callee.imported:
            return _parse_dtype(arguments)
        if callee.origin == _NDARRAY and callee.imported:
            raise OpaquePickleError(
                "it makes an array of numpy's over bytes of its own, which may be taken for objects"
            )
        if callee.origin == _WRAPPER and self._arrays:
            raise OpaquePickleError("an array of joblib's is not made as joblib makes it")
        return StandIn(callee.origin)

    def _instantiate(self, klass: Any, args: Any) -> None:
        self.append(self._call_result(klass, args))

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._call_result(self.stack[-1], arguments)

    def load_newobj(self) -> None:
        arguments = self.stack.pop()
        self._create_object(arguments)

    def load_newobj_ex(self) -> None:
        named, arguments = self.stack.pop(), self.stack.pop()
        self._create_object(arguments if named == {} else None)

    def _create_object(self, arguments: Any) -> None:
        callee = self.stack.pop()
        if not (isinstance(callee, StandIn) and callee.origin == _WRAPPER and callee.imported and self._arrays):
            self.append(self._call_result(callee, arguments))
            return
        if arguments != ():
            raise OpaquePickleError("an array of joblib's is not made as joblib makes it")
        self._release_wrapper(callee)
        made = JoblibWrapper()
        self.append(made)
        self._open_wrappers.append((self.stack, len(self.stack) - 1, made))

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, StandIn):
            # Without a state, Python accepts this.
            raise OpaquePickleError("what gets a state is no object")
        if target.imported:
            raise OpaquePickleError("it changes what it has imported")
        if isinstance(target, DtypeStandIn):
            target.apply_state(state)
        elif target.origin == _DTYPE:
            raise OpaquePickleError("a type of numpy's has a state that does not fit how it is made")
        elif isinstance(target, JoblibWrapper):
            self._release_wrapper(target)
            if not isinstance(state, dict) or not state.keys() <= _WRAPPER_MEMBERS:
                raise OpaquePickleError("an array of joblib's has unknown members")
            self._plain.require_no_frame("an array of joblib's begins")
            _skip_array(self._file, state, self._on_import)
            self.stack[-1] = StandIn("numpy.ndarray")

    def load_stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.append(self.find_class(module, name))

    def load_frame(self) -> None:
        self._plain.begin_frame(self.read_number("<Q"))

    def load_long_line(self) -> None:
        """Load INT and LONG."""
        line = self.readline()
        if len(line) > _MAX_DIGITS:
            raise OpaquePickleError(f"it has a number of {len(line)} characters")
        if line[:-1] in (b"00", b"01"):
            self.append(line[:-1] == b"01")
            return
        self.append(int(line[:-1].removesuffix(b"L"), 0))

    def load_proto(self) -> None:
        self.proto = self.read(1)[0]
        if self.proto > pickle.HIGHEST_PROTOCOL:
            raise pickle.UnpicklingError(f"it is of protocol {self.proto}")

    def load_next_buffer(self) -> None:
        self.append(StandIn())

    def load_readonly_buffer(self) -> None:
        """Has no visible effect."""

    def load_sized_bytes(self, size: int, text: bool) -> None:
        """Load `size` bytes, or a text of an old protocol; long ones are skipped."""
        if size < 0:
            raise pickle.UnpicklingError("a length is below zero")
        if size >= _SKIP_FROM_BYTES:
            self._plain.count_bytes(size)
            _skip_bytes(self._file, size)
            self.append(StandIn())
            return
        data = self.read(size)
        self.append(data.decode("latin-1") if text else data)

    def load_bytearray8(self) -> None:
        self.load_sized_bytes(self.read_number("<Q"), False)
        if isinstance(self.stack[-1], bytes):
            self.stack[-1] = bytearray(self.stack[-1])

    def load_sized_text(self, size: int) -> None:
        """Load a text of `size` bytes."""
        if size > MAX_TEXT_BYTES:
            raise OpaquePickleError(f"it has a text of {size} bytes")
        self.append(str(self.read(size), "utf-8", "surrogatepass"))

    def read_number(self, form: str) -> int:
        """Read an integer of struct's format `form`."""
        return int(struct.unpack(form, self.read(struct.calcsize(form)))[0])


class _FrameReader:
    """Reads the file unbuffered.

    Frames say how much a reader reads ahead; where that makes a difference, the pickle is opaque.
    """

    def __init__(self, file: BinaryIO, *, framed: bool) -> None:
        self._file, self._framed, self._left = file, framed, 0

    def begin_frame(self, size: int) -> None:
        """Start a frame of `size` bytes."""
        self.require_no_frame("a frame begins")
        self._left = size

    def require_no_frame(self, event: str) -> None:
        """Raise OpaquePickleError inside a frame."""
        if self._framed and self._left:
            raise OpaquePickleError(f"{event} within a frame")

    def count_bytes(self, size: int) -> None:
        """Count bytes read of the frame."""
        if self._framed and size > self._left > 0:
            raise OpaquePickleError("a value goes beyond its frame")
        self._left = max(0, self._left - size)

    def read(self, size: int) -> bytes:
        self.count_bytes(size)
        data = self._file.read(size)
        if len(data) < size:
            raise EOFError("it ends in the middle")
        return data

    def readinto(self, buffer: bytearray) -> int:
        buffer[:] = self.read(len(buffer))
        return len(buffer)

    def readline(self) -> bytes:
        line = self._file.readline(MAX_TEXT_BYTES)
        if not line.endswith(b"\n"):
            if len(line) == MAX_TEXT_BYTES:
                raise OpaquePickleError(f"it has a line of more than {MAX_TEXT_BYTES} bytes")
            raise EOFError("it ends in the middle")
        self.count_bytes(len(line))
        return line


def _install_opcodes() -> None:
    op = {entry.name: ord(entry.code) for entry in pickletools.opcodes}
    table = PickleMachine.dispatch
    for name in (
        "REDUCE",
        "BUILD",
        "NEWOBJ",
        "NEWOBJ_EX",
        "FRAME",
        "PROTO",
        "STACK_GLOBAL",
        "NEXT_BUFFER",
        "READONLY_BUFFER",
        "BYTEARRAY8",
    ):
        table[op[name]] = getattr(PickleMachine, f"load_{name.lower()}")
    table[op["BINSTRING"]] = lambda machine: machine.load_sized_bytes(machine.read_number("<i"), True)
    table[op["BINBYTES"]] = lambda machine: machine.load_sized_bytes(machine.read_number("<I"), False)
    table[op["BINBYTES8"]] = lambda machine: machine.load_sized_bytes(machine.read_number("<Q"), False)
    table[op["INT"]] = table[op["LONG"]] = PickleMachine.load_long_line
    table[op["BINUNICODE"]] = lambda machine: machine.load_sized_text(machine.read_number("<I"))
    table[op["BINUNICODE8"]] = lambda machine: machine.load_sized_text(machine.read_number("<Q"))


def _map_to_python_3(module: str, name: str, protocol: int) -> tuple[str, str]:
    """Return the names that Python 3 imports: old protocols use the names of Python 2."""
    if protocol >= 3:
        return module, name
    renamed = _compat_pickle.NAME_MAPPING.get((module, name))
    return renamed if renamed is not None else (_compat_pickle.IMPORT_MAPPING.get(module, module), name)


def _parse_dtype(arguments: Any) -> StandIn:
    text = arguments[0] if isinstance(arguments, tuple) and arguments else None
    match = _DTYPE_NAME.match(text) if isinstance(text, str) else None
    if match is None:
        return StandIn(_DTYPE)
    kind, digits = match.groups()
    if digits and kind not in "biufcSUVmMO":
        return StandIn(_DTYPE)
    size = (int(digits) * (4 if kind == "U" else 1)) if digits else _ITEM_BYTES.get(kind, 0)
    return DtypeStandIn(kind, 8 if kind in "mMO" else size)


def _skip_bytes(file: BinaryIO, size: int) -> None:
    while size:
        data = file.read(min(size, 1 << 20))
        if not data:
            raise EOFError("it ends in the middle")
        size -= len(data)


def _skip_array(file: BinaryIO, state: dict[Any, Any], on_import: ImportCallback) -> None:
    """Skip the bytes of an array, which joblib writes between two operations. An array of objects is a pickle there."""
    shape, kind = state.get("shape"), state.get("dtype")
    if not isinstance(shape, tuple) or not all(type(length) is int and length >= 0 for length in shape):
        raise OpaquePickleError("an array of joblib's has no known shape")
    if not isinstance(kind, DtypeStandIn):
        raise OpaquePickleError("an array of joblib's has no known type")
    if kind.objects:
        PickleMachine(file, on_import, arrays=False).load()
        return
    size = math.prod(shape) * kind.size
    if size > 1 << 50:
        raise OpaquePickleError("an array of joblib's is larger than can be")
    aligned = state.get("numpy_array_alignment_bytes")
    if aligned is not None and type(aligned) is not int:
        raise OpaquePickleError("an array of joblib's has an unknown place")
    if aligned is not None:
        padding = file.read(1)
        if not padding:
            raise EOFError("it ends in the middle")
        _skip_bytes(file, padding[0])
    _skip_bytes(file, size)


_install_opcodes()
