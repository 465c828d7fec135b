"""Classifies a file by its name and first bytes: data, code, or a description that names code."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import yaml

from modelwright.agents.scanner import gguf, protobuf
from modelwright.agents.scanner.allow_list import AllowList
from modelwright.agents.scanner.findings import Findings

HEAD_BYTES = 512
MAX_TEXT_BYTES = 64 << 20
"""Most bytes of a JSON or YAML file that are read."""

_MAX_YAML_CHARACTERS = 4 << 20
_CALLING_TAGS = ("!new:", "!apply:", "!name:", "!module:", "!class:", "!include:")
"""Tags of HyperPyYAML, with which SpeechBrain loads a model."""

FileOpener = Callable[[], BinaryIO]

_PICKLE_SUFFIXES = {
    ".pkl",
    ".pickle",
    ".joblib",
    ".pt",
    ".pth",
    ".bin",
    ".ckpt",
    ".sav",
    ".dill",
    ".cloudpickle",
    ".model",
}
_CODE_SUFFIXES = {
    ".py",
    ".pyc",
    ".pyo",
    ".pyd",
    ".pyx",
    ".pth.py",
    ".so",
    ".dll",
    ".dylib",
    ".exe",
    ".sh",
    ".bash",
    ".bat",
    ".ps1",
    ".jar",
    ".class",
    ".war",
    ".r",
    ".lua",
    ".js",
    ".mjs",
    ".wasm",
    ".whl",
    ".egg",
    ".pl",
    ".rb",
}
_TEXT_SUFFIXES = {".txt", ".md", ".csv", ".tsv", ".cfg", ".ini", ".toml", ".vocab", ".html", ".xml", ".pmml", ".lock"}
_TEXT_NAMES = {"LICENSE", "NOTICE", "README", "CHANGELOG", "VERSION", ".gitattributes", ".gitignore", "Dockerfile"}
_DATA_MAGIC: tuple[tuple[str, bytes], ...] = (
    (".ubj", b"{"),
    (".parquet", b"PAR1"),
    (".arrow", b"ARROW1"),
    (".png", b"\x89PNG"),
    (".jpg", b"\xff\xd8"),
    (".jpeg", b"\xff\xd8"),
    (".pdf", b"%PDF"),
    (".cbm", b"CBM1"),
)
_MAX_HEADER_BYTES = 64 << 10
_NUMBER_DTYPE = re.compile(r"[<>|=]?[?bBiufcmMSUV]\d*(\[\w+\])?\Z", re.ASCII)
_CONTROL_BYTES = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_ELF, _HDF5, _NPY = b"\x7fELF", b"\x89HDF\r\n\x1a\n", b"\x93NUMPY"
_KERAS_FUNCTIONS = {
    f"keras.{kind}" for kind in ("activations", "constraints", "initializers", "losses", "metrics", "regularizers")
}
_MLFLOW_LOADERS = {
    f"mlflow.{flavor}" for flavor in ("sklearn", "xgboost", "lightgbm", "catboost", "onnx", "tensorflow")
}
_TRITON_BACKENDS = {
    "onnxruntime",
    "tensorrt",
    "tensorrt_plan",
    "onnxruntime_onnx",
    "tensorflow",
    "tensorflow_savedmodel",
    "pytorch",
    "pytorch_libtorch",
    "openvino",
    "fil",
    "ensemble",
}
_BACKEND_BY_SUFFIX = {".onnx": "onnxruntime", ".pt": "pytorch", ".savedmodel": "tensorflow", ".plan": "tensorrt"}
_KERAS_FOREIGN_LAYERS = ("TFSMLayer", "TorchModuleWrapper")
"""Layers of Keras that load a model of another library."""
_SENTENCE_TRANSFORMERS = re.compile(r"sentence_transformers(\.\w+)*\.[A-Z]\w*", re.ASCII)
_PATH_BESIDE = re.compile(r"(\./)?[\w-][\w.-]*(/[\w-][\w.-]*)*", re.ASCII)
_TENSOR_SUFFIXES = {".data", ".onnx_data"}
"""Suffixes of files that hold an ONNX model's tensors, and that nothing else loads."""
_TEMPLATE_ESCAPE = re.compile(
    r"__(class|bases?|mro|subclasses|globals|builtins|import|init|dict|code|getattribute|reduce)__|\|\s*attr\b"
)
"""Expressions by which a Jinja template leaves its given values. No chat format needs them."""


