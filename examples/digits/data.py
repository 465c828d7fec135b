"""Labelled digits as files: 64 grey values from 0 to 16, the label, how the picture was made, and which one it is."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import GroupShuffleSplit

PIXELS = tuple(f"pixel{i}" for i in range(64))
HELD_BACK = 0.25
"""Share of the pictures that the training leaves to the evaluation when there is no holdout."""


@dataclass(frozen=True)
class Labelled:
    """``pictures`` (n, 64) of float, ``labels`` (n,) of int, ``origins`` (n,) of text ("" when unknown), ``groups``
    (n,) of int: transformed copies of one picture are of one group, and never on both sides of a split."""

    pictures: np.ndarray
    labels: np.ndarray
    origins: np.ndarray
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, chosen: np.ndarray) -> Labelled:
        return Labelled(self.pictures[chosen], self.labels[chosen], self.origins[chosen], self.groups[chosen])


def read(directory: Path) -> Labelled:
    """All CSV files (columns pixel0 to pixel63, label; origin and picture if known) and NumPy files (X, y; origin and
    picture) of a directory. Raises ValueError, which names the file."""
    parts = []
    for path in sorted(directory.rglob("*")):
        try:
            if path.suffix == ".csv":
                parts.append(_csv(path))
            elif path.suffix == ".npz":
                parts.append(_npz(path))
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path.name} is no set of labelled digits: {error}") from error
    if not parts:
        raise ValueError(f"{directory} holds no .csv and no .npz file")
    columns = [np.concatenate([part[i] for part in parts]) for i in range(3)]
    # Pictures of different files are different ones.
    groups = np.concatenate([part[3] + i * 10**9 for i, part in enumerate(parts)])
    return Labelled(*columns, groups)


def _csv(path: Path) -> tuple[np.ndarray, ...]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    pictures = np.array([[float(row[name]) for name in PIXELS] for row in rows])
    labels = np.array([int(row["label"]) for row in rows])
    origins = np.array([row.get("origin") or "" for row in rows])
    groups = np.array([int(row.get("picture") or i) for i, row in enumerate(rows)])
    return pictures, labels, origins, groups


def _npz(path: Path) -> tuple[np.ndarray, ...]:
    with np.load(path, allow_pickle=False) as arrays:
        pictures, labels = arrays["X"].astype(float).reshape(-1, len(PIXELS)), arrays["y"].astype(int)
        origins = arrays["origin"] if "origin" in arrays else np.full(len(labels), "")
        groups = arrays["picture"].astype(int) if "picture" in arrays else np.arange(len(labels))
    return pictures, labels, origins, groups


def split(data: Labelled, seed: int) -> tuple[Labelled, Labelled]:
    """What is trained on, and what the evaluation gets when there is no holdout; the same in both stages."""
    kept, held = next(
        GroupShuffleSplit(1, test_size=HELD_BACK, random_state=seed).split(data.labels, groups=data.groups)
    )
    return data.rows(kept), data.rows(held)


def table(rows: Sequence[Sequence[object]]) -> bytes:
    """A CSV file of rows (64 values, label, origin, picture). Same rows, same bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*PIXELS, "label", "origin", "picture"])
    writer.writerows([[f"{value:g}" if isinstance(value, float) else value for value in row] for row in rows])
    return text.getvalue().encode()
