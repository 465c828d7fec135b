"""Real digits, transformed: what callers send when cameras change, the labelled data for it, and damaged data.

``inverted`` is dark on light (16 - value), ``blurred`` the mean over 3 by 3 pixels. With ``--output DIRECTORY`` it
writes ``plain``, ``shifted`` and ``damaged`` to train on and ``holdout``, whose pictures no version is trained on.
Same arguments, same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from examples.digits.data import PIXELS, table
from examples.digits.train import HOLDOUT

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def inverted(pictures: np.ndarray) -> np.ndarray:
    """Dark digits on a light ground: (n, 64), 0 to 16."""
    return 16.0 - pictures


def blurred(pictures: np.ndarray) -> np.ndarray:
    """Each pixel becomes the mean of the 3 by 3 around it; beyond the edge its pixels are repeated."""
    padded = np.pad(pictures.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = [padded[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
    return np.round(np.mean(around, axis=0), 3).reshape(-1, 64)


ORIGINS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": lambda pictures: pictures,
    "inverted": inverted,
    "blurred": blurred,
}


def rows(pictures: np.ndarray, labels: np.ndarray, origins: Sequence[str] = tuple(ORIGINS)) -> list[list[object]]:
    """Rows of a table: each picture in each way, with its label, how it was made, and its number."""
    return [
        [*map(float, changed), int(label), origin, number]
        for origin in origins
        for number, (changed, label) in enumerate(zip(ORIGINS[origin](pictures), labels, strict=True))
    ]


def damaged(good: Sequence[Sequence[object]], seed: int = 0) -> list[list[object]]:
    """What happens to data: 2 of 100 rows have an empty pixel, 2 a grey value of another scale, 2 a label in words, and
    5 of 100 are there twice. Each row has one damage."""
    random = np.random.default_rng(seed)
    found = [list(row) for row in good]
    part = len(found) // 50
    order = random.permutation(len(found))
    pixels = random.integers(0, len(PIXELS), 2 * part)
    for row, pixel in zip(order[:part], pixels[:part], strict=True):
        found[row][pixel] = ""
    for row, pixel in zip(order[part : 2 * part], pixels[part:], strict=True):
        found[row][pixel] = 255.0
    for row in order[2 * part : 3 * part]:
        found[row][len(PIXELS)] = WORDS[int(found[row][len(PIXELS)])]
    return [*found, *(found[row] for row in order[3 * part : 3 * part + len(found) // 20])]


def files() -> dict[str, bytes]:
    """Every data set by its path. The split is that of train.py."""
    pictures, labels = load_digits(return_X_y=True)
    known, unseen, known_labels, unseen_labels = train_test_split(
        pictures, labels, test_size=HOLDOUT, random_state=7, stratify=labels
    )
    shifted = rows(known, known_labels)
    return {
        "plain/digits.csv": table(rows(known, known_labels, ("plain",))),
        "shifted/digits.csv": table(shifted),
        "damaged/digits.csv": table(damaged(shifted)),
        "holdout/digits.csv": table(rows(unseen, unseen_labels)),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="a directory, which is made when needed")
    output = parser.parse_args(argv).output
    for path, content in files().items():
        (output / path).parent.mkdir(parents=True, exist_ok=True)
        (output / path).write_bytes(content)
        pictures = len(content.splitlines()) - 1
        print(f"{output / path}: {pictures} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
