"""Artifacts are read without being loaded: code is reported at any place, and unclassified content never passes.
Every payload is harmless: it asks for the working directory."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modelwright.agents.scanner.allow_list import AllowList
from modelwright.agents.scanner.artifact_scan import ArtifactScan
from modelwright.agents.scanner.command import run_scanner

Put = Callable[[Path], Any]
SKLEARN = ("sklearn.*",)


class Acts:
    """What it is pickled as calls a function when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.getcwd, ()


ACTS = pickle.dumps(Acts())
X = np.random.default_rng(1).random((60, 5))
Y = (X[:, 0] > 0.5).astype(int)
FOREST = RandomForestClassifier(5, random_state=1).fit(X, Y)
PIPELINE = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
WORDS = TfidfVectorizer().fit(["a model is code", "code is a model"])


def scan(put: Put, folder: Path, globals_: tuple[str, ...] = SKLEARN, files: tuple[str, ...] = ()) -> dict[str, Any]:
    put(folder)
    return ArtifactScan(AllowList(globals_, files)).scan_folder(folder).build_report()


def file(name: str, data: bytes | str) -> Put:
    return lambda folder: folder.joinpath(name).write_bytes(data if isinstance(data, bytes) else data.encode())


def dumped(what: Any, name: str = "model.joblib", **how: Any) -> Put:
    return lambda folder: joblib.dump(what, folder / name, **how)


def zipped(name: str, **members: bytes) -> Put:
    def put(folder: Path) -> None:
        with zipfile.ZipFile(folder / name, "w") as archive:
            for member, data in members.items():
                archive.writestr(member.replace("__", "/").replace("_DOT_", "."), data)

    return put


def in_zip(data: bytes, member: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, data)
    return buffer.getvalue()


