"""Reads a pickle as Python would, without importing or calling anything.

The standard library's own machine runs it, so that its names are those that an import would get, whatever the order,
memo or encoding. What it would import is an inert stand-in that takes every call and gives another stand-in. A list of
opcodes is not enough: it has to guess which of the strings before STACK_GLOBAL is the name.
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

MOST_OPERATIONS = 20_000_000
MOST_TEXT = 16 << 20
"""Bytes of one text. Longer ones are no names, and no model needs them."""
_SKIPPED_FROM = 64 << 10
"""Bytes from which on a value is passed over: it can't become a name."""


class Unreadable(Exception):
    """What it does can't be told; `why` is for people."""


class Stand:
    """Stands for what the pickle would have imported, or made by calling that."""

    __slots__ = ("imported", "origin")

    def __init__(self, origin: str = "", *, imported: bool = False) -> None:
        self.origin, self.imported = origin, imported

    def __setitem__(self, key: Any, value: Any) -> None:
        """Takes an item."""

    def append(self, value: Any) -> None:
        """Takes an element."""

    def extend(self, values: Any) -> None:
        """Takes elements."""

    def add(self, value: Any) -> None:
        """Takes a member."""


class Typed(Stand):
    """Stands for a numpy dtype. `size`: bytes of an element; `objects`: elements are pickled."""

    __slots__ = ("kind", "objects", "size")

    def __init__(self, kind: str, size: int) -> None:
        super().__init__(_DTYPE)
        self.kind, self.size, self.objects = kind, size, kind == "O"

    def build(self, state: Any) -> None:
        """Takes a state as numpy's does. Raises Unreadable when another size than that of its name would follow."""
        if not isinstance(state, tuple) or len(state) < 6:
            raise Unreadable("a type of numpy's has an unknown state")
        _, _, base, _, fields, size = state[:6]
        if size not in (-1, self.size) or (size == -1 and self.kind in "SUV"):
            raise Unreadable("a type of numpy's has another size than its name")
        parts = [base[0]] if isinstance(base, tuple) and base else []
        if isinstance(fields, dict):
            parts += [entry[0] if isinstance(entry, tuple) and entry else None for entry in fields.values()]
        elif fields is not None:
            raise Unreadable("a type of numpy's has unknown fields")
        if not all(isinstance(part, Typed) for part in parts):
            raise Unreadable("a type of numpy's has fields of unknown types")
        self.objects = self.objects or any(part.objects for part in parts)


