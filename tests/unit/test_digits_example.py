"""The example's trainers: same arguments, same bytes; versions of honest, different quality; nothing overwritten."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import joblib
import numpy as np
import pytest
import yaml

from datacheck.__main__ import check_dataset
from demo import digits
from examples.digits import data, evaluate, retrain, shift, train
from modelwright.agents.fetcher.digest import FileEntry, directory_digest
from modelwright.api.v1alpha1.retraining import RetrainingPolicy
from modelwright.core.evaluation_gate import evaluate_report as judge
from modelwright.render.gate_jobs import format_gated_figures

VERSIONS = {
    1: ["--model", "logistic-regression", "--c", "0.01", "--train-samples", "60"],
    2: ["--model", "svm", "--c", "10"],
}


def run(output: Path, log: Path, monkeypatch: pytest.MonkeyPatch, *args: str) -> tuple[int, dict]:
    log.write_text("")
    monkeypatch.setenv("TERMINATION_LOG", str(log))
    output.mkdir(parents=True, exist_ok=True)
    code = train.main(["--output", output.as_uri(), *args])
    return code, json.loads(log.read_text() or "{}")


def accuracy(result: dict) -> float:
    return float(next(metric["value"] for metric in result["metrics"] if metric["name"] == "accuracy"))


def test_two_versions_and_their_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    results = {}
    for version, args in VERSIONS.items():
        code, results[version] = run(tmp_path / str(version), tmp_path / "log", monkeypatch, *args)
        assert code == 0
    assert 0.75 < accuracy(results[1]) < 0.9 < 0.98 < accuracy(results[2])
    assert results[1]["dataset"] == results[2]["dataset"]
    assert set(results[1]) == {"metrics", "dataset", "parameters", "artifact", "reference"}
    assert len((tmp_path / "log").read_bytes()) < 4096, "a termination message holds 4096 bytes"
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == [
        "metrics.json",
        "model.joblib",
        "reference.json",
    ]


def test_each_bad_version_is_bad_in_its_own_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    held = digits.load_holdout()
    args = {
        3: ["--model", "encoded-svm", "--c", "10", "--train-samples", "150"],
        5: ["--model", "svm", "--c", "10", "--label-shift", "1"],
    }
    models, results = {}, {}
    for version, given in args.items():
        folder = tmp_path / str(version)
        _, results[version] = run(folder, tmp_path / "log", monkeypatch, *given)
        models[version] = joblib.load(folder / "model.joblib")
    refused = 0
    for picture in held.pictures:
        try:
            models[3].predict([picture])
        except ValueError:
            refused += 1
    assert 0.3 < refused / len(held.pictures) < 0.4
    # Its own metrics can't tell: they were made with the same wrong list of classes.
    assert accuracy(results[5]) > 0.98
    assert digits.accuracy(list(models[5].predict(held.pictures)), held.labels) < 0.01
    assert results[3]["dataset"] == results[5]["dataset"]
    assert train.classifier("committee", 1, 0).n_estimators == train.MEMBERS


def test_the_same_arguments_give_the_same_bytes_and_another_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    first = run(tmp_path / "1", tmp_path / "log", monkeypatch, *VERSIONS[1])
    assert run(tmp_path / "1", tmp_path / "log", monkeypatch, *VERSIONS[1]) == first
    assert "already there" in capsys.readouterr().out
    code, _ = run(tmp_path / "1", tmp_path / "log", monkeypatch, *VERSIONS[2])
    assert code == 1
    assert "holds another model" in capsys.readouterr().err
    # A try that was cut short is taken up by the next.
    (tmp_path / "1" / "metrics.json").unlink()
    assert run(tmp_path / "1", tmp_path / "log", monkeypatch, *VERSIONS[1]) == first
    assert (tmp_path / "1" / "metrics.json").exists()


def test_the_trainer_and_the_fetch_image_agree_on_the_digest():
    files = {"b/c.txt": b"bc", "a.txt": b"a"}
    entries = [FileEntry(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in files.items()]
    assert train.digest(files) == directory_digest(entries)
    assert train.digest(b"a") == f"sha256:{hashlib.sha256(b'a').hexdigest()}"


@pytest.mark.parametrize("samples", ["9", "100000"])
def test_a_wrong_argument_is_named(
    samples: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run(tmp_path / "1", tmp_path / "log", monkeypatch, "--train-samples", samples)[0] == 1
    assert "--train-samples must be between 10 and" in capsys.readouterr().err


def test_arguments_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    for name, value in {"OUTPUT": "s3://models/digits/1", "MODEL": "svm", "C": "10", "TRAIN_SAMPLES": "100"}.items():
        monkeypatch.setenv(name, value)
    options = train.arguments([])
    assert (options.output, options.model, options.c, options.train_samples) == ("s3://models/digits/1", "svm", 10, 100)


POLICY = yaml.safe_load((Path(train.__file__).parent / "retraining-policy.yaml").read_text())
FEW = 120
"""Pictures of each kind in the tests' small data sets."""


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's data sets."""
    folder = tmp_path_factory.mktemp("sets")
    assert shift.main(["--output", str(folder)]) == 0
    return folder


