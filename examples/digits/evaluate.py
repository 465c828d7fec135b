"""The evaluate stage of a run: the new version and the serving one on the same pictures, held out from both.

The pictures are those of ``HOLDOUT_DIR``, or the part of the dataset that retrain.py held back. The figures are for all
pictures and for each origin with at least ``minSlice`` (30, a parameter of the run) of them: accuracy, and precision,
recall and F1 as the mean over the digits; with ``GATED_FIGURES``, those that the gates ask for. Accuracy comes with the
pictures that only one of the two versions gets right. The other figures, and all where the same picture is there in
several ways, come with standard errors: by resampling pictures, each with its copies (Efron and Tibshirani 1993, "An
Introduction to the Bootstrap"). The confusion matrix is the new version's.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from examples.digits import data, stage
from examples.digits.train import answers

DIGITS = list(range(10))
RESAMPLES = 200
Key = tuple[str, str | None]
"""Name and slice of a figure."""


def load(directory: str) -> ClassifierMixin:
    """The model in a directory. Raises ValueError unless there is exactly one."""
    found = sorted(Path(directory).rglob("*.joblib"))
    if len(found) != 1:
        raise ValueError(f"{directory} must hold one .joblib file, but holds {len(found)}")
    return joblib.load(found[0])


def scores(truth: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """Figures by name. A digit that no picture shows is left out; one that is never predicted has precision 0."""
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, said, labels=np.unique(truth), average="macro", zero_division=0
    )
    found = {"accuracy": accuracy_score(truth, said), "precision": precision, "recall": recall, "f1": f1}
    return {name: float(value) for name, value in found.items()}


def errors(labelled: data.Labelled, candidate: np.ndarray, serving: np.ndarray | None) -> dict[str, dict[str, float]]:
    """By name of the figure, the standard errors of the candidate's and of the difference to the serving version's."""
    groups = [np.flatnonzero(labelled.groups == group) for group in np.unique(labelled.groups)]
    random = np.random.default_rng(0)
    seen = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([groups[i] for i in random.integers(len(groups), size=len(groups))])
        new = scores(labelled.labels[rows], candidate[rows])
        old = scores(labelled.labels[rows], serving[rows]) if serving is not None else {}
        seen.append({name: (value, value - old[name] if old else 0.0) for name, value in new.items()})
    spread = {name: np.std([each[name] for each in seen], axis=0, ddof=1) for name in seen[0]}
    return {
        name: {"candidateStandardError": float(own), **({} if serving is None else {"standardError": float(apart)})}
        for name, (own, apart) in spread.items()
    }


def certainty(
    labelled: data.Labelled, candidate: np.ndarray, serving: np.ndarray | None
) -> dict[str, dict[str, float]]:
    """By name of the figure, what the report says of how sure it is."""
    pictures = len(np.unique(labelled.groups))
    found = {name: {"n": pictures, **error} for name, error in errors(labelled, candidate, serving).items()}
    if pictures == len(labelled):
        right = candidate == labelled.labels
        found["accuracy"] = {"n": pictures}
        if serving is not None:
            before = serving == labelled.labels
            found["accuracy"] |= {"better": int((right & ~before).sum()), "worse": int((before & ~right).sum())}
    return found


def figures(
    held: data.Labelled, candidate: np.ndarray, serving: np.ndarray | None, least: int
) -> Iterator[dict[str, Any]]:
    """The report's metrics: for the whole, and for each origin with at least ``least`` pictures."""
    for part in (None, *sorted(set(held.origins.tolist()) - {""})):
        chosen = held.origins == part if part else np.full(len(held), True)
        if part and chosen.sum() < least:
            print(f"slice {part} has {chosen.sum()} pictures; fewer than {least} say too little", flush=True)
            continue
        labelled, ours = held.rows(chosen), candidate[chosen]
        theirs = serving[chosen] if serving is not None else None
        sure = certainty(labelled, ours, theirs)
        new = scores(labelled.labels, ours)
        old = scores(labelled.labels, theirs) if theirs is not None else {}
        for name, value in new.items():
            figure = {"name": name, "candidate": value, **({"slice": part} if part else {})}
            numbers = {**figure, **({"serving": old[name]} if old else {}), **sure[name]}
            yield {key: round(each, 6) if isinstance(each, float) else each for key, each in numbers.items()}


def gated() -> set[Key] | None:
    """The figures that the gates ask for; None outside of a run."""
    told = os.environ.get("GATED_FIGURES")
    return {(each["name"], each.get("slice")) for each in json.loads(told)} if told else None


def main() -> int:
    try:
        inputs = stage.inputs()
        least = stage.number(inputs, "minSlice", 30, 1, 10**9)
        if "holdout" in inputs:
            held = data.read(Path(os.environ["HOLDOUT_DIR"]))
        else:
            _, held = data.split(data.read(Path(os.environ["DATASET_DIR"])), int(inputs["seed"]))
        candidate = np.array(answers(load(os.environ["CANDIDATE_DIR"]), held.pictures))
        serving = None
        if "serving" in inputs:
            serving = np.array(answers(load(os.environ["SERVING_DIR"]), held.pictures))
        metrics = list(figures(held, candidate, serving, least))
        for metric in metrics:
            print(" ".join(f"{key}={value}" for key, value in metric.items()), flush=True)
        asked = gated()
        if asked is not None:
            metrics = [metric for metric in metrics if (metric["name"], metric.get("slice")) in asked]
        counts = confusion_matrix(held.labels, candidate, labels=DIGITS).tolist()
        stage.finish({"metrics": metrics, "confusionMatrix": {"labels": list(map(str, DIGITS)), "counts": counts}})
    except (ValueError, KeyError, OSError) as error:
        print(f"evaluation failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
