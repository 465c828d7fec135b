"""The example trainer: same arguments, same bytes; versions of honest, different quality; nothing overwritten."""

import hashlib
import json
from pathlib import Path

import joblib
import pytest

from demo import digits
from examples.digits import train
from modelwright.fetch.digest import Entry, of_directory

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
    assert set(results[1]) == {"metrics", "dataset", "parameters", "artifact"}
    assert len((tmp_path / "log").read_bytes()) < 4096, "a termination message holds 4096 bytes"
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == ["metrics.json", "model.joblib"]


def test_each_bad_version_is_bad_in_its_own_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    held = digits.holdout()
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


def test_the_trainer_and_the_fetch_image_agree_on_the_digest():
    files = {"b/c.txt": b"bc", "a.txt": b"a"}
    entries = [Entry(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in files.items()]
    assert train.digest(files) == of_directory(entries)


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