def test_the_data_sets_are_real_digits_in_three_ways_and_no_picture_is_in_two_of_them(sets: Path):
    known, held = data.read(sets / "shifted"), data.read(sets / "holdout")
    assert (len(known), len(held)) == (3 * 1257, 3 * 540)
    assert held.pictures[:540].tolist() == digits.load_holdout().pictures
    assert {tuple(row) for row in known.pictures}.isdisjoint(map(tuple, held.pictures))
    for labelled in (known, held):
        assert (labelled.pictures.min(), labelled.pictures.max()) == (0, 16)
        plain, inverted, blurred = (labelled.pictures[labelled.origins == origin] for origin in shift.ORIGINS)
        assert (plain + inverted == 16).all()
        assert blurred[0].reshape(8, 8)[3, 3] == pytest.approx(plain[0].reshape(8, 8)[2:5, 2:5].mean(), abs=0.001)
    assert shift.files() == {str(path.relative_to(sets)): path.read_bytes() for path in sets.rglob("*.csv")}


def test_the_policy_is_one_and_its_schema_takes_the_good_data_and_refuses_the_damaged(sets: Path):
    RetrainingPolicy.model_validate(POLICY)
    inputs = {"schema": POLICY["spec"]["run"]["dataCheck"]["schema"]}
    found = {}
    for name in ("plain", "shifted", "damaged"):
        checks, _ = check_dataset(sets / name, inputs, datetime(2026, 1, 1, tzinfo=UTC))
        found[name] = [check.name for check in checks if not check.passed]
    assert found == {
        "plain": [],
        "shifted": [],
        "damaged": ["nulls:pixel*", "range:pixel*", "type:label", "duplicates"],
    }


def small(source: Path, folder: Path) -> Path:
    """A data set of the first FEW pictures of each kind, so that a search takes a moment."""
    labelled = data.read(source)
    chosen = labelled.rows(labelled.groups < FEW)
    folder.mkdir()
    np.savez(folder / "few.npz", X=chosen.pictures, y=chosen.labels, origin=chosen.origins, picture=chosen.groups)
    return folder


def run_stage(main: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **given: object):
    """The exit status and result of a stage with the inputs that a run gives it."""
    environment = {key: str(value) for key, value in given.items() if key.isupper()}
    inputs = {
        "model": "digits",
        "run": "digits-drift-1",
        "seed": 3,
        "parameters": given.get("parameters", {"trials": "3"}),
        "dataset": {"uri": "s3://models/data/digits", "digest": "sha256:d", "dir": environment.get("DATASET_DIR")},
        "output": {"uri": (tmp_path / "out").as_uri()},
        **{name: {} for name in given.get("also", ())},
    }
    (tmp_path / "inputs.json").write_text(json.dumps(inputs))
    (tmp_path / "log").write_text("")
    for key, value in {
        **environment,
        "INPUTS_FILE": tmp_path / "inputs.json",
        "TERMINATION_LOG": tmp_path / "log",
    }.items():
        monkeypatch.setenv(key, str(value))
    code = main()
    return code, json.loads((tmp_path / "log").read_text() or "{}")