def may_be_pickle(name: str) -> bool:
    """Return whether a loader takes the file for a pickle by its name."""
    return PurePosixPath(name.rpartition("!")[2]).suffix.lower() in _PICKLE_SUFFIXES


def check_content(name: str, head: bytes, file: FileOpener, allowed: AllowList, findings: Findings) -> bool:
    """Return whether the file's format is known, so that only its packing and pickling remain to be checked."""
    path = PurePosixPath(name.rpartition("!")[2])
    suffix, file_name = path.suffix.lower(), path.name
    if suffix in _CODE_SUFFIXES or head.startswith((_ELF, b"#!")):
        findings.add_code(name, "is code")
        return True
    if suffix == ".onnx":
        return _check_onnx(name, file(), findings)
    if file_name in ("saved_model.pb", "keras_metadata.pb"):
        return _check_tensorflow(name, file_name, file(), allowed, findings)
    if suffix == ".pt2" or file_name == "serialized_exported_program.json":
        findings.add_unknown(name, "is a program of torch.export, which this gate can't read")
        return True
    if file_name.startswith("config.pbtxt"):
        return _check_triton(name, _read_text(name, file(), findings), findings)
    if file_name == "MLmodel" or suffix in (".yaml", ".yml"):
        return _check_yaml(name, file_name, _read_text(name, file(), findings), findings)
    if suffix in (".json", ".jsonl", ".ndjson") or file_name == "model-settings.json":
        return _check_json(name, file_name, suffix, _read_text(name, file(), findings), allowed, findings)
    if head.startswith(_HDF5):
        return _check_hdf5(name, file(), findings)
    if head.startswith(_NPY):
        return _check_npy(name, file(), findings)
    if suffix == ".safetensors":
        return _is_safetensors(file())
    if suffix == ".model":
        return protobuf.is_sentencepiece(file())
    if suffix == ".gguf":
        return _check_gguf(name, file(), findings)
    if suffix in (".jinja", ".jinja2", ".j2"):
        return _check_template(name, _read_text(name, file(), findings), findings)
    if any(suffix == known and head.startswith(magic) for known, magic in _DATA_MAGIC):
        return True
    if suffix in _TEXT_SUFFIXES or file_name in _TEXT_NAMES:
        return _is_text(file())
    return _is_raw(name, path)


def _is_text(file: BinaryIO) -> bool:
    while data := file.read(1 << 20):
        if _CONTROL_BYTES.search(data):
            return False
    return True


def _is_safetensors(file: BinaryIO) -> bool:
    """Return whether the head has the stated length and describes tensors."""
    size = int.from_bytes(file.read(8), "little")
    if size > MAX_TEXT_BYTES:
        return False
    head = file.read(size)
    try:
        described = json.loads(head)
    except (ValueError, RecursionError):
        return False
    return len(head) == size and head.startswith(b"{") and all(isinstance(entry, dict) for entry in described.values())


def _check_gguf(name: str, file: BinaryIO, findings: Findings) -> bool:
    try:
        templates = gguf.read_templates(file)
    except gguf.GgufError:
        return False
    return all(_check_template(name, text, findings) for text in templates)


def _check_template(name: str, text: str | None, findings: Findings) -> bool:
    """Check a Jinja template. Runtimes should render it in a sandbox; some have failed to."""
    escape = _TEMPLATE_ESCAPE.search(text) if text is not None else None
    if escape is not None:
        findings.add_code(name, f"has a template that reaches for Python ({escape[0]})")
    return True


def _is_raw(name: str, path: PurePosixPath) -> bool:
    """Return whether the archive around it identifies a file as plain numbers: weights of torch, variables of
    TensorFlow."""
    inside = name.rpartition("!")[2] if "!" in name else ""
    if inside and (path.parent.name == "data" or path.name in ("version", "byteorder", ".format_version")):
        return True
    if inside and path.parent.name in (".data", "META-INF"):
        return True
    return (path.parent.name == "variables" and path.name.startswith("variables.")) or path.name == "fingerprint.pb"


def _read_text(name: str, file: BinaryIO, findings: Findings) -> str | None:
    data = file.read(MAX_TEXT_BYTES + 1)
    try:
        if len(data) > MAX_TEXT_BYTES:
            raise ValueError("too large")
        return data.decode("utf-8-sig")
    except ValueError:
        findings.add_unknown(name, f"is no text of at most {MAX_TEXT_BYTES} bytes")
        return None


