"""What each format of models can hide beside numbers, and what an ordinary file of it results in. Files are made byte
by byte, where the library that writes them is not here."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from modelwright.agents.scanner import gguf, protobuf
from modelwright.agents.scanner.allow_list import AllowList
from modelwright.agents.scanner.artifact_scan import ArtifactScan

Files = Mapping[str, bytes | str]


def scanned(files: Files, folder: Path, allowed: tuple[str, ...] = ()) -> dict[str, Any]:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return ArtifactScan(AllowList(("sklearn.*",), allowed)).scan_folder(folder).build_report()


def varint(value: int) -> bytes:
    data = b""
    while value > 127:
        data, value = data + bytes([value & 127 | 128]), value >> 7
    return data + bytes([value])


def part(number: int, data: bytes) -> bytes:
    """A message or string of a protocol buffer."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def zipped(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


RELU = part(1, part(4, b"Relu"))


def tensor_in(location: str) -> bytes:
    """A TensorProto whose data is elsewhere."""
    return part(13, part(1, b"location") + part(2, location.encode())) + varint(14 << 3) + b"\1"


def onnx(location: str) -> bytes:
    return part(7, RELU + part(5, tensor_in(location)))


def saved(*operators: str, more: bytes = b"") -> bytes:
    nodes = b"".join(part(1, part(2, operator.encode())) for operator in operators)
    return part(2, part(2, nodes) + more)


def keras(class_name: str, /, **config: Any) -> bytes:
    layer = {"module": "keras.layers", "class_name": class_name, "config": config, "registered_name": None}
    return zipped({"config.json": json.dumps({"config": {"layers": [layer]}}).encode()})


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def gguf_file(*pairs: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs)


def chat(template: bytes) -> bytes:
    return text(b"tokenizer.chat_template") + struct.pack("<I", 8) + text(template)


