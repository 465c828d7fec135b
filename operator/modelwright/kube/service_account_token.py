"""Reads the token of the pod's ServiceAccount, which the kubelet replaces while the process runs."""

from __future__ import annotations

import logging

from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.incluster_config import SERVICE_TOKEN_FILENAME

from modelwright.obs.clock import Clock, SystemClock

log = logging.getLogger(__name__)

REREAD_SECONDS = 60.0


class ServiceAccountToken:
    """A `refresh_api_key_hook` that reads the file each minute, and at once after the API server has refused the token.

    The official client's own hook uses the time of day: a clock that is set back keeps an old token in use. While the
    file cannot be read, the token stays.
    """

    def __init__(self, file: str = SERVICE_TOKEN_FILENAME, *, clock: Clock | None = None) -> None:
        self._file = file
        self._clock: Clock = clock or SystemClock()
        self._reread_at = 0.0

    def __call__(self, configuration: Configuration) -> None:
        now = self._clock.monotonic()
        if now < self._reread_at:
            return
        self._reread_at = now + REREAD_SECONDS
        try:
            with open(self._file) as file:
                token = file.read().strip()
        except OSError as error:
            log.warning("the ServiceAccount's token can't be read, the old one is used", extra={"error": str(error)})
            return
        if token:
            configuration.api_key["BearerToken"] = f"bearer {token}"

    def expire(self) -> None:
        """Read the file before the next request, at most once a second: many requests may be refused at once."""
        self._reread_at = min(self._reread_at, self._clock.monotonic() + 1.0)