class Wrapper(Stand):
    """Stands for what joblib writes before the bytes of an array."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        super().__init__(_WRAPPER)
        self.state: dict[Any, Any] = {}


Seen = Callable[[str, str], None]
_DTYPE = "numpy.dtype"
_WRAPPER = "joblib.numpy_pickle.NumpyArrayWrapper"
_MEMBERS = {"subclass", "shape", "order", "dtype", "allow_mmap", "numpy_array_alignment_bytes"}
_TYPE = re.compile(r"[<>|=]?([?bBhHiIlLqQefdFDSUVmMO]|[biufcSUVmMO])(\d{0,9})\Z")
_SIZES = {
    "?": 1, "b": 1, "B": 1, "h": 2, "H": 2, "i": 4, "I": 4, "l": 8, "L": 8, "q": 8, "Q": 8, "e": 2, "f": 4, "d": 8,
    "F": 8, "D": 16, "m": 8, "M": 8, "O": 8,
}  # fmt: skip


class Machine(pickle._Unpickler):
    """One pickle. `seen` gets each name that would be imported; `arrays`: as joblib reads it."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO, seen: Seen, *, arrays: bool) -> None:
        super().__init__(file, encoding="latin-1")
        self._file, self._seen, self._arrays = file, seen, arrays
        self.wrapped = False
        """Whether something of joblib's is in it, after which other readers go on differently."""
        self._held: list[tuple[list[Any], int, Any]] = []
        """Wrappers on the stack, with their places: nothing but joblib's own order of operations may take them."""

    def find_class(self, module: Any, name: Any) -> Stand:
        if isinstance(module, Stand) or isinstance(name, Stand):
            raise Unreadable("a name of something to import is made by the pickle itself")
        if type(module) is not str or type(name) is not str:
            raise pickle.UnpicklingError("a name is no text")
        module, name = _of_python_3(module, name, self.proto)
        self._seen(module, name)
        if name.rpartition(".")[2] == "NumpyArrayWrapper":
            self.wrapped = True
            return Stand(_WRAPPER, imported=True)
        return Stand(f"{module}.{name}", imported=True)

    def persistent_load(self, pid: Any) -> Stand:  # noqa: ARG002
        return Stand()

    def get_extension(self, code: int) -> None:
        raise Unreadable(f"it names what to import by the number {code} of a registry")

    def load(self) -> None:
        """Runs to STOP. Raises Unreadable, or whatever the machine raises for what is no pickle."""
        plain = _Plain(self._file)
        self.read, self.readinto, self.readline = plain.read, plain.readinto, plain.readline
        self.metastack: list[Any] = []
        self.stack: list[Any] = []
        self.append = self.stack.append
        self.proto = 0
        for _ in range(MOST_OPERATIONS):
            try:
                self.dispatch[self.read(1)[0]](self)
            except pickle._Stop:  # type: ignore[attr-defined]
                return
            if self.wrapped and self._arrays:
                self._hold()
        raise Unreadable(f"it has more than {MOST_OPERATIONS} operations")

    def _hold(self) -> None:
        """Sees to it that wrappers go only where joblib has them go: elsewhere its reader might take bytes of an array
        where this one doesn't."""
        for stack, index, held in self._held:
            if len(stack) <= index or stack[index] is not held:
                raise Unreadable("an array of joblib's is not where joblib puts it")
        top = self.stack[-1] if self.stack else None
        if isinstance(top, Stand) and top.origin == _WRAPPER:
            place = (self.stack, len(self.stack) - 1, top)
            if not any(held is top and index == place[1] and stack is place[0] for stack, index, held in self._held):
                if isinstance(top, Wrapper):
                    raise Unreadable("an array of joblib's is used twice")
                self._held.append(place)

    def _let_go(self, thing: Any) -> None:
        self._held = [entry for entry in self._held if entry[2] is not thing]

    def _made(self, callee: Any, arguments: Any) -> Stand:
        if not isinstance(callee, Stand):
            raise pickle.UnpicklingError("what is called is no function")
        if callee.origin == _DTYPE and callee.imported:
            return _typed(arguments)
        if callee.origin == _WRAPPER and self._arrays:
            raise Unreadable("an array of joblib's is not made as joblib makes it")
        return Stand(callee.origin)

    def _instantiate(self, klass: Any, args: Any) -> None:
        self.append(self._made(klass, args))

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._made(self.stack[-1], arguments)

    def load_newobj(self) -> None:
        arguments = self.stack.pop()
        self._new(arguments)

    def load_newobj_ex(self) -> None:
        named, arguments = self.stack.pop(), self.stack.pop()
        self._new(arguments if named == {} else None)

    def _new(self, arguments: Any) -> None:
        callee = self.stack.pop()
        if not (isinstance(callee, Stand) and callee.origin == _WRAPPER and callee.imported and self._arrays):
            self.append(self._made(callee, arguments))
            return
        if arguments != ():
            raise Unreadable("an array of joblib's is not made as joblib makes it")
        self._let_go(callee)
        made = Wrapper()
        self.append(made)
        self._held.append((self.stack, len(self.stack) - 1, made))

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Stand):
            raise pickle.UnpicklingError("what gets a state is no object")
        if target.imported:
            raise Unreadable("it changes what it has imported")
        if isinstance(target, Typed):
            target.build(state)
        elif isinstance(target, Wrapper):
            self._let_go(target)
            if not isinstance(state, dict) or not state.keys() <= _MEMBERS:
                raise Unreadable("an array of joblib's has unknown members")
            _pass_over_array(self._file, state, self._seen)
            self.stack[-1] = Stand("numpy.ndarray")

    def load_stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.append(self.find_class(module, name))

    def load_frame(self) -> None:
        self.read(8)

    def load_proto(self) -> None:
        self.proto = self.read(1)[0]
        if self.proto > pickle.HIGHEST_PROTOCOL:
            raise pickle.UnpicklingError(f"it is of protocol {self.proto}")

    def load_next_buffer(self) -> None:
        self.append(Stand())

    def load_readonly_buffer(self) -> None:
        """Changes nothing that could be seen."""

    def bytes_of(self, size: int, text: bool) -> None:
        """Bytes of this many, or an old text; long ones are passed over."""
        if size < 0:
            raise pickle.UnpicklingError("a length is below zero")
        if size >= _SKIPPED_FROM:
            _skip(self._file, size)
            self.append(Stand())
            return
        data = self.read(size)
        self.append(data.decode("latin-1") if text else data)

    def text_of(self, size: int) -> None:
        """A text of this many bytes."""
        if size > MOST_TEXT:
            raise Unreadable(f"it has a text of {size} bytes")
        self.append(str(self.read(size), "utf-8", "surrogatepass"))

    def number(self, form: str) -> int:
        """An integer of struct's `form`."""
        return int(struct.unpack(form, self.read(struct.calcsize(form)))[0])


