"""Converts addresses and formats of artifacts from other projects."""

from __future__ import annotations

import re
from collections.abc import Mapping

from modelwright.api.names import API_VERSION
from modelwright.cli.imports.fields import Fields, Json
from modelwright.cli.imports.foreign_objects import ForeignObject

SHIPPED_FORMATS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "huggingface": {"huggingface": ()},
    "mlserver": {"sklearn": ("1",), "xgboost": ("1", "2", "3"), "lightgbm": ("3", "4")},
    "tensorflow-serving": {"tensorflow": ("1", "2")},
    "triton": {"triton": (), "onnx": ("1",), "tensorrt": (), "torchscript": (), "tensorflow": ("1", "2")},
    "vllm": {"vllm": (), "huggingface": ()},
}
"""Formats of the shipped runtimes, with their listed versions (empty: any)."""

_AZURE_BLOB = re.compile(r"https://([a-z0-9]+)\.blob\.core\.windows\.net/(.+)")
_COPY_HINT = "copy the files to an object store, a volume or a registry, and name that in spec.artifact.uri"
_UNSUPPORTED_STORES = (
    (
        re.compile(r"https://[a-z0-9]+\.file\.core\.windows\.net/.*"),
        "Azure file shares are no store: mount the share as a PersistentVolumeClaim and write pvc://CLAIM/PATH",
    ),
    (re.compile(r"(web)?hdfs://.*"), f"HDFS is no store here: {_COPY_HINT}"),
    (re.compile(r"https?://.*\.git(#.*|@.*)?"), f"git is no store here: {_COPY_HINT}"),
    (re.compile(r"(s3|gs)://[^/]+/?"), "names a whole bucket: name a folder in it, as in s3://BUCKET/FOLDER"),
    (re.compile(r"hf://[^/]+"), "names no organisation: write hf://ORGANISATION/NAME"),
    (
        re.compile(r"(file://)?/.*"),
        "is a path in the server's own image or node: put the files into a store or "
        "a volume, "
        "and name that in spec.artifact.uri",
    ),
    (
        re.compile(r"(modelscope|ms|wasbs?|abfss?|minio|rclone|models|runs|mlflow-artifacts):.*"),
        f"is no store here: {_COPY_HINT}",
    ),
)
_SCHEME_ALIASES = (("gcs://", "gs://"), ("oci+native://", "oci://"), ("oci+fetch://", "oci://"))
_HUB_REVISION = re.compile(r"hf://([^/:@]+/[^/:@]+):(.+)")


def convert_address(fields: Fields, key: str) -> str:
    """Convert the address in a field; note the remaining work."""
    uri = fields.text(key)
    blob, hub = _AZURE_BLOB.fullmatch(uri), _HUB_REVISION.fullmatch(uri)
    if blob:
        uri = f"az://{blob[1]}/{blob[2]}"
    elif hub:
        uri = f"hf://{hub[1]}@{hub[2]}"
    for foreign, ours in _SCHEME_ALIASES:
        uri = ours + uri.removeprefix(foreign) if uri.startswith(foreign) else uri
    problem = next((text for pattern, text in _UNSUPPORTED_STORES if pattern.fullmatch(uri)), None)
    if problem is not None:
        fields.note(key, f"{uri} {problem}")
    return uri


def modelcar_path(fields: Fields, key: str, uri: str) -> Json:
    """Return the path of the model in KServe's modelcar image, for spec.artifact; empty for other addresses."""
    if not uri.startswith("oci://"):
        return {}
    fields.note(
        key,
        "a modelcar image has its model in models/, so spec.artifact.path is models: leave it out for an artifact that "
        "was pushed as files",
    )
    return {"path": "models"}


def shipped_runtimes(name: str) -> list[str]:
    """List the shipped runtimes that serve a format."""
    return [runtime for runtime, formats in SHIPPED_FORMATS.items() if name in formats]


def convert_format(name: str, version: str, place: Fields, key: str) -> Json:
    """Build spec.artifact.format; note when no shipped runtime serves it. `place` and `key`: where the format was
    read."""
    runtimes = shipped_runtimes(name)
    if not runtimes:
        text = (
            "no artifact format is given, and runtimes are chosen by it: write it into spec.artifact.format"
            if not name
            else f"no runtime that is shipped serves {name}: write a ModelRuntime that lists it (how-to: runtimes)"
        )
        place.note(key, text) if key in place else place.note_here(text)
        return {"name": name or "unknown", **({"version": version} if version else {})}
    if name == "tensorflow":
        place.note_here(
            "TensorFlow's files are in a folder named by a number (1, 0001) below the address, and the runtime here "
            "wants the SavedModel itself: add that folder to spec.artifact.uri"
        )
    listed = {entry for runtime in runtimes for entry in SHIPPED_FORMATS[runtime][name]}
    if version and listed and version not in listed:
        major = version.split(".")[0]
        if major in listed:
            place.note_here(
                f"format version {version} is taken as {major}, which is what the shipped runtime lists: its library "
                "may be another one than the model was saved with"
            )
            return {"name": name, "version": major}
        place.note_here(f"the shipped runtimes list versions {', '.join(sorted(listed))} of {name}, and not {version}")
    return {"name": name, **({"version": version} if version else {})}


def build_version(of: ForeignObject, name: str, model: str, artifact: Json) -> Json:
    """Build a ModelVersion."""
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelVersion",
        "metadata": of.build_metadata(name),
        "spec": {"modelRef": {"name": model}, "artifact": artifact},
    }


def build_model(of: ForeignObject, name: str, spec: Json, labels: Mapping[str, str] | None = None) -> Json:
    """Build a Model without the empty fields of its spec."""
    metadata = of.build_metadata(name) | ({"labels": dict(labels)} if labels else {})
    wanted = {key: value for key, value in spec.items() if value not in (None, {})}
    return {"apiVersion": API_VERSION, "kind": "Model", "metadata": metadata, "spec": wanted}


def convert_credentials(fields: Fields, key: str, artifact: Json) -> None:
    """Convert the reference to a store's Secret, and note that its keys have other names here."""
    secret = fields.text(key)
    if secret:
        artifact["credentialsSecretRef"] = {"name": secret}
        fields.note(
            key,
            f"Secret {secret} is named in spec.artifact.credentialsSecretRef, whose keys have names of their own "
            "(how-to: artifacts, credentials): write them into it, or into another",
        )
