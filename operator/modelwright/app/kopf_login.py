"""Gives Kopf the credentials of our own client."""

from __future__ import annotations

import dataclasses
import logging

import kopf
from kubernetes.aio.client.configuration import Configuration

from modelwright.kube.service_account_token import ServiceAccountToken
from modelwright.obs.clock import Clock

log = logging.getLogger(__name__)

LOGIN_SECONDS = (1.0, 2.0, 5.0, 15.0, 30.0)
"""Pauses between two logins that follow each other closely."""


class KopfLogin:
    """Provides Kopf's credentials, at start and after each 401. Kopf retries at once and without limit, and never
    accepts credentials that have failed once: each return value differs from the one before, with growing delays."""

    def __init__(self, configuration: Configuration, clock: Clock) -> None:
        self._configuration = configuration
        self._clock = clock
        self._count = 0
        self._failures = 0
        self._last_login: float | None = None

    async def connection_info(self) -> kopf.ConnectionInfo:
        """Return the current token, at least some seconds after the last one."""
        now = self._clock.monotonic()
        if self._last_login is not None:
            lasted = now - self._last_login
            self._failures = 0 if lasted > LOGIN_SECONDS[-1] * 2 else self._failures + 1
            pause = LOGIN_SECONDS[min(self._failures, len(LOGIN_SECONDS) - 1)]
            log.warning("the API server rejects the token: authenticating again", extra={"seconds": pause})
            hook = self._configuration.refresh_api_key_hook
            if isinstance(hook, ServiceAccountToken):
                hook.expire()
            await self._clock.sleep(pause)
        self._last_login = self._clock.monotonic()
        self._count += 1
        info = await build_connection_info(self._configuration)
        return dataclasses.replace(info, priority=self._count)


async def build_connection_info(configuration: Configuration) -> kopf.ConnectionInfo:
    """Build Kopf's connection parameters from those of our own client, with the current token."""
    header = await configuration.get_api_key_with_prefix("BearerToken")
    scheme, _, token = (header or "").rpartition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        ca_data=configuration.ca_cert_data,
        insecure=not configuration.verify_ssl,
        scheme=scheme or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        proxy_url=configuration.proxy,
    )
