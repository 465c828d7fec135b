"""The data check: each damage is found by its own check and by no other, in every kind of file."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datacheck.__main__ import check_dataset, main

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROWS = 400
SCHEMA: dict[str, Any] = {
    "columns": {
        "id": {"type": "int", "unique": True},
        "age": {"type": "float", "min": 0, "max": 120, "maxOutlierShare": "0.02"},
        "income": {"type": "float", "nullable": False, "maxNullShare": "0.01"},
        "city": {"type": "string", "allowed": ["Berlin", "Paris", "Rome"]},
        "member": {"type": "bool", "nullable": True},
        "ts": {"type": "datetime"},
        "pixel*": {"type": "int", "min": 0, "max": 16},
    },
    "strict": True,
    "duplicates": {"maxShare": "0.01", "keys": ["age", "income", "city"]},
    "rows": {"min": 300, "max": 1000},
    "freshness": {"column": "ts", "maxAge": "48h"},
}


def good(rows: int = ROWS, seed: int = 1) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "id": np.arange(rows),
            "age": random.uniform(18, 90, rows).round(1),
            "income": random.normal(3000, 500, rows).round(2),
            "city": random.choice(["Berlin", "Paris", "Rome"], rows),
            "member": random.choice([True, False], rows),
            "ts": [(NOW - timedelta(hours=1, minutes=i)).isoformat() for i in range(rows)],
            **{f"pixel{i}": random.integers(0, 17, rows) for i in range(64)},
        }
    )


def to_csv(frame: pd.DataFrame, folder: Path) -> None:
    frame.to_csv(folder / "part.csv", index=False)


def to_jsonl(frame: pd.DataFrame, folder: Path) -> None:
    frame.to_json(folder / "part.jsonl", orient="records", lines=True)


def to_parquet(frame: pd.DataFrame, folder: Path) -> None:
    frame.to_parquet(folder / "part.parquet")


def to_two_csv(frame: pd.DataFrame, folder: Path) -> None:
    frame.iloc[:100].to_csv(folder / "a.csv", index=False)
    (folder / "more").mkdir()
    frame.iloc[100:].to_csv(folder / "more" / "b.csv", index=False)
    (folder / "_SUCCESS").touch()


WRITERS = {"csv": to_csv, "jsonl": to_jsonl, "parquet": to_parquet, "two files": to_two_csv}


def failed(folder: Path, schema: dict[str, Any], **inputs: object) -> dict[str, str]:
    checks, _ = check_dataset(folder, {"schema": schema, **inputs}, NOW)
    assert checks
    return {check.name: check.message for check in checks if not check.passed}


def put(column: str, value: object, *rows: int) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        values = frame[column].astype(object).tolist()
        for row in rows:
            values[row] = value
        return frame.assign(**{column: pd.Series(values, dtype=object if isinstance(value, str) else None)})

    return change


FIRST = tuple(range(20))
DAMAGES: list[tuple[str, Callable[[pd.DataFrame], pd.DataFrame], str, str]] = [
    ("a column is missing", lambda frame: frame.drop(columns="member"), "columns", "missing: member"),
    ("there is one more column", lambda frame: frame.assign(secret=1), "strict", "not declared: secret"),
    ("a value is empty", put("age", None, 7), "nulls:age", "1 of 400 values are empty: age in row 8 of a.csv"),
    ("too many are empty", put("income", None, *FIRST), "nulls:income", "income 5.00%"),
    ("a value is too large", put("age", 130.0, 5), "range:age", "outside 0 to 120: age is '130.0' in row 6 of a.csv"),
    ("one of 64 columns is too small", put("pixel9", -1, 3), "range:pixel*", "1 of 25600 values are outside 0 to 16"),
    ("a number has a fraction", put("pixel3", 1.5, 0), "type:pixel*", "not an int: pixel3 is '1.5' in row 1 of a.csv"),
    (
        "a value is not allowed",
        put("city", "Atlantis", 399),
        "allowed:city",
        "city is 'Atlantis' in row 300 of more/b.csv",
    ),
    ("a value is there twice", put("id", 3, 4), "unique:id", "2 of 400 values are there more than once"),
    ("rows are few", lambda frame: frame.iloc[:299], "rows", "299 rows, but must be at least 300"),
    (
        "rows are doubled",
        lambda frame: pd.concat([frame, frame.iloc[:9].assign(id=range(1000, 1009))], ignore_index=True),
        "duplicates",
        "9 of 409 rows (2.20%) were there before",
    ),
    (
        "the newest row is old",
        lambda frame: frame.assign(ts=[(NOW - timedelta(hours=60, minutes=i)).isoformat() for i in range(len(frame))]),
        "freshness:ts",
        "60.0 h ago; at most 48.0 h",
    ),
    ("a row is of the future", put("ts", "2031-01-01T00:00:00+00:00", 0), "freshness:ts", "in the future"),
    (
        "values are far from the others",
        lambda frame: frame.assign(age=[119.0] * 12 + (frame["age"] / 4 + 30).tolist()[12:]),
        "outliers:age",
        "age 3.00%",
    ),
]


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_nothing_is_wrong_with_good_data(writer: Callable[[pd.DataFrame, Path], None], tmp_path: Path) -> None:
    writer(good(), tmp_path)
    assert failed(tmp_path, SCHEMA) == {}


@pytest.mark.parametrize(
    ("damage", "check", "message"), [each[1:] for each in DAMAGES], ids=[each[0] for each in DAMAGES]
)
def test_a_damage_is_found_by_its_own_check_and_no_other(
    damage: Callable[[pd.DataFrame], pd.DataFrame], check: str, message: str, tmp_path: Path
) -> None:
    to_two_csv(damage(good()), tmp_path)
    result = failed(tmp_path, SCHEMA)
    assert list(result) == [check]
    assert message in result[check]


def test_a_row_is_named_by_its_file_and_its_number_in_it(tmp_path: Path) -> None:
    to_two_csv(put("age", 500.0, 100)(put("age", 300.0, 399)(good())), tmp_path)
    assert failed(tmp_path, SCHEMA)["range:age"] == (
        "2 of 400 values are outside 0 to 120: age is '500.0' in row 1 of more/b.csv"
    )


@pytest.mark.parametrize(
    ("writer", "column", "value"),
    [
        (to_csv, "age", "old"),
        (to_csv, "age", "inf"),
        (to_csv, "ts", "yesterday"),
        (to_csv, "member", "perhaps"),
        (to_jsonl, "age", "37"),
        (to_jsonl, "city", 5),
        (to_jsonl, "member", 1),
        (to_parquet, "ts", "soon"),
    ],
)
def test_value_of_another_type_is_reported_once(
    writer: Callable[[pd.DataFrame, Path], None], column: str, value: object, tmp_path: Path
) -> None:
    frame = good()
    frame[column] = frame[column].astype(object)
    frame.loc[17, column] = value
    writer(frame, tmp_path)
    assert list(failed(tmp_path, SCHEMA)) == [f"type:{column}"]


def test_numpy_arrays_have_named_columns_and_labels(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values, labels = random.integers(0, 17, (100, 3)).astype(float), random.integers(0, 10, 100)
    schema = {"columns": {"x*": {"type": "float", "min": 0, "max": 16}, "y": {"type": "int", "allowed": [*range(10)]}}}
    np.savez(tmp_path / "d.npz", X=values, y=labels)
    assert failed(tmp_path, schema | {"strict": True}) == {}
    values[4, 1] = np.nan
    np.savez(tmp_path / "d.npz", X=values, y=labels + 5)
    assert set(failed(tmp_path, schema)) == {"nulls:x*", "allowed:y"}
    np.savez(tmp_path / "d.npz", X=values, columns=["a", "b", "c"])
    assert failed(tmp_path, schema) == {"columns": "missing: x*, y"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "the dataset has no file"),
        ({"a.csv": ""}, "a.csv is empty"),
        ({"a.csv": "x,y\n"}, "the dataset has no rows"),
        ({"a.csv": "x,y\n1,2\n1,2,3\n"}, "a.csv can't be read"),
        ({"a.csv": "x\n1\n", "b.csv": "z\n1\n"}, "a.csv has no column z, which b.csv has"),
        ({"a.csv": "x\n1\n", "b.csv": "x,z\n1,1\n"}, "a.csv has no column z, which b.csv has"),
        ({"a.jsonl": "{not json\n"}, "a.jsonl can't be read"),
        ({"a.jsonl": '{"x": [1, 2]}\n'}, "column x holds lists"),
        ({"a.parquet": "PAR0"}, "a.parquet can't be read"),
        ({"a.npz": "PK"}, "a.npz can't be read"),
        ({"notes.docx": "hello"}, "notes.docx is of a kind that is not supported"),
    ],
)
def test_unreadable_file_is_a_failed_check_with_its_name(files: dict[str, str], message: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    result = failed(tmp_path, {})
    assert list(result) == ["readable"]
    assert message in result["readable"]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"colums": {}}, "schema.colums: no such field"),
        ({"columns": {"a": {"typ": "int"}}}, "schema.columns.a.typ: no such field"),
        ({"columns": {"a": {"type": "number"}}}, "schema.columns.a.type: Input should be 'float', 'int'"),
        ({"columns": {"a": {"type": "string", "min": 1}}}, "schema.columns.a: min, max and maxOutlierShare need type"),
        ({"columns": {"a": {"type": "int", "min": 3, "max": 2}}}, "schema.columns.a: min is above max"),
        ({"columns": {"a": {"maxNullShare": "1.5"}}}, "schema.columns.a.maxNullShare: a share is between 0 and 1"),
        ({"columns": {"a": {"maxNullShare": "nan"}}}, "schema.columns.a.maxNullShare"),
        ({"freshness": {"column": "ts", "maxAge": "2 days"}}, "'2 days' is no duration such as 48h"),
        ({"freshness": {"column": "ts", "maxAge": "2h"}}, "declare ts in columns, with type datetime"),
        ({"rows": {"min": 5, "max": 4}}, "schema.rows: min is above max"),
        ({"previous": {"maxPsi": 0}}, "schema.previous.maxPsi"),
    ],
)
def test_invalid_schema_exits_with_one_and_names_the_field(
    schema: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    to_csv(good(10), tmp_path)
    assert run(tmp_path, {"schema": schema}, monkeypatch) == (1, "")
    assert message in capsys.readouterr().err.splitlines()[-1]


def run(folder: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    around = folder.with_name("around")
    around.mkdir(exist_ok=True)
    (around / "inputs.json").write_text(json.dumps(inputs))
    (around / "log").write_text("")
    monkeypatch.setenv("INPUTS_FILE", str(around / "inputs.json"))
    monkeypatch.setenv("DATASET_DIR", str(folder))
    monkeypatch.setenv("TERMINATION_LOG", str(around / "log"))
    return main(), (around / "log").read_text()


def test_program_writes_checks_and_profile_and_exits_with_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = datetime.now(UTC) - timedelta(hours=1)
    frame = good().assign(ts=old.isoformat())
    to_csv(frame, tmp_path)
    code, text = run(tmp_path, {"schema": SCHEMA}, monkeypatch)
    report = json.loads(text)
    assert code == 0
    assert {check["outcome"] for check in report["checks"]} == {"Pass"}
    assert report["profile"]["rows"] == ROWS
    to_csv(frame.assign(age=200.0), tmp_path)
    code, text = run(tmp_path, {"schema": SCHEMA}, monkeypatch)
    report = json.loads(text)
    assert code == 0
    assert (report["checks"][0]["name"], report["checks"][0]["outcome"]) == ("range:age", "Fail")
    assert set(report) == {"checks"}
    assert "FAIL range:age: 400 of 400 values are outside 0 to 120" in capsys.readouterr().out


def test_program_without_environment_names_its_variables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("INPUTS_FILE", raising=False)
    assert main() == 1
    assert "INPUTS_FILE and DATASET_DIR are needed" in capsys.readouterr().err
