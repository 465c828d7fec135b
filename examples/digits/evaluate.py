"""The evaluate stage of a run: the new version and the serving one on the same pictures, held out from both.

The pictures are those of ``HOLDOUT_DIR``, or the part of the dataset that retrain.py held back. The figures are for all
pictures and for each origin with at least ``minSlice`` (30, a parameter of the run) of them: accuracy, and precision,
recall and F1 as the mean over the digits. The confusion matrix is the new version's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from examples.digits import data, stage
from examples.digits.train import answers

DIGITS = list(range(10))


def load(directory: str) -> ClassifierMixin:
    """The model in a directory. Raises ValueError unless there is exactly one."""
    found = sorted(Path(directory).rglob("*.joblib"))
    if len(found) != 1:
        raise ValueError(f"{directory} must hold one .joblib file, but holds {len(found)}")
    return joblib.load(found[0])


def scores(truth: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """Figures by name. A digit that no picture shows counts for nothing; one that is never said has precision 0."""
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, said, labels=np.unique(truth), average="macro", zero_division=0
    )
    found = {"accuracy": accuracy_score(truth, said), "precision": precision, "recall": recall, "f1": f1}
    return {name: round(float(value), 4) for name, value in found.items()}


def figures(
    held: data.Labelled, candidate: np.ndarray, serving: np.ndarray | None, least: int
) -> Iterable[dict[str, Any]]:
    """The report's metrics: for the whole, and for each origin with at least ``least`` pictures."""
    for part in ("", *sorted(set(held.origins.tolist()) - {""})):
        chosen = held.origins == part if part else np.full(len(held), True)
        if part and chosen.sum() < least:
            print(f"slice {part} has {chosen.sum()} pictures; fewer than {least} say too little", flush=True)
            continue
        new = scores(held.labels[chosen], candidate[chosen])
        old = {} if serving is None else scores(held.labels[chosen], serving[chosen])
        for name, value in new.items():
            yield {
                "name": name,
                "candidate": value,
                **({"serving": old[name]} if old else {}),
                **({"slice": part} if part else {}),
                "n": int(chosen.sum()),
            }


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
        counts = confusion_matrix(held.labels, candidate, labels=DIGITS).tolist()
        stage.finish({"metrics": metrics, "confusionMatrix": {"labels": list(map(str, DIGITS)), "counts": counts}})
    except (ValueError, KeyError, OSError) as error:
        print(f"evaluation failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
