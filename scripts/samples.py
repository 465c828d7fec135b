"""Three versions of a small model as OCI artifacts for the quickstart; `make push` pushes them beside the images."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from scripts.registry import MANIFEST, Image, Registry, digest_of, find_login

ARTIFACT_TYPE = "application/vnd.modelwright.sample.v1"
_EMPTY = b"{}"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_FILE = "model.joblib"
_TITLE = "org.opencontainers.image.title"


def train() -> dict[str, bytes]:
    """Train the file of each version by its tag: 1 is good, 2 predicts only wrong classes, 3 is another good one.

    The same scikit-learn gives the same bytes.
    """
    rows, classes = load_iris(return_X_y=True)
    models = {
        "1": LogisticRegression(max_iter=500).fit(rows, classes),
        "2": LogisticRegression(max_iter=500).fit(rows, (classes + 1) % 3),
        "3": SVC().fit(rows, classes),
    }
    return {tag: _dump(model) for tag, model in models.items()}


def push(place: str, versions: Mapping[str, bytes], *, plain_http: bool) -> list[str]:
    """Push the versions to `<place>/iris`, with the login of Docker or buildah; return their references by tag.

    `place` is a registry with a path, such as registry.example.com/modelwright. Raises RegistryError.
    """
    host, _, path = place.partition("/")
    image = Image(host, f"{path}/iris".lstrip("/"), "")
    registry = Registry(image, find_login(image), plain_http=plain_http)
    for tag, data in versions.items():
        registry.put_blob(_EMPTY)
        registry.put_blob(data)
        registry.put_manifest(tag, _manifest(data))
    return [f"{image.name}:{tag}" for tag in versions]


def _dump(model: object) -> bytes:
    out = io.BytesIO()
    joblib.dump(model, out)
    return out.getvalue()


def _manifest(data: bytes) -> bytes:
    """Build the manifest of an artifact with one file, like `oras push`."""
    layer = _descriptor("application/octet-stream", data) | {"annotations": {_TITLE: _FILE}}
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": ARTIFACT_TYPE,
            "config": _descriptor(_EMPTY_TYPE, _EMPTY),
            "layers": [layer],
        }
    ).encode()


def _descriptor(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}