def _check_json(
    name: str, file_name: str, suffix: str, text: str | None, allowed: AllowList, findings: Findings
) -> bool:
    if text is None:
        return True
    for document in _parse_documents(name, file_name, suffix, text, findings):
        _check_document(name, file_name, document, allowed, findings)
    return True


def _parse_documents(name: str, file_name: str, suffix: str, text: str, findings: Findings) -> list[Any]:
    try:
        # Only a line feed ends a line in such files.
        lines = text.split("\n") if suffix != ".json" and file_name != "model-settings.json" else [text]
        return [json.loads(line, object_pairs_hook=_JsonObject) for line in lines if line.strip()]
    except (ValueError, RecursionError):
        findings.add_unknown(name, "is no JSON")
        return []


def _check_document(name: str, file_name: str, document: Any, allowed: AllowList, findings: Findings) -> None:
    for pairs in _list_objects(document):
        _check_keras_layer(name, pairs, allowed, findings)
        for key, value in pairs:
            _check_member(name, file_name, key, value, allowed, findings)
            _check_library_member(name, file_name, key, value, allowed, findings)


class _JsonObject:
    """A JSON object with all its members: readers differ in which of two members with one name they take."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


def _list_objects(document: Any) -> Iterator[list[tuple[str, Any]]]:
    """Yield the members of every object in the document."""
    todo = [document]
    while todo:
        value = todo.pop()
        if isinstance(value, _JsonObject):
            yield value.pairs
            todo += [inner for _, inner in value.pairs]
        elif isinstance(value, list):
            todo += value


def _check_member(name: str, file_name: str, key: str, value: Any, allowed: AllowList, findings: Findings) -> None:
    if file_name == "model-settings.json":
        if key == "implementation" and not (isinstance(value, str) and allowed.allows_implementation(value)):
            findings.add_code(name, f"has MLServer load {_quote_value(value)}")
        if key in ("environment_path", "environment_tarball") and value:
            findings.add_code(name, f"names an environment of its own ({key})")
    if file_name == "settings.json" and key in ("model_repository_implementation", "extensions", "environments_dir"):
        findings.add_code(name, f"has MLServer load {_quote_value(value)} ({key})")
    if key in ("_target_", "_target") and value:
        findings.add_code(name, f"has Hydra call {_quote_value(value)} ({key})")
    if key == "trust_remote_code" and value not in (False, None, 0, "", "false", "False"):
        findings.add_code(name, "lets code of a repository run (trust_remote_code)")
    if key == "auto_map" and value:
        findings.add_code(name, "names Python code of a repository (auto_map)")
    if key == "custom_pipelines" and value:
        findings.add_code(name, "names pipelines of its own (custom_pipelines)")
    if key in ("class_name", "registered_name") and isinstance(value, str):
        if "lambda" in value.lower():
            findings.add_code(name, "has a Lambda layer")
        if value.rpartition(">")[2] in _KERAS_FOREIGN_LAYERS:
            findings.add_code(name, f"has Keras load a model of another library ({_quote_value(value)})")


def _check_library_member(
    name: str, file_name: str, key: str, value: Any, allowed: AllowList, findings: Findings
) -> None:
    """Check members that single libraries read from their descriptions."""
    if not isinstance(value, str):
        return
    if file_name == "config.json" and key == "vocabulary":
        findings.add_unknown(name, f"has Keras read the file {_quote_value(value)}")
    if file_name == "modules.json" and key == "type" and not _SENTENCE_TRANSFORMERS.fullmatch(value):
        module, _, class_name = value.rpartition(".")
        if not allowed.allows_global(module, class_name):
            findings.add_code(name, f"has Sentence Transformers import {_quote_value(value)}")
    if key in ("attn_implementation", "_attn_implementation") and "/" in value:
        findings.add_code(name, f"has a library of the Hub loaded ({key}: {_quote_value(value)})")
    if key == "expr_str":
        findings.add_unknown(name, "is a program of torch.export, which this gate can't read")
    if key in ("chat_template", "template"):
        _check_template(name, value, findings)


def _check_keras_layer(name: str, pairs: list[tuple[str, Any]], allowed: AllowList, findings: Findings) -> None:
    """Check a layer's description: Keras imports the class it names, and calls it with the described arguments."""
    class_names = [value for key, value in pairs if key == "class_name" and isinstance(value, str)]
    modules = [value for key, value in pairs if key == "module" and value is not None]
    configured = [value for key, value in pairs if key == "config"]
    for module in modules if class_names else ():
        for class_name in class_names:
            names = (
                [value for value in configured if isinstance(value, str)] if class_name == "function" else [class_name]
            )
            for imported in names or [class_name]:
                if not isinstance(module, str) or not (
                    _is_keras(module, class_name) or allowed.allows_global(module, imported)
                ):
                    findings.add_code(name, f"has Keras import {_quote_value(imported)} of {_quote_value(module)}")


