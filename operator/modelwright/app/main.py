"""The operator process: connects to the API server, waits for our CRDs and the Lease, leads, and shuts down in order.

A standby serves /livez, /readyz and /metrics, forwards webhooks, and waits for the Lease. A warm one
(MODELWRIGHT_WARM_STANDBY) keeps its store filled meanwhile: that costs memory and watches, and saves the first lists
when it takes over.
SIGTERM shuts down in order: reconciles are finished and the Lease is released. Losing the Lease ends the process at
once, so that it cannot write any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import ssl
import sys
from collections.abc import Sequence
from typing import NoReturn

import uvloop
from kubernetes.aio.client.configuration import Configuration

from modelwright.api.v1alpha1.retraining import RetrainingPolicySpec
from modelwright.app import health
from modelwright.app.authentication import metrics_readers
from modelwright.app.leader_session import LeaderSession
from modelwright.app.settings import InvalidSettings, Settings
from modelwright.app.tasks import cancel_task, run_unless
from modelwright.app.webhooks import LeaderLink, TriggerBackend, WebhookServer
from modelwright.kube import api_errors, kinds
from modelwright.kube.access_review import Audience, KubeAccessReviewer
from modelwright.kube.client import ClusterNotConfigured, KubeClient, load_configuration
from modelwright.kube.kinds import Kind
from modelwright.kube.lease import LeaderElector, LeaseConfig
from modelwright.kube.missing_rights import MISSING
from modelwright.measurement import connections
from modelwright.net.listener import AUTHORITY, TlsCertificate
from modelwright.obs import logging as json_logging
from modelwright.obs.clock import SteadyClock

log = logging.getLogger("modelwright.app")

RETRY_SECONDS = 2.0
REVIEWS_PER_SECOND = 20
EXIT_INVALID_SETTINGS = 2
MAX_NAMED_RIGHTS = 5
RECURSION_LIMIT = 40_000
"""Go reads JSON that is nested 10,000 deep, and admission does not validate fields that another API defines. One such
object must not prevent a list or watch of its kind from being read; its reconcile may fail."""


class Operator:
    """One operator process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clock = SteadyClock()
        self._health = health.HealthChecks()
        self._stopping = asyncio.Event()
        self._exit_code = 0
        self._kinds_found = False
        self._leader: LeaderSession | None = None

    async def run(self) -> int:
        """Run until a signal or a request to restart. Returns the exit code: 0 after a request, 1 after a failure."""
        self._install_signal_handlers()
        settings = self._settings
        async with contextlib.AsyncExitStack() as stack:
            loop_watch = health.LoopMonitor(self._clock)
            stack.push_async_callback(cancel_task, asyncio.create_task(loop_watch.run(), name="loop watch"))
            configuration = await load_configuration()
            # The Lease must not wait behind other requests or for our rate limiter.
            client = KubeClient(configuration, clock=self._clock, request_seconds=settings.lease_renew_seconds / 2)
            client.on_date = self._clock.observe_server_time
            stack.push_async_callback(client.close)
            elector = self._build_elector(client)
            stack.push_async_callback(elector.release)
            self._add_checks(loop_watch, elector)
            certificate = TlsCertificate(settings.tls_folder).get_context if settings.tls_folder else None
            readers = None
            if settings.metrics_authentication == "Required":
                readers = metrics_readers(self._build_reviewer(configuration, stack), self._clock)
            server = await health.start_server(
                self._health, settings.http_host, settings.http_port, readers=readers, tls=certificate
            )
            stack.push_async_callback(server.close)
            hooks = WebhookServer(
                self._build_reviewer(configuration, stack),
                TriggerBackend(self._find_policy, self._accept_events, self._not_leading),
                LeaderLink(lambda: settings.webhooks_url(elector.leader_address), self._leader_tls),
                audience=Audience.ANY if settings.webhook_tokens == "Any" else Audience.OURS,
                clock=self._clock,
            )
            door = await hooks.serve(settings.http_host, settings.webhook_port, certificate)
            stack.push_async_callback(door.close)
            served = await run_unless(self._stopping, self._wait_for_kinds(client))
            if served and not settings.warm_standby:
                await run_unless(self._stopping, elector.acquire())
            if served and not self._stopping.is_set():
                await self._run_leader(configuration, elector, served)
        log.info("the operator has ended", extra={"exit_code": self._exit_code})
        return self._exit_code

    def stop(self, reason: str, exit_code: int = 0) -> None:
        """Request an orderly shutdown; the first reason counts."""
        if not self._stopping.is_set():
            log.info("stopping", extra={"why": reason, "exit_code": exit_code})
            self._exit_code = exit_code
            self._stopping.set()

    async def _run_leader(self, configuration: Configuration, elector: LeaderElector, served: set[Kind]) -> None:
        elected = asyncio.Event()
        holding = asyncio.create_task(self._hold_lease(elector, elected), name="lease")
        self._leader = LeaderSession(
            self._settings, configuration, elector, served, elected=elected, clock=self._clock, stop=self.stop
        )
        try:
            await self._leader.run(self._stopping, self._install_signal_handlers)
        finally:
            await cancel_task(holding)

    async def _hold_lease(self, elector: LeaderElector, elected: asyncio.Event) -> None:
        if not elector.is_leading:
            await elector.acquire()
        elected.set()
        await elector.renew()

    async def _wait_for_kinds(self, client: KubeClient) -> set[Kind] | None:
        """Return the kinds that this cluster serves, once ours are among them; None after requesting a shutdown when
        they do not appear in time."""
        since: float | None = None
        while True:
            try:
                served = await client.served_kinds((*kinds.ALL_KINDS, *self._settings.training_kinds))
            except api_errors.ApiError as error:
                log.warning("the API server could not be reached, trying again", extra={"error": str(error)})
                await self._clock.sleep(RETRY_SECONDS)
                continue
            missing = [f"{k.plural}.{k.group}" for k in kinds.OWN_KINDS if k not in served]
            if not missing:
                self._kinds_found = True
                return served
            since = self._clock.monotonic() if since is None else since
            seconds_left = self._settings.crd_wait_seconds - (self._clock.monotonic() - since)
            fields = {"missing": missing, "seconds_left": max(0, round(seconds_left))}
            if seconds_left <= 0:
                log.error("our CRDs are not installed: apply crds/ or install the CRD chart first", extra=fields)
                self.stop("the CRDs are missing", exit_code=1)
                return None
            log.warning("waiting for our CRDs to be installed", extra=fields)
            await self._clock.sleep(RETRY_SECONDS)

    def _build_reviewer(self, configuration: Configuration, stack: contextlib.AsyncExitStack) -> KubeAccessReviewer:
        """Build an access reviewer with its own client: reviews store nothing, and requests of strangers to one server
        must use up neither the rate of our writes nor that of the other server."""
        client = KubeClient(configuration, clock=self._clock, qps=REVIEWS_PER_SECOND, burst=2 * REVIEWS_PER_SECOND)
        stack.push_async_callback(client.close)
        return KubeAccessReviewer(client)

    def _leader_tls(self) -> tuple[ssl.SSLContext, str] | None:
        """Return the TLS context by which a standby verifies the leader: the ca.crt beside its own certificate, if
        there is one."""
        settings = self._settings
        if not settings.tls_folder:
            return None
        authority = os.path.join(settings.tls_folder, AUTHORITY)
        cafile = authority if os.path.exists(authority) else None
        return ssl.create_default_context(cafile=cafile), settings.server_name

    def _not_leading(self) -> str | None:
        return None if self._leader is not None and self._leader.is_active else "this process does not lead"

    def _find_policy(self, namespace: str, name: str) -> RetrainingPolicySpec | None:
        return self._leader.retraining_policy_spec(namespace, name) if self._leader is not None else None

    async def _accept_events(
        self, namespace: str, policy: str, trigger: str, events: Sequence[tuple[str, str]]
    ) -> None:
        assert self._leader is not None  # noqa: S101 - _not_leading has checked it
        await self._leader.webhook_queue.put(namespace, policy, trigger, events)

    def _build_elector(self, client: KubeClient) -> LeaderElector:
        settings = self._settings
        lease = LeaseConfig(
            namespace=settings.namespace,
            name=settings.lease_name,
            instance=settings.instance,
            address=settings.address,
            pod_uid=settings.pod_uid,
            shard=settings.shard,
            lease_seconds=settings.lease_seconds,
            renew_seconds=settings.lease_renew_seconds,
            retry_seconds=settings.lease_retry_seconds,
        )
        return LeaderElector(client, lease, on_lost=_exit_at_once, clock=self._clock)

    def _add_checks(self, loop_watch: health.LoopMonitor, elector: LeaderElector) -> None:
        settings = self._settings

        def contact() -> str | None:
            if elector.last_contact is None:
                return "not reached yet"
            silence = self._clock.monotonic() - elector.last_contact
            return f"no answer for {silence:.0f} s" if silence > settings.lease_renew_seconds else None

        def lease() -> str | None:
            age = elector.seconds_since_renewal()
            return f"not renewed for {age:.0f} s" if age is not None and age > settings.lease_seconds else None

        def store() -> str | None:
            complete = self._leader is not None and self._leader.is_synced
            if complete or (elector.is_standing_by and not settings.warm_standby):
                return None
            missing = ", ".join(map(str, MISSING.list_missing()[:MAX_NAMED_RIGHTS]))
            return "the first lists are not complete yet" + (f": this process may not {missing}" if missing else "")

        self._health.add_liveness_check("event loop", loop_watch.check_liveness)
        self._health.add_liveness_check("Lease", lease)
        self._health.add_liveness_check("workers", lambda: self._leader.describe_stuck() if self._leader else None)
        self._health.add_readiness_check("CRDs", lambda: None if self._kinds_found else "not found yet")
        self._health.add_readiness_check("API server", contact)
        self._health.add_readiness_check("store", store)

    def _install_signal_handlers(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop, f"{signal.Signals(number).name} received")


def _exit_at_once(reason: str) -> NoReturn:
    """Exit without any clean-up: another process may be the leader by now."""
    log.critical("the Lease is lost: this process ends at once", extra={"why": reason})
    logging.shutdown()
    os._exit(1)


def main() -> int:
    """Run the operator with the settings of the environment; returns the exit code (2: a setting is wrong)."""
    try:
        settings = Settings.from_environment()
        connections.load_connections(settings.connections_file)
        kinds.register_kinds(settings.training_kinds)
        if settings.tls_folder:
            TlsCertificate(settings.tls_folder)
    except OSError as error:
        print(f"wrong settings: MODELWRIGHT_TLS_FOLDER: {error}", file=sys.stderr)
        return EXIT_INVALID_SETTINGS
    except (InvalidSettings, connections.ConnectionsError) as error:
        print(f"wrong settings: {error}", file=sys.stderr)
        return EXIT_INVALID_SETTINGS
    json_logging.configure_logging(settings.log_level)
    sys.setrecursionlimit(RECURSION_LIMIT)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(Operator(settings).run())
    except ClusterNotConfigured as error:
        log.error(str(error))
        return 1
    except Exception:
        log.exception("the operator failed")
        return 1


if __name__ == "__main__":
    sys.exit(main())