def tarred(folder: Path) -> None:
    with tarfile.open(folder / "model.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("inner.pkl")
        entry.size = len(ACTS)
        archive.addfile(entry, io.BytesIO(ACTS))


# PUT keeps the top of the stack, not the operand before it; the last strings before STACK_GLOBAL are other ones.
MEMO = b"\x80\x04\x8c\x02os\x94\x8c\x06getcwd\x9400\x8c\x0bcollections\x8c\x0bOrderedDict00h\x00h\x01\x93)R."
CALLS = b"\x80\x04\x8c\x05numpy\x8c\x0c__builtins__\x93."
MADE_NAME = b"\x80\x04\x8c\x08builtins\x8c\x03str\x93)R\x8c\x06getcwd\x93)R."

DEEP = b"{}"
for _ in range(5):
    DEEP = in_zip(DEEP, "inner.zip")
SETTINGS = '{"implementation": "mlserver_sklearn.SKLearnModel"}'

DATA: list[tuple[str, Put]] = [
    *((f"a forest, pickled by protocol {p}", file("model.pkl", pickle.dumps(FOREST, p))) for p in range(6)),
    ("a forest of joblib's", dumped(FOREST)),
    *((f"one packed by {way}", dumped(FOREST, compress=(way, 3))) for way in ("zlib", "gzip", "bz2", "lzma", "xz")),
    ("a pipeline", dumped(PIPELINE)),
    ("words", dumped(WORDS)),
    ("arrays", lambda folder: np.savez(folder / "a.npz", a=X, b=Y)),
    ("XGBoost's JSON", file("model.json", json.dumps({"learner": {"attributes": {}}, "version": [3, 0, 0]}))),
    ("LightGBM's text", file("model.txt", "tree\nversion=v4\nnum_class=1\n")),
    ("safetensors", file("model.safetensors", (20).to_bytes(8, "little") + b'{"__metadata__":{}} ')),
    ("MLServer's own implementation", file("model-settings.json", SETTINGS)),
    ("MLflow's sklearn", file("MLmodel", "flavors:\n  python_function: {loader_module: mlflow.sklearn}\n")),
    ("Triton's onnxruntime", file("config.pbtxt", 'name: "m"\nbackend: "onnxruntime"\n')),
    ("weights of torch", zipped("model.pt", archive__data_DOT_pkl=pickle.dumps({"w": 1}, 2), archive__data__0=b"\1\2")),
]
CODE: list[tuple[str, Put, str]] = [
    *((f"a call, by protocol {p}", file("m.pkl", pickle.dumps(Acts(), p)), "getcwd") for p in range(6)),
    ("a call named as text", file("notes.txt", pickle.dumps(Acts(), 0)), "notes.txt imports posix.getcwd"),
    ("a call named as weights", file("model.safetensors", ACTS), "getcwd"),
    ("a call after an array of joblib's", dumped([X, Acts()]), "getcwd"),
    ("a call in what joblib has packed", dumped([X, Acts()], compress=3), "getcwd"),
    ("a call in an array of objects", dumped(np.array([Acts()], dtype=object)), "getcwd"),
    ("a call behind another pickle", file("m.pkl", pickle.dumps(1) + ACTS), "getcwd"),
    ("a call through the memo", file("m.pkl", MEMO), "os.getcwd"),
    ("what is no class below an allowed module", file("m.pkl", b"\x80\x04csklearn.utils\nos\n."), "sklearn.utils.os"),
    *(
        (f"{name} of an allowed module", file("m.pkl", f"c{module}\n{name}\n.".encode()), name)
        for module, name in (
            ("sklearn.datasets._covtype", "GzipFile"),
            ("sklearn.datasets._base", "NamedTemporaryFile"),
            ("sklearn.datasets._covtype", "TemporaryDirectory"),
            ("sklearn.utils._available_if", "MethodType"),
        )
    ),
    ("an attribute of an allowed name", file("m.pkl", b"\x80\x04csklearn\nbase.os.getcwd\n)R."), "sklearn.base.os"),
    ("builtins by way of numpy", file("m.pkl", CALLS), "numpy.__builtins__"),
    ("names of Python 2", file("m.pkl", b"c__builtin__\neval\n."), "builtins.eval"),
    ("a call in torch's archive", zipped("m.pt", archive__data_DOT_pkl=ACTS), "m.pt!archive/data.pkl imports"),
    ("a call in an archive in an archive", file("m.zip", in_zip(in_zip(ACTS, "a.bin"), "b.zip")), "m.zip!b.zip!a.bin"),
    ("a call in a tar", tarred, "inner.pkl imports"),
    ("a call in an npz", file("a.npz", in_zip(ACTS, "x.npy")), "getcwd"),
    ("Python", file("model.py", "import os"), "model.py is code"),
    ("a library", file("ops", b"\x7fELF\2\1\1"), "is code"),
    ("TorchScript", zipped("m.pt", m__code__net_DOT_py=b"def f(x): return x"), "m/code/net.py is code"),
    ("an implementation for MLServer", file("model-settings.json", '{"implementation": "mine.Model"}'), "'mine.Model'"),
    (
        "one of two of the same name",
        file("model-settings.json", '{"implementation": "x.Y", "implementation": "mlserver_sklearn.SKLearnModel"}'),
        "'x.Y'",
    ),
    (
        "an environment for MLServer",
        file("model-settings.json", '{"parameters": {"environment_tarball": "e.tgz"}}'),
        "environment",
    ),
    ("Triton's Python backend", file("config.pbtxt", 'backend: "python"'), "Python backend"),
    (
        "a loader of MLflow's",
        file("MLmodel", "flavors:\n  python_function: {loader_module: mlflow.pyfunc.model}\n"),
        "mlflow.pyfunc.model",
    ),
    ("code of MLflow's", file("MLmodel", "flavors:\n  sklearn: {code: code}\n"), "code of its own"),
    ("a Lambda layer", file("m.keras", in_zip(b'{"config": [{"class_name": "Lambda"}]}', "config.json")), "Lambda"),
    ("a Lambda layer in HDF5", file("m.h5", b'\x89HDF\r\n\x1a\n....{"class_name": "Lambda"}'), "Lambda"),
    ("code of a Hub's repository", file("config.json", '{"auto_map": {"AutoModel": "x--m.Net"}}'), "auto_map"),
    ("objects in YAML", file("c.yaml", "a: !!python/object/apply:os.getcwd []"), "objects of Python"),
    (
        "a graph that reads files",
        file("saved_model.pb", b"\x12\x10\x12\x0e\x0a\x0c\x0a\x00\x12\x08ReadFile"),
        "ReadFile",
    ),
]
UNKNOWN: list[tuple[str, Put, str]] = [
    ("a format that nobody knows", file("weights.xyz", b"\x00\x01\x02"), "weights.xyz is of a format"),
    ("a pickle that breaks off", file("m.pkl", pickle.dumps(FOREST)[:-20]), "can't be read to its end"),
    ("a name that the pickle makes", file("m.pkl", MADE_NAME), "made by the pickle itself"),
    ("a number of a registry", file("m.pkl", b"\x80\x02\x82\x01."), "number 1 of a registry"),
    ("HDF5", file("m.h5", b"\x89HDF\r\n\x1a\n...."), "HDF5"),
    ("lz4", file("m.joblib", b"\x04\x22\x4d\x18..."), "m.joblib"),
    ("a broken archive", file("m.gz", b"\x1f\x8b\x08broken"), "can't be unpacked"),
    ("archives without end", file("m.zip", DEEP), "packed more than 4 times"),
    ("an operator that the runtime has not", file("m.onnx", b"\x3a\x0b\x0a\x09\x22\x02Op\x3a\x03mod"), "mod:Op"),
    ("a link that leads out", lambda folder: os.symlink("/etc/passwd", folder / "m.json"), "no file that can be read"),
    ("a state of what is imported", file("m.pkl", b"\x80\x04ccollections\nOrderedDict\n}b."), "has imported"),
]


@pytest.mark.parametrize("put", [case[1] for case in DATA], ids=[case[0] for case in DATA])
def test_data_and_allowed_names_pass(put: Put, tmp_path: Path) -> None:
    report = scan(put, tmp_path)
    assert report["outcome"] == "Pass", report["message"]


@pytest.mark.parametrize(("put", "named"), [case[1:] for case in CODE], ids=[case[0] for case in CODE])
def test_code_fails_and_is_named(put: Put, named: str, tmp_path: Path) -> None:
    report = scan(put, tmp_path)
    assert (report["outcome"], report["reason"]) == ("Fail", "CodeNotAllowed"), report["message"]
    assert named in report["message"]


@pytest.mark.parametrize(("put", "named"), [case[1:] for case in UNKNOWN], ids=[case[0] for case in UNKNOWN])
def test_unknown_content_is_inconclusive_and_named(put: Put, named: str, tmp_path: Path) -> None:
    report = scan(put, tmp_path)
    assert (report["outcome"], report["reason"]) == ("Inconclusive", "ContentUnknown"), report["message"]
    assert named in report["message"]


def _wrapped(data: bytes) -> bytes:
    """A pickle with an array of joblib's, whose bytes are `data`; without padding before them, as joblib once wrote."""
    shape = b"\x8c\x05shapeK" + bytes([len(data)]) + b"\x85"
    return (
        b"\x80\x04cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}("
        + shape
        + b"\x8c\x05dtypecnumpy\ndtype\n\x8c\x02u1\x85Rub"
        + data
        + b"."
    )


def test_bytes_that_joblib_skips_are_read_as_by_other_readers(tmp_path: Path) -> None:
    assert scan(file("m.pkl", _wrapped(b"\0" * 20)), tmp_path)["outcome"] == "Pass"
    report = scan(file("m.pkl", _wrapped(b"cos\ngetcwd\n)R.....")), tmp_path)
    assert (report["outcome"], "os.getcwd" in report["message"]) == ("Fail", True), report


@pytest.mark.parametrize(
    "made",
    [
        b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)R}b.",
        b"ccopyreg\n_reconstructor\ncjoblib.numpy_pickle\nNumpyArrayWrapper\ncbuiltins\nobject\nN\x87R}b.",
        b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81q\x00h\x00}b.",
        b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}\x8c\x04readNsb.",
    ],
    ids=["by a call", "by copyreg", "used twice", "with another reader"],
)
def test_array_in_a_form_unlike_joblibs_is_unknown(made: bytes, tmp_path: Path) -> None:
    """A reader of joblib's might take bytes for an array where the scan takes them for operations."""
    report = scan(file("m.pkl", b"\x80\x04" + made), tmp_path)
    assert (report["outcome"], "joblib" in report["message"]) == ("Inconclusive", True), report


