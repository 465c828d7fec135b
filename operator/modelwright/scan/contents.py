"""What a file is by its name and its first bytes: data, code, or a description that names code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import yaml

from modelwright.scan import protobuf
from modelwright.scan.allow import Allowed
from modelwright.scan.findings import Findings

HEAD = 512
MOST_TEXT = 64 << 20
"""Bytes of a JSON or YAML file that is read."""

Open = Callable[[], BinaryIO]

_PICKLES = {".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin", ".ckpt", ".sav", ".dill", ".cloudpickle", ".model"}
_CODE = {
    ".py", ".pyc", ".pyo", ".pyd", ".pyx", ".pth.py", ".so", ".dll", ".dylib", ".exe", ".sh", ".bash", ".bat", ".ps1",
    ".jar", ".class", ".war", ".r", ".lua", ".js", ".mjs", ".wasm", ".whl", ".egg", ".pl", ".rb",
}  # fmt: skip
_TEXTS = {".txt", ".md", ".csv", ".tsv", ".cfg", ".ini", ".toml", ".jinja", ".vocab", ".html", ".xml", ".pmml", ".lock"}
_PLAIN = {"LICENSE", "NOTICE", "README", "CHANGELOG", "VERSION", ".gitattributes", ".gitignore", "Dockerfile"}
_MAGIC: tuple[tuple[str, bytes], ...] = (
    (".gguf", b"GGUF"), (".ubj", b"{"), (".parquet", b"PAR1"), (".arrow", b"ARROW1"), (".png", b"\x89PNG"),
    (".jpg", b"\xff\xd8"), (".jpeg", b"\xff\xd8"), (".pdf", b"%PDF"), (".cbm", b"CBM1"),
)  # fmt: skip
_ELF, _HDF5, _NPY = b"\x7fELF", b"\x89HDF\r\n\x1a\n", b"\x93NUMPY"
_LOADERS = {f"mlflow.{flavor}" for flavor in ("sklearn", "xgboost", "lightgbm", "catboost", "onnx", "tensorflow")}
_BACKENDS = {"onnxruntime", "tensorrt", "tensorrt_plan", "onnxruntime_onnx", "tensorflow", "tensorflow_savedmodel",
             "tensorflow_graphdef", "pytorch", "pytorch_libtorch", "openvino", "fil", "ensemble"}  # fmt: skip


def may_be_pickle(name: str) -> bool:
    """Whether its name says that a loader takes it for a pickle."""
    return PurePosixPath(name.rpartition("!")[2]).suffix.lower() in _PICKLES


def judge(name: str, head: bytes, file: Open, allowed: Allowed, found: Findings) -> bool:
    """Whether the file is known, so that nothing is left to ask beside what it is packed in or pickled as."""
    path = PurePosixPath(name.rpartition("!")[2])
    suffix, called = path.suffix.lower(), path.name
    if suffix in _CODE or head.startswith((_ELF, b"#!")):
        found.is_code(name, "is code")
        return True
    if called in ("saved_model.pb", "keras_metadata.pb") or suffix == ".onnx":
        return _graph(name, called, suffix, file(), found)
    if called.startswith("config.pbtxt") or suffix == ".pbtxt":
        return _triton(name, _text(name, file(), found), found)
    if called == "MLmodel" or suffix in (".yaml", ".yml"):
        return _yaml(name, called, _text(name, file(), found), found)
    if suffix in (".json", ".jsonl", ".ndjson") or called == "model-settings.json":
        return _json(name, called, suffix, _text(name, file(), found), allowed, found)
    if head.startswith(_HDF5):
        return _hdf5(name, file(), found)
    if head.startswith(_NPY):
        return _npy(name, file(), found)
    if suffix == ".safetensors":
        return head[8:9] == b"{"
    if any(suffix == known and head.startswith(magic) for known, magic in _MAGIC):
        return True
    if suffix in _TEXTS or called in _PLAIN:
        return b"\0" not in head
    return _is_raw(name, path)


def _is_raw(name: str, path: PurePosixPath) -> bool:
    """Numbers without a header, where the archive around them says so: weights of torch, variables of TensorFlow."""
    inside = name.rpartition("!")[2] if "!" in name else ""
    if inside and (path.parent.name == "data" or path.name in ("version", "byteorder", ".format_version")):
        return True
    if inside and path.parent.name in (".data", "META-INF"):
        return True
    return (path.parent.name == "variables" and path.name.startswith("variables.")) or path.name == "fingerprint.pb"


def _text(name: str, file: BinaryIO, found: Findings) -> str | None:
    data = file.read(MOST_TEXT + 1)
    try:
        if len(data) > MOST_TEXT:
            raise ValueError("too large")
        return data.decode("utf-8-sig")
    except ValueError:
        found.is_unknown(name, f"is no text of at most {MOST_TEXT} bytes")
        return None


def _json(name: str, called: str, suffix: str, text: str | None, allowed: Allowed, found: Findings) -> bool:
    if text is None:
        return True
    try:
        lines = text.splitlines() if suffix != ".json" and called != "model-settings.json" else [text]
        documents = [json.loads(line, object_pairs_hook=_Pairs) for line in lines if line.strip()]
    except (ValueError, RecursionError):
        found.is_unknown(name, "is no JSON")
        return True
    for document in documents:
        for key, value in _members(document):
            _member(name, called, key, value, allowed, found)
    return True


class _Pairs:
    """A JSON object with all its members: of two with one name, a reader may take either."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


