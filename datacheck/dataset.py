"""Reads a dataset: all files with rows in a directory (CSV, Parquet, JSON lines, NumPy) as one table."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

CSV_NULLS = ["", "NaN", "nan", "null", "NULL"]
"""Texts that stand for a missing value in a CSV file."""


class DatasetError(ValueError):
    """The dataset can't be read; the text names the file and the reason."""


@dataclass(frozen=True)
class Table:
    """Rows of all files, in the order of their paths. ``text``: values are from CSV files and have no types yet."""

    frame: pd.DataFrame
    text: bool
    starts: tuple[tuple[str, int], ...]

    def describe_row(self, row: int) -> str:
        """Describe the place of a row: ``row 3 of part-2.csv``, counted from 1 and without a header."""
        name, start = max(
            (part for part in self.starts if part[1] <= row),
            key=lambda part: part[1],
        )
        return f"row {row - start + 1} of {name}"


def _read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False, na_values=CSV_NULLS, index_col=False)


def _read_jsonl(path: Path) -> pd.DataFrame:
    return pd.read_json(path, lines=True, dtype=False)


def _read_npz(path: Path) -> pd.DataFrame:
    """Read ``X`` (rows, columns) with the names ``columns`` (else x0, x1, ...), ``y``, and any other array of one
    number or text a row as a column of its name."""
    with np.load(path, allow_pickle=False) as arrays:
        values = np.atleast_2d(arrays["X"])
        names = arrays["columns"].tolist() if "columns" in arrays else [f"x{i}" for i in range(values.shape[1])]
        frame = pd.DataFrame(values, columns=[str(name) for name in names])
        for name in arrays.files:
            if name not in ("X", "columns"):
                frame[name] = arrays[name]
    return frame


FILE_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": pd.read_parquet,
    ".npz": _read_npz,
}


def read_dataset(directory: Path) -> Table:
    """Read the table of a directory and its folders. Files with names that start with ``.`` or ``_`` are ignored.

    Raises DatasetError for a file that is unreadable, of another kind or with other columns, and if there are no rows.
    """
    files = [
        path
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not any(part.startswith((".", "_")) for part in path.relative_to(directory).parts)
    ]
    kinds = sorted({path.suffix.lower() for path in files})
    if unknown := [path for path in files if path.suffix.lower() not in FILE_READERS]:
        known = ", ".join(FILE_READERS)
        raise DatasetError(f"{unknown[0].relative_to(directory)} is of a kind that is not supported ({known})")
    if not files:
        raise DatasetError("the dataset has no file")
    frames: list[pd.DataFrame] = []
    starts: list[tuple[str, int]] = []
    rows = 0
    for path in files:
        name = str(path.relative_to(directory))
        frame = _read_file(path, name)
        if frames:
            _require_same_columns(frames[0], starts[0][0], frame, name)
        starts.append((name, rows))
        frames.append(frame)
        rows += len(frame)
    if not rows:
        raise DatasetError(f"the dataset has no rows (files: {join_names([name for name, _ in starts])})")
    whole = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0].reset_index(drop=True)
    return Table(whole, kinds == [".csv"], tuple(starts))


def _read_file(path: Path, name: str) -> pd.DataFrame:
    try:
        frame = FILE_READERS[path.suffix.lower()](path)
    except pd.errors.EmptyDataError:
        raise DatasetError(f"{name} is empty") from None
    except KeyError as error:
        raise DatasetError(f"{name} has no array {error}") from error
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{name} can't be read: {str(error).splitlines()[0][:200]}") from error
    frame.columns = [str(column) for column in frame.columns]
    if twice := frame.columns[frame.columns.duplicated()].tolist():
        raise DatasetError(f"{name} has two columns {twice[0]}")
    for column in frame.columns[[dtype.kind == "O" for dtype in frame.dtypes]]:
        if frame[column].map(lambda value: isinstance(value, list | dict | np.ndarray)).any():
            raise DatasetError(f"{name}: column {column} holds lists or objects; only numbers and texts are checked")
    return frame


def _require_same_columns(first: pd.DataFrame, first_name: str, frame: pd.DataFrame, name: str) -> None:
    for one, one_name, other, other_name in ((first, first_name, frame, name), (frame, name, first, first_name)):
        if missing := [column for column in other.columns if column not in one.columns]:
            raise DatasetError(f"{one_name} has no column {join_names(missing)}, which {other_name} has")


def join_names(names: Sequence[str], most: int = 3) -> str:
    """List at most `most` names, and the number of others."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