def _is_keras(module: str, called: str) -> bool:
    if called == "function":
        return module in _KERAS_FUNCTIONS
    below = module == "keras" or module.startswith("keras.")
    return below and not module.startswith(("keras.utils", "keras.src.utils")) and called[:1].isupper()


def _check_yaml(name: str, file_name: str, text: str | None, findings: Findings) -> bool:
    if text is None:
        return True
    try:
        events = list(yaml.parse(text)) if len(text) <= _MAX_YAML_CHARACTERS else None
    except (yaml.YAMLError, RecursionError):
        events = None
    if events is None:
        findings.add_unknown(name, f"is no YAML of at most {_MAX_YAML_CHARACTERS} characters")
        return True
    for tag in [str(tag) for event in events if (tag := getattr(event, "tag", None))]:
        if tag.startswith(("tag:yaml.org,2002:python", *_CALLING_TAGS)):
            findings.add_code(name, f"makes objects of Python ({tag[:100]})")
        elif tag != "!" and not tag.startswith("tag:yaml.org,2002:"):
            findings.add_unknown(name, f"has the tag {_quote_value(tag)}")
    plain = [event.value for event in events if isinstance(event, yaml.ScalarEvent)]
    for key in ("_target_", "trust_remote_code", "auto_map"):
        if key in plain and not _is_always_off(plain, key):
            findings.add_code(name, f"has a key that has code called ({key})")
    if file_name == "MLmodel":
        if any(isinstance(event, yaml.AliasEvent) for event in events):
            findings.add_unknown(name, "repeats itself by aliases")
            return True
        _check_mlflow(name, text, findings)
    return True


def _is_always_off(plain: list[str], key: str) -> bool:
    """Return whether every value of the key is false."""
    after = [value for before, value in pairwise(plain) if before == key]
    return bool(after) and all(value.lower() in ("false", "no", "off", "null", "~", "") for value in after)


def _check_mlflow(name: str, text: str, findings: Findings) -> None:
    try:
        flavors = yaml.safe_load(text).get("flavors")
        flavor = flavors.get("python_function") or {}
        loader = flavor.get("loader_module")
        code_keys = [key for one in flavors.values() for key in ("code", "model_code_path") if one.get(key)]
    except (yaml.YAMLError, AttributeError, RecursionError):
        findings.add_unknown(name, "is no description of MLflow's")
        return
    if loader is not None and loader not in _MLFLOW_LOADERS:
        findings.add_code(name, f"has MLflow load {_quote_value(loader)}")
    for key in code_keys:
        findings.add_code(name, f"names code of its own ({key})")


def _check_triton(name: str, text: str | None, findings: Findings) -> bool:
    if text is None:
        return True
    # Only a line feed ends a comment; a string may contain other characters that Python treats as line ends.
    plain = "\n".join(line for line in text.split("\n") if not line.lstrip(" \t").startswith("#"))
    for key in ("op_library_filename", "runtime"):
        if re.search(rf"\b{key}\b", plain):
            findings.add_code(name, f"has Triton load a file of the artifact's ({key})")
    backends = []
    for key in ("backend", "platform"):
        for value in _read_pbtxt_values(plain, key):
            backends.append(value)
            if value in _TRITON_BACKENDS or (key == "platform" and value == ""):
                continue
            if value == "python":
                findings.add_code(name, "chooses Triton's Python backend")
            else:
                findings.add_unknown(name, f"has the {key} {_format_pbtxt_value(value)}")
    for value in _read_pbtxt_values(plain, "default_model_filename"):
        backend = _BACKEND_BY_SUFFIX.get(PurePosixPath(value or "").suffix)
        if not backends or backend is None or not all((one or backend).startswith(backend) for one in backends):
            findings.add_unknown(name, f"has Triton load the file {_format_pbtxt_value(value)}, of any content")
    if re.search(r"\bcc_model_filenames\b", plain):
        findings.add_unknown(name, "names files by the GPU (cc_model_filenames)")
    return True


