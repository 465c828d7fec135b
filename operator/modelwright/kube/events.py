"""Kubernetes Events about our objects: sent in the background, never twice within five minutes, never in the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from modelwright.kube.client import KubeClient
from modelwright.obs.clock import Clock


class EventRecorder:
    """`record` only puts the Event into a bounded queue; one worker (`run`) sends them one after the other."""

    def __init__(self, client: KubeClient, clock: Clock, *, instance: str, capacity: int = 1000) -> None:
        self._client = client
        self._clock = clock
        self._instance = instance
        self._capacity = capacity

    def record(
        self, obj: Mapping[str, Any], type_: Literal["Normal", "Warning"], reason: str, note: str, *, action: str = ""
    ) -> None:
        """Tell people about `obj`: `reason` is a CamelCase constant, `note` a sentence.

        Never raises and never waits. The same (object, reason, note) is sent once in five minutes.
        """

    async def run(self) -> None:
        """Send what has been recorded, until cancelled."""
