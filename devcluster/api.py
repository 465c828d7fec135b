"""The few requests that devcluster itself makes to an API server, over the standard library."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from devcluster.errors import ClusterError, log_failure
from devcluster.pki import Authority, Identity
from devcluster.processes import Daemon


class ApiClient:
    """A kept connection with a client certificate; not thread-safe."""

    def __init__(self, url: str, authority: Authority, identity: Identity) -> None:
        self.place = urlsplit(url)
        self.tls = ssl.create_default_context(cafile=str(authority.certificate))
        self.tls.load_cert_chain(identity.certificate, identity.key)
        self.connection: http.client.HTTPSConnection | None = None

    def request(
        self, method: str, path: str, body: Any = None, kind: str = "application/json", timeout: float = 10
    ) -> tuple[int, Any]:
        """Return status and decoded body; status 0 without a response."""
        try:
            if self.connection is None:
                self.connection = http.client.HTTPSConnection(
                    self.place.hostname or "", self.place.port, context=self.tls, timeout=timeout
                )
            payload = None if body is None else json.dumps(body)
            self.connection.request(method, path, payload, {"Content-Type": kind, "Accept": "application/json"})
            answer = self.connection.getresponse()
            text = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException):
            self.close()
            return 0, None
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def request_ok(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        status, answer = self.request(method, path, body, kind, timeout=60)
        if not 200 <= status < 300:
            message = answer.get("message") if isinstance(answer, dict) else answer
            raise ClusterError(f"{method} {path} was answered with {status}: {message}")
        return answer

    def wait(self, path: str, what: str, daemons: Iterable[Daemon], timeout: float = 90) -> None:
        """Wait until a path responds with 200; stop at once when a required daemon has died."""
        needed = list(daemons)
        end = time.monotonic() + timeout
        while True:
            status, answer = self.request("GET", path, timeout=5)
            if status == 200:
                return
            for daemon in needed:
                if not daemon.alive():
                    raise log_failure(f"{daemon.name} ended while {what} was awaited", Path(daemon.log))
            if time.monotonic() > end:
                log = Path(needed[-1].log) if needed else None
                raise log_failure(f"{what} is not there after {timeout:.0f}s (last answer: {status} {answer})", log)
            time.sleep(0.05)

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None