def _members(document: Any) -> Iterator[tuple[str, Any]]:
    """Every member of every object in it."""
    todo = [document]
    while todo:
        value = todo.pop()
        if isinstance(value, _Pairs):
            yield from value.pairs
            todo += [inner for _, inner in value.pairs]
        elif isinstance(value, list):
            todo += value


def _member(name: str, called: str, key: str, value: Any, allowed: Allowed, found: Findings) -> None:
    if called == "model-settings.json":
        if key == "implementation" and not (isinstance(value, str) and allowed.implementation(value)):
            found.is_code(name, f"has MLServer load {_shown(value)}")
        if key in ("environment_path", "environment_tarball") and value:
            found.is_code(name, f"names an environment of its own ({key})")
    if called == "settings.json" and key in ("model_repository_implementation", "extensions", "environments_dir"):
        found.is_code(name, f"has MLServer load {_shown(value)} ({key})")
    if key == "auto_map" and value:
        found.is_code(name, "names Python code of a repository (auto_map)")
    if key in ("class_name", "registered_name") and isinstance(value, str) and "Lambda" in value:
        found.is_code(name, "has a Lambda layer")
    if key == "custom_pipelines" and value:
        found.is_code(name, "names pipelines of its own (custom_pipelines)")


def _yaml(name: str, called: str, text: str | None, found: Findings) -> bool:
    if text is None:
        return True
    try:
        tagged = [tag for event in yaml.parse(text) if (tag := getattr(event, "tag", None))]
    except yaml.YAMLError:
        found.is_unknown(name, "is no YAML")
        return True
    found_tags = [tag for tag in tagged if str(tag).startswith("tag:yaml.org,2002:python")]
    if found_tags:
        found.is_code(name, f"makes objects of Python ({found_tags[0]})")
    if called == "MLmodel":
        _mlflow(name, text, found)
    return True


def _mlflow(name: str, text: str, found: Findings) -> None:
    try:
        flavors = yaml.safe_load(text).get("flavors")
        flavor = flavors.get("python_function") or {}
        loader = flavor.get("loader_module")
        coded = [key for one in flavors.values() for key in ("code", "model_code_path") if one.get(key)]
    except (yaml.YAMLError, AttributeError, RecursionError):
        found.is_unknown(name, "is no description of MLflow's")
        return
    if loader is not None and loader not in _LOADERS:
        found.is_code(name, f"has MLflow load {_shown(loader)}")
    for key in coded:
        found.is_code(name, f"names code of its own ({key})")


def _triton(name: str, text: str | None, found: Findings) -> bool:
    if text is None:
        return True
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    plain = "\n".join(lines)
    for key in ("backend", "platform"):
        given = re.findall(rf"\b{key}\b\s*:?\s*(\S*)", plain)
        for value in given:
            told = re.fullmatch(r"[\"']([a-z0-9_]*)[\"'][,;}]?", value)
            if told is not None and (told[1] in _BACKENDS or (key == "platform" and told[1] == "")):
                continue
            if told is not None and told[1] == "python":
                found.is_code(name, "chooses Triton's Python backend")
            else:
                found.is_unknown(name, f"has the {key} {_shown(value)}")
    return True


def _graph(name: str, called: str, suffix: str, file: BinaryIO, found: Findings) -> bool:
    if called == "keras_metadata.pb":
        if b"Lambda" in file.read(MOST_TEXT):
            found.is_code(name, "has a Lambda layer")
        return True
    operators = protobuf.onnx_operators if suffix == ".onnx" else protobuf.tensorflow_operators
    try:
        used = operators(file)
    except protobuf.Malformed as error:
        found.is_unknown(name, f"can't be read: {error}")
        return True
    if suffix == ".onnx":
        for operator in sorted(used - {operator for operator in used if operator.partition(":")[0] in protobuf.ONNX}):
            found.is_unknown(name, f"uses the operator {_shown(operator)}, whose code is not known")
        return True
    for operator in sorted(used & protobuf.TENSORFLOW_ACTS):
        found.is_code(name, f"uses the operator {operator}")
    return True


def _hdf5(name: str, file: BinaryIO, found: Findings) -> bool:
    before = b""
    while data := file.read(1 << 20):
        if b"Lambda" in before + data:
            found.is_code(name, "has a Lambda layer")
            return True
        before = data[-8:]
    found.is_unknown(name, "is HDF5, which this gate can't read; the format .keras it can")
    return True


def _npy(name: str, file: BinaryIO, found: Findings) -> bool:
    start = file.read(12)
    size = int.from_bytes(start[8:10] if start[6:7] == b"\x01" else start[8:12], "little")
    file.seek(10 if start[6:7] == b"\x01" else 12)
    header = file.read(min(size, 1 << 20))
    kind = re.findall(rb"['\"]descr['\"]\s*:\s*(.+?),\s*['\"](?:fortran_order|shape)['\"]", header, re.DOTALL)
    if len(kind) != 1 or re.search(rb"['\"][|=<>]?O", kind[0]) or not re.fullmatch(rb"[][()'\"<>|=,\w\s.-]*", kind[0]):
        found.is_unknown(name, "is an array of objects, which is a pickle, or has an unknown type")
    return True


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return repr(text[:100])
