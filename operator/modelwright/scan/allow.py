"""What may be in an artifact: names that a pickle imports, and files that are let through unread."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

_TORCH = (
    "DoubleStorage FloatStorage HalfStorage BFloat16Storage LongStorage IntStorage ShortStorage CharStorage "
    "ByteStorage BoolStorage Size device float16 bfloat16 float32 float64 int8 int16 int32 int64 uint8 bool"
)
_NUMPY = (
    "ndarray dtype bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 "
    "complex128 str_ bytes_ datetime64 timedelta64"
)
_BUILTINS = (
    "bool int float complex str bytes bytearray list tuple dict set frozenset slice range object NoneType Ellipsis"
)
_ARRAYS = "_reconstruct scalar"
_STATES = "__randomstate_ctor __bit_generator_ctor __generator_ctor"
_GENERATORS = ("mt19937 MT19937", "pcg64 PCG64", "philox Philox", "sfc64 SFC64")


def _of(module: str, listed: str) -> set[str]:
    return {f"{module}.{name}" for name in listed.split()}


KNOWN = frozenset(
    _of("builtins", _BUILTINS)
    | _of("collections", "OrderedDict defaultdict Counter deque")
    | _of("datetime", "date datetime time timedelta timezone")
    | {"decimal.Decimal", "fractions.Fraction", "uuid.UUID", "copyreg._reconstructor", "_codecs.encode"}
    | _of("numpy", _NUMPY)
    | _of("numpy.core.multiarray", _ARRAYS)
    | _of("numpy._core.multiarray", _ARRAYS)
    | _of("numpy.core.numeric", "_frombuffer")
    | _of("numpy._core.numeric", "_frombuffer")
    | _of("numpy.random._pickle", _STATES)
    | {f"numpy.random._{entry.replace(' ', '.')}" for entry in _GENERATORS}
    | {"joblib.numpy_pickle.NumpyArrayWrapper"}
    | {f"scipy.sparse.{new}{kind}.{kind}_{what}"
       for kind in ("csr", "csc", "coo") for new in ("", "_") for what in ("matrix", "array")}
    | _of("torch", _TORCH)
    | _of("torch._utils", "_rebuild_tensor_v2 _rebuild_parameter")
    | {"torch.nn.parameter.Parameter", "torch.serialization._get_layout"}
)  # fmt: skip
"""Names that build values and run nothing of the artifact's: containers, numbers, arrays, tensors."""

IMPLEMENTATIONS = (
    "mlserver_sklearn.SKLearnModel",
    "mlserver_xgboost.XGBoostModel",
    "mlserver_lightgbm.LightGBMModel",
)
"""Of MLServer, which the shipped runtime names itself."""

_BORROWED = frozenset(
    [
        "GzipFile",
        "BZ2File",
        "LZMAFile",
        "ZipFile",
        "TarFile",
        "FileIO",
        "NamedTemporaryFile",
        "TemporaryFile",
        "SpooledTemporaryFile",
        "TemporaryDirectory",
        "Path",
        "PosixPath",
        "Popen",
        "Thread",
        "Process",
        "Pool",
        "ThreadPool",
        "ThreadPoolExecutor",
        "ProcessPoolExecutor",
        "Timer",
        "MethodType",
        "ModuleType",
        "FunctionType",
        "LambdaType",
        "CodeType",
        "Memory",
        "Parallel",
        "Request",
        "FileHandler",
        "Shelf",
        "CDLL",
        "PyDLL",
        "SourceFileLoader",
        "ExtensionFileLoader",
        "Template",
        "Connection",
    ]
)
"""Classes of Python's and joblib's that modules import, and that write, delete or run something when they are made:
sklearn.datasets._covtype.GzipFile empties a file. A pickle of one's own names none of them by another's module."""

_CLASS = re.compile(r"_?[A-Z][A-Za-z0-9_]*\Z")


class Allowed:
    """The policy's own lists beside what is known. A pattern stands for classes below a module: a function has to be
    named whole, and so has whatever is reached through an attribute or has two underscores before it."""

    def __init__(self, names: Iterable[str] = (), files: Iterable[str] = ()) -> None:
        given = tuple(names)
        self._exact = KNOWN | {entry for entry in given if not entry.endswith(".*")}
        self._modules = tuple(entry.removesuffix(".*") for entry in given if entry.endswith(".*"))
        self._files = tuple(files)

    def name(self, module: str, name: str) -> bool:
        """Whether a pickle may import `name` of `module`."""
        if f"{module}.{name}" in self._exact:
            return True
        if not _CLASS.match(name) or name in _BORROWED:
            return False
        return any(module == known or module.startswith(f"{known}.") for known in self._modules)

    def implementation(self, path: str) -> bool:
        """Whether a file of settings may have this class loaded."""
        module, _, name = path.rpartition(".")
        return path in IMPLEMENTATIONS or (bool(module) and self.name(module, name))

    def file(self, path: str) -> bool:
        """Whether the file at `path`, relative to the artifact, is let through unread."""
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in self._files)