def _read_pbtxt_values(plain: str, key: str) -> list[str | None]:
    """Return the values of a field in a text-format message; None for a string in an unusual form. Adjacent strings are
    one value."""
    values = []
    for value, following in re.findall(rf"\b{key}\b\s*:?\s*(\S*)(?=\s*(\S?))", plain):
        simple = re.fullmatch(r"([\"'])([A-Za-z0-9_.-]*)\1([,;}]?)", value)
        values.append(simple[2] if simple is not None and (simple[3] or following not in ("'", '"')) else None)
    return values


def _format_pbtxt_value(value: str | None) -> str:
    return "in more than one string, or with other signs" if value is None else _quote_value(value)


def _check_onnx(name: str, file: BinaryIO, findings: Findings) -> bool:
    try:
        graph = protobuf.read_onnx_graph(file)
    except protobuf.ProtobufError as error:
        findings.add_unknown(name, f"can't be read: {error}")
        return True
    if not graph.operators:
        findings.add_unknown(name, "has no operators")
    for operator in sorted(operator for operator in graph.operators if not protobuf.is_builtin_operator(operator)):
        findings.add_unknown(name, f"uses the operator {_quote_value(operator)}, whose code is not known")
    for location in sorted(graph.locations):
        if not _PATH_BESIDE.fullmatch(location):
            findings.add_code(name, f"has tensors in {_quote_value(location)}, which is no file beside it")
        elif PurePosixPath(location).suffix in _TENSOR_SUFFIXES:
            findings.tensors.add(name[: max(name.rfind("/"), name.rfind("!")) + 1] + location.removeprefix("./"))
    return True


def _check_tensorflow(name: str, file_name: str, file: BinaryIO, allowed: AllowList, findings: Findings) -> bool:
    try:
        if file_name == "keras_metadata.pb":
            graph = protobuf.GraphNames(frozenset(), descriptions=protobuf.read_keras_metadata(file))
        else:
            graph = protobuf.read_tensorflow_graph(file)
    except protobuf.ProtobufError as error:
        findings.add_unknown(name, f"can't be read: {error}")
        return True
    for text in graph.descriptions:
        for document in _parse_documents(name, "config.json", ".json", text, findings):
            _check_document(name, "config.json", document, allowed, findings)
    for operator in sorted(graph.operators):
        if operator in protobuf.TABLE_OPERATORS:
            findings.add_unknown(name, f"reads a file that the graph names ({operator})")
        elif operator in protobuf.PROGRAM_OPERATORS:
            findings.add_unknown(name, f"holds a program that this gate can't read ({operator})")
        elif protobuf.has_side_effects(operator):
            findings.add_code(name, f"uses the operator {_quote_value(operator)}")
        elif not operator.isidentifier():
            findings.add_unknown(name, f"uses the operator {_quote_value(operator)}, whose code is not known")
    return True


def _check_hdf5(name: str, file: BinaryIO, findings: Findings) -> bool:
    before = b""
    while data := file.read(1 << 20):
        if b"Lambda" in before + data:
            findings.add_code(name, "has a Lambda layer")
            return True
        before = data[-8:]
    findings.add_unknown(name, "is HDF5, which this gate can't read")
    return True


def _check_npy(name: str, file: BinaryIO, findings: Findings) -> bool:
    start = file.read(12)
    version = start[6:7]
    size = int.from_bytes(start[8:10] if version == b"\x01" else start[8:12], "little")
    file.seek(10 if version == b"\x01" else 12)
    try:
        if size > _MAX_HEADER_BYTES or version not in (b"\x01", b"\x02", b"\x03"):
            raise ValueError("too large")
        # Parsed as numpy parses it. A header in another form than numpy writes may be read differently.
        text = file.read(size).decode("latin-1")
        header = ast.literal_eval(text)
        plain = isinstance(header, dict) and header.keys() == {"descr", "fortran_order", "shape"}
        plain = plain and _is_plain_dtype(header["descr"]) and text.count("descr") == 1 and "\\" not in text
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        plain = False
    if not plain:
        findings.add_unknown(name, "is an array of objects, which is a pickle, or has an unknown type")
    return True


def _is_plain_dtype(kind: Any) -> bool:
    """Return whether elements of this type are bytes and not objects."""
    if isinstance(kind, str):
        return _NUMBER_DTYPE.match(kind) is not None
    return isinstance(kind, list) and all(
        isinstance(field, tuple) and len(field) in (2, 3) and _is_plain_dtype(field[1]) for field in kind
    )


def _quote_value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return repr(text[:100])