WORDS = text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text(b"a") + text(b"b")
SCORES = text(b"tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, 2) + bytes(8)
DUNDERS = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
PT2 = zipped(
    {
        "version": b"8.15",
        "serialized_exported_program.json": json.dumps(
            {"dims": [{"as_expr": {"expr_str": "__import__('os').getcwd()"}}]}
        ).encode(),
    }
)
LAMBDA = b'{"class_name": "Lambda", "config": {}}'
OLD_KERAS = saved("MatMul", more=part(7, part(1, part(4, part(1, b"_tf_keras_layer") + part(3, LAMBDA)))))
IMPORTS = b'{"class_name": "exec", "module": "builtins", "config": {}}'
GRAPH_DEF = part(1, part(2, b"ReadFile"))
GRAPH_DEF_OF_TRITON = 'platform: "tensorflow_graphdef"\ndefault_model_filename: '

CASES: list[tuple[str, str, Files, str]] = [
    ("ONNX", "Pass", {"m.onnx": part(7, RELU)}, ""),
    ("ONNX with its tensors beside it", "Pass", {"a/m.onnx": onnx("m.onnx.data"), "a/m.onnx.data": b"\1\2\xff\0"}, ""),
    ("tensors in a folder beside it", "Pass", {"m.onnx": onnx("./w/1.onnx_data"), "w/1.onnx_data": b"\1\xff\0"}, ""),
    ("such a file that no ONNX names", "Inconclusive", {"m.onnx": onnx("m.data"), "n.data": b"\1\xff\0"}, "n.data"),
    (
        "a plan of TensorRT that an ONNX says are tensors",
        "Inconclusive",
        {"m.onnx": onnx("model.plan"), "model.plan": b"\1\xff\0"},
        "model.plan",
    ),
    ("tensors in another folder", "Fail", {"m.onnx": onnx("../../etc/passwd")}, "'../../etc/passwd'"),
    ("tensors in any file", "Fail", {"m.onnx": onnx("/var/run/secrets/token")}, "no file beside it"),
    ("tensors in the runtime's memory", "Fail", {"m.onnx": onnx("*/_ORT_MEM_ADDR_/*")}, "_ORT_MEM_ADDR_"),
    (
        "such a tensor in an attribute",
        "Fail",
        {"m.onnx": part(7, part(1, part(4, b"Constant") + part(5, part(5, tensor_in("/x")))))},
        "'/x'",
    ),
    ("one of a sparse tensor", "Fail", {"m.onnx": part(7, RELU + part(15, part(1, tensor_in("/x"))))}, "'/x'"),
    (
        "an operator in a function's default",
        "Inconclusive",
        {"m.onnx": part(7, RELU) + part(25, part(11, part(6, part(1, part(4, b"Op") + part(7, b"mine")))))},
        "mine:Op",
    ),
    ("ONNX without operators", "Inconclusive", {"m.onnx": part(1, RELU)}, "has no operators"),
    ("a SavedModel", "Pass", {"saved_model.pb": saved("MatMul", "SaveV2")}, ""),
    *(
        (f"the operator {name}", "Inconclusive", {"saved_model.pb": saved(name)}, name)
        for name in (
            "GenerateVocabRemapping",
            "FixedUnigramCandidateSampler",
            "XlaCallModule",
            "XlaCustomCallV2",
            "TRTEngineOp",
        )
    ),
    ("a layer of Keras' in a SavedModel", "Fail", {"saved_model.pb": OLD_KERAS}, "Lambda"),
    (
        "what keras_metadata.pb has Keras import",
        "Fail",
        {"keras_metadata.pb": part(1, part(4, b"_tf_keras_layer") + part(5, IMPORTS))},
        "'exec'",
    ),
    (
        "keras_metadata.pb of a layer of Keras'",
        "Pass",
        {"keras_metadata.pb": part(1, part(5, b'{"class_name": "Dense", "config": {"units": 1}}'))},
        "",
    ),
    ("keras_metadata.pb that is no message", "Inconclusive", {"keras_metadata.pb": b"\xff"}, "can't be read"),
    ("a module of torch's in Keras", "Fail", {"m.keras": keras("TorchModuleWrapper", module="x")}, "another library"),
    ("a SavedModel in Keras", "Fail", {"m.keras": keras("TFSMLayer", filepath="/x")}, "another library"),
    (
        "words that Keras reads from a file",
        "Inconclusive",
        {"m.keras": keras("StringLookup", vocabulary="/etc/passwd")},
        "'/etc/passwd'",
    ),
    ("words that Keras has", "Pass", {"m.keras": keras("StringLookup", vocabulary=["a", "b"])}, ""),
    ("weights of Keras", "Inconclusive", {"m.keras": zipped({"model.weights.h5": b"\x89HDF\r\n\x1a\n"})}, "HDF5"),
    ("a program of torch.export", "Inconclusive", {"m.pt2": PT2}, "torch.export"),
    ("one called otherwise", "Inconclusive", {"m.zip": PT2}, "torch.export"),
    ("an expression of one", "Inconclusive", {"program.json": '{"expr_str": "s0 + 1"}'}, "torch.export"),
    ("GGUF", "Pass", {"m.gguf": gguf_file(WORDS, SCORES, chat(b"{{ messages[0]['content'] }}"))}, ""),
    (
        "a chat template that reaches out, behind words",
        "Fail",
        {"m.gguf": gguf_file(WORDS, SCORES, chat(DUNDERS.encode()))},
        "__class__",
    ),
    ("GGUF in its name only", "Inconclusive", {"m.gguf": b"GGUF"}, "format"),
    ("GGUF that is shorter than it says", "Inconclusive", {"m.gguf": gguf_file(WORDS)[:-1]}, "format"),
    ("GGUF of another version", "Inconclusive", {"m.gguf": b"GGUF" + struct.pack("<IQQ", 9, 0, 0)}, "format"),
    ("a chat template", "Pass", {"chat_template.jinja": "{% for m in messages %}{{ m.content }}{% endfor %}"}, ""),
    ("one that reaches out", "Fail", {"chat_template.jinja": DUNDERS}, "__class__"),
    ("one by a filter", "Fail", {"chat_template.jinja": "{{ x | attr('y') }}"}, "attr"),
    ("one of a tokenizer", "Fail", {"tokenizer_config.json": json.dumps({"chat_template": DUNDERS})}, "__class__"),
    (
        "one of several of a tokenizer",
        "Fail",
        {"tokenizer_config.json": json.dumps({"chat_template": [{"name": "x", "template": DUNDERS}]})},
        "__class__",
    ),
    (
        "Sentence Transformers",
        "Pass",
        {"modules.json": '[{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]'},
        "",
    ),
    ("what Sentence Transformers imports", "Fail", {"modules.json": '[{"type": "torch.hub"}]'}, "'torch.hub'"),
    ("a kernel of the Hub", "Fail", {"config.json": '{"attn_implementation": "someone/kernel"}'}, "someone/kernel"),
    (
        "a vocabulary of SentencePiece",
        "Pass",
        {"tokenizer.model": part(1, part(1, b"<unk>") + b"\x18\2") + part(1, part(1, b"a")) + part(2, b"")},
        "",
    ),
    ("a pickle called so", "Fail", {"tokenizer.model": b"cposix\ngetcwd\n)R."}, "posix.getcwd"),
    ("something else called so", "Inconclusive", {"tokenizer.model": b"\x0a\x02\x12\0"}, "tokenizer.model"),
    (
        "safetensors with a head of a TiB",
        "Inconclusive",
        {"m.safetensors": struct.pack("<Q", 1 << 40) + b"{}"},
        "format",
    ),
    ("CatBoost", "Pass", {"m.cbm": b"CBM1\0\0\0\0"}, ""),
    ("XGBoost's UBJ", "Pass", {"m.ubj": b"{L\0\0\0\0\0\0\0\x07learner{}}"}, ""),
    (
        "a loader of MLflow's own, with code beside it",
        "Fail",
        {"MLmodel": "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n    code: code\n"},
        "(code)",
    ),
    (
        "Triton's file of its usual kind",
        "Pass",
        {"config.pbtxt": 'backend: "onnxruntime"\ndefault_model_filename: "n.onnx"\n', "1/n.onnx": part(7, RELU)},
        "",
    ),
    (
        "a graph called ONNX",
        "Inconclusive",
        {"config.pbtxt": GRAPH_DEF_OF_TRITON + '"m.onnx"', "1/m.onnx": GRAPH_DEF + part(7, RELU)},
        "m.onnx",
    ),
    (
        "one that begins like XGBoost's",
        "Inconclusive",
        {"config.pbtxt": GRAPH_DEF_OF_TRITON + '"m.ubj"', "1/m.ubj": b"{|" + GRAPH_DEF},
        "m.ubj",
    ),
    (
        "a file for a backend that nobody names",
        "Inconclusive",
        {"config.pbtxt": 'default_model_filename: "m.onnx"'},
        "m.onnx",
    ),
    (
        "files by the GPU",
        "Inconclusive",
        {"config.pbtxt": 'backend: "pytorch"\ncc_model_filenames { key: "8.0" value: "x" }'},
        "cc_model_filenames",
    ),
    (
        "a backend behind what is a comment to Python only",
        "Fail",
        {"config.pbtxt": 'name: "a\u2028# ", backend: "python"'},
        "Python backend",
    ),
    ("a backend in two strings", "Inconclusive", {"config.pbtxt": 'backend: "fil" "/../evil"'}, "more than one string"),
    ("one in two strings on two lines", "Inconclusive", {"config.pbtxt": "backend: 'fil'\n'x'"}, "more than one"),
    ("an ensemble", "Pass", {"config.pbtxt": 'platform: "ensemble"\nensemble_scheduling { step [] }\n'}, ""),
    ("a comment", "Pass", {"config.pbtxt": '  # backend: "python"\nbackend: "fil"\n'}, ""),
    ("a name that is no UTF-8", "Inconclusive", {os.fsdecode(b"a\xff.xyz"): b"\0\1"}, "format"),
]


@pytest.mark.parametrize(("outcome", "files", "says"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_each_format_is_code_data_or_unknown_as_it_is(outcome: str, files: Files, says: str, tmp_path: Path) -> None:
    report = scanned(files, tmp_path)
    assert report["outcome"] == outcome, report["message"]
    assert says in report["message"]


def test_weights_of_keras_are_let_through_by_their_name(tmp_path: Path) -> None:
    made = zipped({"config.json": b"{}", "model.weights.h5": b"\x89HDF\r\n\x1a\n"})
    assert scanned({"m.keras": made}, tmp_path, ("*.keras!model.weights.h5",))["outcome"] == "Pass"


def test_tensors_beside_an_onnx_are_read_as_pickles_all_the_same(tmp_path: Path) -> None:
    report = scanned({"m.onnx": onnx("m.data"), "m.data": b"cposix\ngetcwd\n)R."}, tmp_path)
    assert (report["outcome"], "posix.getcwd" in report["message"]) == ("Fail", True), report


def test_no_length_in_a_head_takes_memory() -> None:
    for data in (
        gguf_file(struct.pack("<Q", 1 << 60)),
        gguf_file(text(b"k") + struct.pack("<IIQ", 9, 8, 1 << 60)),
        gguf_file(text(b"k") + struct.pack("<IIQ", 9, 10, 1 << 60)),
        gguf_file(text(b"k") + struct.pack("<II", 9, 9) + bytes(8)),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60),
    ):
        with pytest.raises(gguf.GgufError):
            gguf.read_templates(io.BytesIO(data))
    with pytest.raises(protobuf.ProtobufError):
        protobuf.read_keras_metadata(io.BytesIO(part(1, part(5, b" " * (17 << 20)))))
