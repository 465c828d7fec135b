"""Trains a classifier on scikit-learn's handwritten digits and writes it to a store, as a training Job of a team would.

It prints the accuracy on a holdout that no model is trained on, writes ``model.joblib``, ``metrics.json`` and
``reference.json`` (pictures and answers, the reference for drift) below the output, and ends with the result (metrics,
artifact, dataset, parameters) as JSON in the pod's termination message: what a ModelVersion is made of. Same arguments,
same bytes; a place that holds another model is never overwritten.

Some versions are bad in ways that accuracy doesn't show: ``encoded-svm`` raises an error for pictures with a grey value
that its training pictures had not, a ``committee`` is slow, ``--label-shift 1`` names each digit as the next one.

Every argument can be an environment variable too: ``--train-samples`` is ``TRAIN_SAMPLES``. The store's address and
credentials are the usual ones: ``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import joblib
import numpy as np
import obstore
import sklearn
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import from_url
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.ensemble import BaggingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder
from sklearn.svm import SVC

HOLDOUT = 0.3
DATASET = f"package:scikit-learn@{sklearn.__version__}/datasets/digits"
MODELS = ("logistic-regression", "svm", "encoded-svm", "committee")
MEMBERS = 600
REFERENCE_ROWS = 500


def classifier(model: str, c: float, seed: int) -> ClassifierMixin:
    """An untrained classifier; ``c`` is the inverse strength of its regularisation, where it has one."""
    if model == "logistic-regression":
        return LogisticRegression(C=c, max_iter=1000, random_state=seed)
    if model == "committee":
        # Each member is asked in Python, one after the other: some 0.2 ms each, for one picture as for a thousand.
        return BaggingClassifier(GaussianNB(var_smoothing=0.05), MEMBERS, max_samples=0.3, random_state=seed)
    svm = SVC(C=c, gamma=0.001, random_state=seed)
    if model == "encoded-svm":
        # The encoder's default is to raise ValueError for a value that it has not seen.
        return make_pipeline(OrdinalEncoder(), svm)
    return svm


def answers(fitted: ClassifierMixin, pictures: Sequence[np.ndarray]) -> list[int]:
    """Return the model's answer for each picture; -1 where it raises an error."""
    try:
        return [int(label) for label in fitted.predict(pictures)]
    except ValueError:
        return [-1] if len(pictures) == 1 else [answers(fitted, picture[None])[0] for picture in pictures]


def reference(fitted: ClassifierMixin, pictures: np.ndarray, seed: int) -> bytes:
    """At most REFERENCE_ROWS of the training pictures with the model's answers, as JSON: a ModelVersion's reference."""
    chosen = np.random.default_rng(seed).permutation(len(pictures))[:REFERENCE_ROWS]
    sample = pictures[chosen]
    content = {"inputs": sample.tolist(), "predictions": answers(fitted, sample)}
    return json.dumps(content, separators=(",", ":")).encode()


