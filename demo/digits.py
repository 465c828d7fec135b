"""Real handwritten digits, and a V2 client that sends them to a Model through the gateway."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from demo.console import DemoError
from devcluster.load.client import v2_body


@dataclass(frozen=True)
class Digits:
    """Images (64 grey values from 0 to 16 each) that no version was trained on, with their labels."""

    pictures: list[list[float]]
    labels: list[int]

    def first_of_each(self, count: int) -> list[int]:
        """Return indices of ``count`` images that together show as many different digits as possible."""
        index_by_label: dict[int, int] = {}
        for index, label in enumerate(self.labels):
            index_by_label.setdefault(label, index)
        return sorted(index_by_label.values())[:count]


def load_holdout() -> Digits:
    """Load the same split as examples/digits/train.py makes."""
    pictures, labels = load_digits(return_X_y=True)
    _, unseen, _, truth = train_test_split(pictures, labels, test_size=0.3, random_state=7, stratify=labels)
    return Digits([list(map(float, row)) for row in unseen], [int(label) for label in truth])


@dataclass(frozen=True)
class Prediction:
    predictions: list[int]
    version: str | None


@dataclass(frozen=True)
class V2Client:
    """Sends requests to one Model by the Open Inference Protocol; ``url`` is the Model's, ``address`` where its
    gateway listens."""

    model: str
    url: str
    address: tuple[str, int]

    @property
    def infer_url(self) -> str:
        return f"{self.url.rstrip('/')}/v2/models/{self.model}/infer"

    def predict(self, rows: Sequence[Sequence[float]]) -> Prediction:
        """Return the predictions for a batch of images. Raises DemoError for an invalid response."""
        parts = httpx.URL(self.infer_url)
        at = parts.copy_with(host=self.address[0], port=self.address[1])
        headers = {"Host": parts.netloc.decode(), "Content-Type": "application/json"}
        try:
            response = httpx.post(at, content=v2_body(rows, name="predict"), headers=headers, timeout=30)
            response.raise_for_status()
            body = response.json()
            return Prediction([int(value) for value in body["outputs"][0]["data"]], body.get("model_version"))
        except httpx.HTTPStatusError as error:
            message = error.response.text[:300]
            raise DemoError(
                f"POST {self.infer_url} was answered with {error.response.status_code}: {message}"
            ) from error
        except httpx.HTTPError as error:
            raise DemoError(f"POST {self.infer_url} got no answer: {error or type(error).__name__}") from error
        except (json.JSONDecodeError, KeyError, IndexError, ValueError) as error:
            raise DemoError(f"POST {self.infer_url} did not give a V2 answer: {response.text[:300]}") from error


def accuracy(predictions: Sequence[int], labels: Sequence[int]) -> float:
    """Return the share of right predictions, from 0 to 1."""
    return sum(a == b for a, b in zip(predictions, labels, strict=True)) / len(labels)
