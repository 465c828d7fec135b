"""A load whose every response is graded: whether it was right, which version gave it, and how the image was made."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from demo import digits as real
from devcluster.load import BackgroundLoad, Target
from devcluster.load.client import UNKNOWN, Load, v2_body
from examples.digits.shift import ORIGINS


@dataclass(frozen=True, slots=True)
class Grade:
    """One response. ``at`` is its time by time.monotonic."""

    at: float
    version: str
    origin: str
    right: bool


class Grades:
    """Grades of responses. ``truth`` maps each request's id, ``<origin>-<number>``, to its digit."""

    def __init__(self, truth: Mapping[str, int]) -> None:
        self.truth = truth
        self.given: list[Grade] = []

    def check(self, body: bytes) -> str | None:
        """Grade the body of a V2 response, which repeats the request's id. Return why it is invalid, or None."""
        try:
            answer = json.loads(body)
            request_id, prediction = str(answer["id"]), int(answer["outputs"][0]["data"][0])
            right = prediction == self.truth[request_id]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            return f"no V2 answer to a request of this load: {error!r} in {body[:200]!r}"
        version = str(answer.get("model_version") or UNKNOWN)
        self.given.append(Grade(time.monotonic(), version, request_id.rpartition("-")[0], right))
        return None

    def share(self, version: str | None = None, *, since: float = 0.0, origin: str | None = None) -> float | None:
        """Return the share of right responses from 0 to 1; None without a response."""
        grades = [
            grade.right
            for grade in list(self.given)
            if grade.at >= since and version in (None, grade.version) and origin in (None, grade.origin)
        ]
        return sum(grades) / len(grades) if grades else None

    def count(self, *, since: float = 0.0) -> Counter[str]:
        """Count the responses by version."""
        return Counter(grade.version for grade in list(self.given) if grade.at >= since)


class GradedLoad(BackgroundLoad):
    """A constant load of images whose responses are graded; an invalid response is a lost request."""

    def __init__(self, client: real.V2Client, bodies: Sequence[bytes], grades: Grades, *, rate: float) -> None:
        target = Target(client.infer_url, bodies[0], client.address)
        super().__init__(target, rate=rate, bodies=bodies)
        self.grades = grades
        self._make = lambda: Load(target, rate=rate, fresh_share=0.2, check=grades.check, bodies=bodies)


def build_requests(digits: real.Digits, origins: Iterable[str]) -> tuple[list[bytes], dict[str, int]]:
    """Build the bodies of all images in each way, alternating the ways within an image, and the digit of each by its
    id."""
    ways = {origin: ORIGINS[origin](np.array(digits.pictures)) for origin in origins}
    bodies, truth = [], {}
    for number, label in enumerate(digits.labels):
        for origin, pictures in ways.items():
            name = f"{origin}-{number}"
            body = json.loads(v2_body([pictures[number].tolist()], name="predict"))
            bodies.append(json.dumps({"id": name, **body}, separators=(",", ":")).encode())
            truth[name] = label
    return bodies, truth