def test_without_a_list_a_pickle_of_scikit_learn_is_code(tmp_path: Path) -> None:
    report = scan(dumped(FOREST), tmp_path, ())
    assert report["outcome"] == "Fail"
    assert "sklearn.ensemble._forest.RandomForestClassifier" in report["message"]


def test_content_allowed_by_the_policy_passes(tmp_path: Path) -> None:
    def put(folder: Path) -> None:
        folder.joinpath("m.pkl").write_bytes(ACTS)
        folder.joinpath("train.py").write_text("print()")

    assert scan(put, tmp_path, ("posix.getcwd",), ("*.py",))["outcome"] == "Pass"


def test_nothing_is_loaded(tmp_path: Path) -> None:
    target = tmp_path / "ran"

    class Writes:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (target,)

    scan(file("m.pkl", pickle.dumps(Writes())), tmp_path)
    assert not target.exists()


def test_the_report_fits_and_the_log_has_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "artifact"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number}-{'x' * 100}.py").write_text("")
    log = tmp_path / "log"
    message = {"CANDIDATE_DIR": str(folder), "MODELWRIGHT_TERMINATION_LOG": str(log)}
    assert run_scanner(message) == 0
    assert len(log.read_bytes()) <= 4096
    assert json.loads(log.read_text())["outcome"] == "Fail"
    assert len(capsys.readouterr().out.splitlines()) == 301
    assert run_scanner({}) == 2