class _Plain:
    """Reads the file as it is. Frames only say how much to read ahead."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        found = self._file.read(size)
        if len(found) < size:
            raise EOFError("it ends in the middle")
        return found

    def readinto(self, buffer: bytearray) -> int:
        buffer[:] = self.read(len(buffer))
        return len(buffer)

    def readline(self) -> bytes:
        found = self._file.readline(MOST_TEXT)
        if not found.endswith(b"\n"):
            raise EOFError("it ends in the middle")
        return found


def _teach() -> None:
    op = {entry.name: ord(entry.code) for entry in pickletools.opcodes}
    table = Machine.dispatch
    for name in (
        "REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX", "FRAME", "PROTO", "STACK_GLOBAL", "NEXT_BUFFER", "READONLY_BUFFER",
    ):  # fmt: skip
        table[op[name]] = getattr(Machine, f"load_{name.lower()}")
    table[op["BINSTRING"]] = lambda machine: machine.bytes_of(machine.number("<i"), True)
    table[op["BINBYTES"]] = lambda machine: machine.bytes_of(machine.number("<I"), False)
    table[op["BINBYTES8"]] = lambda machine: machine.bytes_of(machine.number("<Q"), False)
    table[op["BYTEARRAY8"]] = lambda machine: machine.bytes_of(machine.number("<Q"), False)
    table[op["BINUNICODE"]] = lambda machine: machine.text_of(machine.number("<I"))
    table[op["BINUNICODE8"]] = lambda machine: machine.text_of(machine.number("<Q"))


def _of_python_3(module: str, name: str, protocol: int) -> tuple[str, str]:
    """As Python 3 imports it: old protocols go by the names of Python 2."""
    if protocol >= 3:
        return module, name
    renamed = _compat_pickle.NAME_MAPPING.get((module, name))
    return renamed if renamed is not None else (_compat_pickle.IMPORT_MAPPING.get(module, module), name)


def _typed(arguments: Any) -> Stand:
    text = arguments[0] if isinstance(arguments, tuple) and arguments else None
    found = _TYPE.match(text) if isinstance(text, str) else None
    if found is None:
        return Stand(_DTYPE)
    kind, digits = found.groups()
    if digits and kind not in "biufcSUVmMO":
        return Stand(_DTYPE)
    size = (int(digits) * (4 if kind == "U" else 1)) if digits else _SIZES.get(kind, 0)
    return Typed(kind, 8 if kind in "mMO" else size)


def _skip(file: BinaryIO, size: int) -> None:
    while size:
        found = file.read(min(size, 1 << 20))
        if not found:
            raise EOFError("it ends in the middle")
        size -= len(found)


def _pass_over_array(file: BinaryIO, state: dict[Any, Any], seen: Seen) -> None:
    """joblib writes the bytes of an array between two operations. An array of objects is a pickle there."""
    shape, kind = state.get("shape"), state.get("dtype")
    if not isinstance(shape, tuple) or not all(type(length) is int and length >= 0 for length in shape):
        raise Unreadable("an array of joblib's has no known shape")
    if not isinstance(kind, Typed):
        raise Unreadable("an array of joblib's has no known type")
    if kind.objects:
        Machine(file, seen, arrays=False).load()
        return
    size = math.prod(shape) * kind.size
    if size > 1 << 50:
        raise Unreadable("an array of joblib's is larger than can be")
    if state.get("numpy_array_alignment_bytes") is not None:
        padding = file.read(1)
        if not padding:
            raise EOFError("it ends in the middle")
        _skip(file, padding[0])
    _skip(file, size)


_teach()
