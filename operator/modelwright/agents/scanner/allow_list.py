"""Permitted content of an artifact: names that a pickle may import, and files that are accepted unread."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

_TORCH_NAMES = (
    "DoubleStorage FloatStorage HalfStorage BFloat16Storage LongStorage IntStorage ShortStorage CharStorage "
    "ByteStorage BoolStorage Size device float16 bfloat16 float32 float64 int8 int16 int32 int64 uint8 bool"
)
_NUMPY_NAMES = (
    "ndarray dtype bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 "
    "complex128 str_ bytes_ datetime64 timedelta64"
)
_BUILTIN_NAMES = (
    "bool int float complex str bytes bytearray list tuple dict set frozenset slice range object NoneType Ellipsis"
)
_ARRAY_BUILDERS = "_reconstruct scalar"
_RANDOM_BUILDERS = "__randomstate_ctor __bit_generator_ctor __generator_ctor"
_RANDOM_GENERATORS = ("mt19937 MT19937", "pcg64 PCG64", "philox Philox", "sfc64 SFC64")


def _qualify_names(module: str, listed: str) -> set[str]:
    return {f"{module}.{name}" for name in listed.split()}


SAFE_GLOBALS = frozenset(
    _qualify_names("builtins", _BUILTIN_NAMES)
    | _qualify_names("collections", "OrderedDict defaultdict Counter deque")
    | _qualify_names("datetime", "date datetime time timedelta timezone")
    | {"decimal.Decimal", "fractions.Fraction", "uuid.UUID", "copyreg._reconstructor", "_codecs.encode"}
    | _qualify_names("numpy", _NUMPY_NAMES)
    | _qualify_names("numpy.core.multiarray", _ARRAY_BUILDERS)
    | _qualify_names("numpy._core.multiarray", _ARRAY_BUILDERS)
    | _qualify_names("numpy.core.numeric", "_frombuffer")
    | _qualify_names("numpy._core.numeric", "_frombuffer")
    | _qualify_names("numpy.random._pickle", _RANDOM_BUILDERS)
    | {f"numpy.random._{entry.replace(' ', '.')}" for entry in _RANDOM_GENERATORS}
    | {"joblib.numpy_pickle.NumpyArrayWrapper"}
    | {
        f"scipy.sparse.{new}{kind}.{kind}_{what}"
        for kind in ("csr", "csc", "coo")
        for new in ("", "_")
        for what in ("matrix", "array")
    }
    | _qualify_names("torch", _TORCH_NAMES)
    | _qualify_names("torch._utils", "_rebuild_tensor_v2 _rebuild_parameter")
    | {"torch.nn.parameter.Parameter", "torch.serialization._get_layout"}
)
"""Names that only build values - containers, numbers, arrays, tensors - and run none of the artifact's code."""

SAFE_IMPLEMENTATIONS = (
    "mlserver_sklearn.SKLearnModel",
    "mlserver_xgboost.XGBoostModel",
    "mlserver_lightgbm.LightGBMModel",
)
"""Classes of MLServer, which the shipped runtime names itself."""

_ACTING_CLASSES = frozenset(
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
"""Classes of Python and joblib that modules import, and that write, delete or run something on creation:
sklearn.datasets._covtype.GzipFile truncates a file. A legitimate pickle names none of them by another module."""

_CLASS_NAME = re.compile(r"_?[A-Z][A-Za-z0-9_]*\Z")


class AllowList:
    """The policy's own lists in addition to the built-in ones.

    A pattern stands for classes below a module. A function must be named in full, as must a name reached through an
    attribute or with two leading underscores.
    """

    def __init__(self, names: Iterable[str] = (), files: Iterable[str] = ()) -> None:
        patterns = tuple(names)
        self._exact = SAFE_GLOBALS | {entry for entry in patterns if not entry.endswith(".*")}
        self._modules = tuple(entry.removesuffix(".*") for entry in patterns if entry.endswith(".*"))
        self._files = tuple(files)

    def allows_global(self, module: str, name: str) -> bool:
        """Return whether a pickle may import `name` of `module`."""
        if f"{module}.{name}" in self._exact:
            return True
        if not _CLASS_NAME.match(name) or name in _ACTING_CLASSES:
            return False
        return any(module == known or module.startswith(f"{known}.") for known in self._modules)

    def allows_implementation(self, path: str) -> bool:
        """Return whether a settings file may load this class."""
        module, _, name = path.rpartition(".")
        return path in SAFE_IMPLEMENTATIONS or (bool(module) and self.allows_global(module, name))

    def allows_file(self, path: str) -> bool:
        """Return whether the file at `path`, relative to the artifact, is accepted unread."""
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in self._files)