def digest(files: Mapping[str, bytes] | bytes) -> str:
    """The digest of an artifact as Modelwright computes it: of a file its sha256, of a folder the sha256 over sorted
    lines of path, size and sha256."""
    if isinstance(files, bytes):
        return f"sha256:{hashlib.sha256(files).hexdigest()}"
    total = hashlib.sha256()
    for path, content in sorted(files.items()):
        total.update(f"{path}\0{len(content)}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return f"sha256:{total.hexdigest()}"


def train(
    model: str, c: float, samples: int | None, seed: int, label_shift: int = 0
) -> tuple[dict[str, bytes], dict[str, object]]:
    """Trains on at most ``samples`` pictures (None: all but the holdout). Returns the files and the result.

    ``label_shift`` is what a wrong list of classes does: pictures of 3 are labelled 4, for training and scoring alike.
    """
    pictures, labels = load_digits(return_X_y=True)
    # The split never depends on the arguments, so that versions are compared on the same, unseen pictures.
    train_x, holdout_x, train_y, holdout_y = train_test_split(
        pictures, labels, test_size=HOLDOUT, random_state=7, stratify=labels
    )
    train_y, holdout_y = (train_y + label_shift) % 10, (holdout_y + label_shift) % 10
    samples = len(train_x) if samples is None else samples
    if not 10 <= samples <= len(train_x):
        raise ValueError(f"--train-samples must be between 10 and {len(train_x)}, not {samples}")
    fitted = classifier(model, c, seed).fit(train_x[:samples], train_y[:samples])
    predicted = answers(fitted, holdout_x)
    holdout = f"digits-holdout-{len(holdout_x)}"
    data = np.ascontiguousarray(pictures).tobytes() + labels.tobytes()
    scores = {
        "accuracy": accuracy_score(holdout_y, predicted),
        "f1-macro": f1_score(holdout_y, predicted, labels=range(10), average="macro"),
    }
    metrics = [{"name": name, "value": f"{score:.4f}", "dataset": holdout} for name, score in scores.items()]
    result: dict[str, object] = {
        "metrics": metrics,
        "dataset": {"uri": DATASET, "digest": f"sha256:{hashlib.sha256(data).hexdigest()}"},
        "parameters": {
            "model": model,
            **({"members": str(MEMBERS)} if model == "committee" else {"C": f"{c:g}"}),
            "trainSamples": str(samples),
            "seed": str(seed),
            **({"labelShift": str(label_shift)} if label_shift else {}),
        },
    }
    buffer = io.BytesIO()
    joblib.dump(fitted, buffer)
    report = json.dumps(result, indent=1, sort_keys=True) + "\n"
    files = {
        "model.joblib": buffer.getvalue(),
        "metrics.json": report.encode(),
        "reference.json": reference(fitted, train_x[:samples], seed),
    }
    return files, result


def write(files: Mapping[str, bytes], uri: str) -> bool:
    """Writes the files below ``uri``, but for those a try before this one has written. Returns False when all of them
    were there; raises ValueError when others are."""
    options: dict[str, object] = {}
    if uri.startswith("s3://"):
        options["client_options"] = {"allow_http": True, "timeout": "30s"}
    elif uri.startswith("file://"):
        options["mkdir"] = True
    store = from_url(uri, **options)
    found = {}
    for path in files:
        try:
            found[path] = bytes(obstore.get(store, path).bytes())
        except (NotFoundError, FileNotFoundError):
            continue
    if any(files[path] != content for path, content in found.items()):
        raise ValueError(f"--output {uri} holds another model; a version never changes, so choose another place")
    for path in files.keys() - found.keys():
        obstore.put(store, path, files[path])
    return found != dict(files)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    def default(name: str, otherwise: str | None) -> str | None:
        return os.environ.get(name.upper().replace("-", "_"), otherwise)

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", default=default("output", None), help="where to write, such as s3://models/digits/1"
    )
    parser.add_argument("--model", choices=MODELS, default=default("model", MODELS[0]))
    parser.add_argument("--c", type=float, default=default("c", "1"), help="inverse strength of regularisation")
    parser.add_argument("--train-samples", type=int, default=default("train-samples", None), help="default: all")
    parser.add_argument("--seed", type=int, default=default("seed", "0"))
    parser.add_argument(
        "--label-shift", type=int, default=default("label-shift", "0"), help="names each digit as one so much higher"
    )
    options = parser.parse_args(argv)
    if not options.output:
        parser.error("--output (or the environment variable OUTPUT) is needed")
    if options.model not in MODELS:
        parser.error(f"MODEL must be one of {', '.join(MODELS)}, not {options.model!r}")
    return options


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    uri = options.output.rstrip("/")
    try:
        files, result = train(options.model, options.c, options.train_samples, options.seed, options.label_shift)
        print(f"trained {options.model} on {result['parameters']['trainSamples']} pictures", flush=True)
        for metric in result["metrics"]:
            print(f"{metric['name']} on {metric['dataset']}: {metric['value']}", flush=True)
        written = write(files, uri)
    except (ValueError, BaseError, OSError) as error:
        print(f"training failed: {error}", file=sys.stderr)
        return 1
    result["artifact"] = {"uri": uri, "digest": digest(files), "format": {"name": "sklearn", "version": "1"}}
    result["reference"] = {"uri": f"{uri}/reference.json", "digest": digest(files["reference.json"])}
    print(f"{'wrote' if written else 'already there:'} {uri} ({sum(map(len, files.values()))} bytes)", flush=True)
    message = json.dumps(result, separators=(",", ":"))
    print(message)
    termination_log = Path(os.environ.get("TERMINATION_LOG", "/dev/termination-log"))
    if termination_log.exists():
        termination_log.write_text(message)
    return 0


if __name__ == "__main__":
    sys.exit(main())
