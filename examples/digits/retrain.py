"""The train stage of a run: searches the best support vector machine with Optuna, and writes it to the run's place.

Below ``OUTPUT_URI``: ``model/model.joblib`` is the artifact; beside it ``report.json`` (the figures), ``trials.json``
(every trial of the search) and ``reference.json`` (the reference sample for drift). Figures are from a
cross-validation in which all copies of a picture are on the same side. Same inputs, same bytes. Parameters of the run:
``trials`` (12), ``folds`` (3).
"""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import optuna
from obstore.exceptions import BaseError
from sklearn.model_selection import StratifiedGroupKFold, cross_validate
from sklearn.svm import SVC

from examples.digits import data, stage
from examples.digits.train import digest, reference, write

SCORES = {"cv-accuracy": "accuracy", "cv-f1-macro": "f1_macro"}


def search(
    labelled: data.Labelled, trials: int, folds: int, seed: int
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """The best C and gamma by cross-validated accuracy, and all trials with their figures, in their order."""
    folded = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)

    def objective(trial: optuna.Trial) -> float:
        c, gamma = trial.suggest_float("C", 0.1, 100, log=True), trial.suggest_float("gamma", 1e-4, 1e-2, log=True)
        found = cross_validate(
            SVC(C=c, gamma=gamma, random_state=seed),
            labelled.pictures,
            labelled.labels,
            groups=labelled.groups,
            cv=folded,
            scoring=list(SCORES.values()),
        )
        for name, score in SCORES.items():
            trial.set_user_attr(name, round(float(found[f"test_{score}"].mean()), 4))
        print(f"trial {trial.number}: C={c:.4g} gamma={gamma:.4g} {trial.user_attrs}", flush=True)
        return float(trial.user_attrs["cv-accuracy"])

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(objective, n_trials=trials)
    # Times are left out: they would make other bytes of the same search.
    told = [
        {"number": each.number, "parameters": each.params, "metrics": each.user_attrs, "state": each.state.name}
        for each in study.trials
    ]
    return study.best_params, told


def main() -> int:
    try:
        inputs = stage.inputs()
        uri, seed = inputs["output"]["uri"].rstrip("/"), int(inputs["seed"])
        trials, folds = stage.number(inputs, "trials", 12, 1, 200), stage.number(inputs, "folds", 3, 2, 10)
        labelled = data.read(Path(os.environ["DATASET_DIR"]))
        if "holdout" not in inputs:
            labelled, _ = data.split(labelled, seed)
        print(f"searching with {trials} trials of {folds} folds on {len(labelled)} pictures", flush=True)
        best, told = search(labelled, trials, folds, seed)
        metrics = next(trial["metrics"] for trial in told if trial["parameters"] == best)
        model = SVC(**best, random_state=seed).fit(labelled.pictures, labelled.labels)
        buffer = io.BytesIO()
        joblib.dump(model, buffer)
        parameters = {"model": "svm", "trainSamples": len(labelled), "seed": seed, "trials": trials, **best}
        origins = {str(name): int(n) for name, n in zip(*np.unique(labelled.origins, return_counts=True), strict=True)}
        report = {"dataset": inputs["dataset"], "metrics": metrics, "parameters": parameters, "origins": origins}
        files = {
            "model/model.joblib": buffer.getvalue(),
            "report.json": _json(report),
            "trials.json": _json(told),
            "reference.json": reference(model, labelled.pictures, seed),
        }
        written = write(files, uri)
        print(f"{'wrote' if written else 'already there:'} {uri}; best: {best}", flush=True)
        artifact = {"model.joblib": files["model/model.joblib"]}
        stage.finish(
            {
                "artifact": {
                    "uri": f"{uri}/model",
                    "digest": digest(artifact),
                    "format": {"name": "sklearn", "version": "1"},
                },
                "metrics": metrics,
                "parameters": {
                    name: float(f"{v:.6g}") if isinstance(v, float) else v for name, v in parameters.items()
                },
                "dataset": {name: inputs["dataset"][name] for name in ("uri", "digest")},
                "reference": {"uri": f"{uri}/reference.json", "digest": digest(files["reference.json"])},
            }
        )
    except (ValueError, KeyError, BaseError, OSError) as error:
        print(f"training failed: {error}", file=sys.stderr)
        return 1
    return 0


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


if __name__ == "__main__":
    sys.exit(main())