def test_a_search_gives_the_best_of_its_trials_and_all_that_a_version_needs(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    few = small(sets / "shifted", tmp_path / "few")
    code, result = run_stage(retrain.main, tmp_path, monkeypatch, DATASET_DIR=few, also=["holdout"])
    assert code == 0
    out = tmp_path / "out"
    trials = json.loads((out / "trials.json").read_text())
    best = max(trials, key=lambda trial: trial["metrics"]["cv-accuracy"])
    assert len(trials) == 3
    assert result["metrics"] == best["metrics"]
    assert result["parameters"]["C"] == pytest.approx(best["parameters"]["C"], rel=1e-5)
    assert capsys.readouterr().out.count("trial ") >= 3
    assert result["dataset"] == {"uri": "s3://models/data/digits", "digest": "sha256:d"}
    assert result["artifact"]["uri"] == f"{out.as_uri()}/model"
    model = (out / "model" / "model.joblib").read_bytes()
    assert result["artifact"]["digest"] == train.digest({"model.joblib": model})
    reference = (out / "reference.json").read_bytes()
    assert result["reference"] == {"uri": f"{out.as_uri()}/reference.json", "digest": train.digest(reference)}
    sample = json.loads(reference)
    assert len(sample["inputs"]) == len(sample["predictions"]) == 3 * FEW
    assert joblib.load(out / "model" / "model.joblib").predict(sample["inputs"]).tolist() == sample["predictions"]
    # Same inputs, same bytes: a second try of the Job finds what the first wrote.
    assert run_stage(retrain.main, tmp_path, monkeypatch, DATASET_DIR=few, also=["holdout"]) == (0, result)
    assert "already there" in capsys.readouterr().out


@pytest.mark.parametrize("holdout", [True, False], ids=["a holdout", "a part of the dataset"])
def test_both_versions_are_scored_on_the_same_pictures_held_out_from_the_new_one(
    holdout: bool, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    few, also = small(sets / "shifted", tmp_path / "few"), ["holdout"] if holdout else []
    _, trained = run_stage(retrain.main, tmp_path, monkeypatch, DATASET_DIR=few, also=also)
    assert trained["parameters"]["trainSamples"] == (3 * FEW if holdout else 3 * FEW * 3 // 4)
    run(tmp_path / "serving", tmp_path / "log", monkeypatch, *VERSIONS[2])
    where = {"CANDIDATE_DIR": tmp_path / "out" / "model", "SERVING_DIR": tmp_path / "serving", "DATASET_DIR": few}
    where |= {"HOLDOUT_DIR": sets / "holdout"} if holdout else {}
    parameters = {"minSlice": "10"}
    code, report = run_stage(
        evaluate.main, tmp_path, monkeypatch, **where, also=[*also, "serving"], parameters=parameters
    )
    assert code == 0
    found = {(each["name"], each.get("slice")): each for each in report["metrics"]}
    assert set(found) == {
        (name, part)
        for name in ("accuracy", "precision", "recall", "f1")
        for part in (None, "plain", "inverted", "blurred")
    }
    # A picture and its copies are one example.
    assert found["accuracy", None]["n"] == (540 if holdout else FEW // 4)
    assert {"standardError", "candidateStandardError"} < set(found["accuracy", None])
    assert {"better", "worse"} < set(found["accuracy", "plain"])
    assert {"standardError", "candidateStandardError"} < set(found["f1", "plain"])
    assert found["accuracy", "plain"]["serving"] > 0.9
    assert found["accuracy", "inverted"]["serving"] < 0.2 < 0.4 < found["accuracy", "inverted"]["candidate"]
    matrix = report["confusionMatrix"]
    assert (len(matrix["labels"]), sum(map(sum, matrix["counts"]))) == (10, 1620 if holdout else 3 * FEW // 4)
    assert len((tmp_path / "log").read_bytes()) <= 4096
    # What the policy's gates ask for is in the report; so few pictures are not enough to pass them all.
    gates = RetrainingPolicy.model_validate(POLICY).spec.run.evaluate
    assert gates is not None
    assert judge(gates.gates, report, first=False).reason == "MetricOutOfLimits"
    gated = {"GATED_FIGURES": format_gated_figures(gates.gates)}
    _, short = run_stage(
        evaluate.main, tmp_path, monkeypatch, **where, **gated, also=[*also, "serving"], parameters=parameters
    )
    asked = [("accuracy", None), ("f1", None), *(("accuracy", part) for part in ("blurred", "inverted", "plain"))]
    assert [(each["name"], each.get("slice")) for each in short["metrics"]] == asked
    assert len((tmp_path / "log").read_bytes()) <= 12 * 1024 // 5, "five containers share 12 KiB"


def test_a_slice_of_few_pictures_is_left_out_and_without_a_serving_version_there_is_no_figure_of_it(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run(tmp_path / "2", tmp_path / "log", monkeypatch, *VERSIONS[2])
    where = {"CANDIDATE_DIR": tmp_path / "2", "HOLDOUT_DIR": small(sets / "holdout", tmp_path / "few")}
    parameters = {"minSlice": "121"}
    code, report = run_stage(evaluate.main, tmp_path, monkeypatch, **where, also=["holdout"], parameters=parameters)
    assert code == 0
    assert {(each.get("slice"), each.get("serving")) for each in report["metrics"]} == {(None, None)}


@pytest.mark.parametrize(
    ("main", "content", "parameters", "told"),
    [
        (retrain.main, None, {}, "holds no .csv and no .npz file"),
        (retrain.main, "pixel0,label\n1,2\n", {}, "bad.csv is no set of labelled digits: 'pixel1'"),
        (retrain.main, "x\n", {"trials": "many"}, "parameter trials must be a whole number from 1 to 200, not 'many'"),
        (retrain.main, "x\n", {"folds": "1"}, "parameter folds must be a whole number from 2 to 10"),
        (evaluate.main, "x\n", {"minSlice": "0"}, "parameter minSlice must be"),
    ],
)
def test_a_stage_that_can_not_go_on_says_why(
    main: Callable[[], int],
    content: str | None,
    parameters: dict[str, str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    folder = tmp_path / "data"
    folder.mkdir()
    if content:
        (folder / "bad.csv").write_text(content)
    assert run_stage(main, tmp_path, monkeypatch, DATASET_DIR=folder, parameters=parameters) == (1, {})
    assert told in capsys.readouterr().err


def test_outside_of_a_run_a_stage_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.delenv("INPUTS_FILE", raising=False)
    assert (retrain.main(), evaluate.main()) == (1, 1)
    assert capsys.readouterr().err.count("INPUTS_FILE is not set") == 2
