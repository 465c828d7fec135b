"""Leader election by a `coordination.k8s.io/v1` Lease: at most one process writes at any time.

It replaces `kubernetes.aio.leaderelection`, which measures by the wall clock (a clock set back keeps an expired leader
in office), lets a single renewal take five minutes and so never meets its own deadline, does not fence, and does not
release the Lease.

How a second writer is kept out:

- A candidate takes over only when it has observed the Lease unchanged for `lease_seconds` on its own monotonic clock,
  or released (no holder), or held by an earlier container of its own pod, which the kubelet saw exit before it started
  this one. Every write of the Lease carries the resourceVersion that the decision was based on.
- The holder counts its `renew_seconds` (shorter than `lease_seconds`) from the moment *before* it sent the last
  successful renewal. When they have passed it calls `on_lost` (the process exits at once), and `check_may_write`
  refuses every write even if the event loop was too busy, or the process was stopped, to notice.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelwright.api.names import LABEL_SHARD
from modelwright.kube import api_errors, kinds
from modelwright.kube.client import KubeClient
from modelwright.obs import metrics
from modelwright.obs.clock import Clock, SystemClock, Timer

log = logging.getLogger(__name__)

Object = dict[str, Any]

ANNOTATION_ADDRESS = "modelwright.dev/address"
"""Annotation of the Lease: address of its holder's HTTP server, as host:port."""
ANNOTATION_POD_UID = "modelwright.dev/pod-uid"
"""Annotation of the Lease: uid of the pod that its holder runs in."""
ANNOTATION_FOLLOWED = "modelwright.dev/followed"
"""Annotation of a shard's Lease: the resourceVersion to which its holder has followed Namespaces (docs/adr/0016)."""


class LeaseLost(Exception):
    """This process no longer holds the Lease: it must not write, and must exit."""


@dataclass(frozen=True, slots=True)
class LeaseConfig:
    """The Lease of one candidate. Raises ValueError unless retry_seconds < renew_seconds < lease_seconds."""

    namespace: str
    name: str
    instance: str
    """Name of the candidate's pod; its identity adds a random suffix."""
    address: str = ""
    """host:port of the candidate's HTTP server, published while it holds the Lease; empty: not published."""
    pod_uid: str = ""
    """uid of the pod in which this is the only such process; empty: unknown, so a predecessor's Lease has to expire."""
    shard: str = ""
    """Label of the Lease; empty: the operator has no shards."""
    lease_seconds: float = 15.0
    """How long a Lease is valid without renewal."""
    renew_seconds: float = 10.0
    """How long after its last renewal the holder gives up."""
    retry_seconds: float = 2.0
    """Interval of renewals, and of a candidate's attempts."""

    def __post_init__(self) -> None:
        if not self.retry_seconds < self.renew_seconds < self.lease_seconds:
            raise ValueError("retry_seconds < renew_seconds < lease_seconds must hold")


class LeaderElector:
    """One candidate. `acquire` once, then keep `renew` running as a task, then `release`.

    `on_lost` is called at most once, from the event loop, when the Lease could not be renewed in time or was taken. It
    should end the process without any clean-up that writes.
    """

    def __init__(
        self,
        client: KubeClient,
        config: LeaseConfig,
        *,
        on_lost: Callable[[str], None],
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._config = config
        # A restarted pod keeps its name but must not mistake itself for the previous holder.
        self.identity = f"{config.instance}_{secrets.token_hex(4)}"
        self._on_lost = on_lost
        self._clock: Clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._lease: Object | None = None
        # The last observed state of another holder's Lease, and the time at which it expires.
        self._observed: tuple[str, float] | None = None
        self._renewed_at: float | None = None
        self._deadline: Timer | None = None
        self.last_contact: float | None = None
        """Monotonic time of the API server's last response about the Lease (for /readyz)."""
        self.is_standing_by = False
        """Whether another process holds the Lease, and this one waits for it."""
        self.leader_address: str | None = None
        """Address of the holder that this one waits for, as host:port; None when the Lease has none."""
        self.followed_version: Callable[[], int | None] = lambda: None
        """Returns the resourceVersion to which Namespaces are followed, at each renewal; None leaves it out."""

    @property
    def is_leading(self) -> bool:
        """Whether this process holds the Lease now, by its own clock."""
        return self._renewed_at is not None and self._clock.monotonic() - self._renewed_at < self._config.renew_seconds

    def seconds_since_renewal(self) -> float | None:
        """Return the age of the last successful renewal; None when this process is not the leader."""
        return None if self._renewed_at is None else self._clock.monotonic() - self._renewed_at

    def check_may_write(self) -> None:
        """Return if this process may write; raises LeaseLost, after `on_lost`, if the Lease has expired."""
        if not self.is_leading:
            self._report_loss("the Lease expired before a write")
            raise LeaseLost("this process does not hold the Lease: it must not write")

    async def acquire(self) -> None:
        """Return once this process holds the Lease. API errors are logged and retried without limit."""
        waiting_for = ""
        while True:
            holder = await self._try_acquire()
            if holder is None:
                self.is_standing_by = False
                self.leader_address = None
                metrics.LEADER.set(1)
                log.info("this process is the leader now", extra={"identity": self.identity})
                return
            if holder != waiting_for:
                log.info("standing by", extra={"holder": holder, "identity": self.identity})
                waiting_for = holder
            await self._clock.sleep(
                min(self._config.retry_seconds * self._rng.uniform(1.0, 1.2), self._seconds_until_expiry())
            )

    async def renew(self) -> None:
        """Renew every `retry_seconds` until the Lease is lost (`on_lost` has then been called) or this is cancelled."""
        while self._renewed_at is not None:
            await self._clock.sleep(self._config.retry_seconds)
            await self._try_renew()

    async def release(self) -> None:
        """Release the Lease, so that a standby takes over at once. Errors are logged: the Lease then expires."""
        if not self.is_leading or self._lease is None:
            return
        self._stop_holding()
        try:
            await self._give_back(self._lease)
        except api_errors.ApiError as error:
            log.warning("the Lease could not be released: it will expire", extra={"error": str(error)})
        else:
            log.info("the Lease has been released", extra={"identity": self.identity})

    async def _give_back(self, lease: Object) -> None:
        try:
            await self._client.replace(self._build_lease(lease, holder="", seconds=1.0))
        except api_errors.Conflict:
            # A renewal that was cancelled at shutdown may have succeeded nevertheless.
            newest = await self._client.get(kinds.LEASE, self._config.namespace, self._config.name)
            if newest is None or (newest.get("spec") or {}).get("holderIdentity") != self.identity:
                raise
            await self._client.replace(self._build_lease(newest, holder="", seconds=1.0))

    async def _try_acquire(self) -> str | None:
        """Try once to take the Lease. Returns None on success, else its holder (or a description of the obstacle)."""
        start = self._clock.monotonic()
        try:
            lease = await self._client.get(kinds.LEASE, self._config.namespace, self._config.name)
            self.last_contact = self._clock.monotonic()
            if lease is None:
                self._record_renewal(await self._client.create(self._build_lease(None, holder=self.identity)), start)
                return None
            holder = str((lease.get("spec") or {}).get("holderIdentity") or "")
            # Our own name means that we took it, and the response was lost.
            if holder and holder != self.identity and not self._is_of_same_pod(lease) and not self._has_expired(lease):
                self.is_standing_by = True
                self.leader_address = _lease_annotations(lease).get(ANNOTATION_ADDRESS)
                return holder
            self._record_renewal(await self._client.replace(self._build_lease(lease, holder=self.identity)), start)
            return None
        except api_errors.ApiError as error:
            log.warning("the Lease could not be read or taken, trying again", extra={"error": str(error)})
            return "unknown (the last attempt failed)"

    def _is_of_same_pod(self, lease: Object) -> bool:
        """Return whether its holder was an earlier container of this pod."""
        return bool(self._config.pod_uid) and _lease_annotations(lease).get(ANNOTATION_POD_UID) == self._config.pod_uid

    def _has_expired(self, lease: Object) -> bool:
        """Return whether this state of the Lease has been observed for as long as its duration."""
        now = self._clock.monotonic()
        version = str(lease["metadata"]["resourceVersion"])
        if self._observed is None or self._observed[0] != version:
            duration = float((lease.get("spec") or {}).get("leaseDurationSeconds") or self._config.lease_seconds)
            self._observed = (version, now + duration)
            return False
        return now >= self._observed[1]

    def _seconds_until_expiry(self) -> float:
        """Return the seconds until the observed state of the Lease expires; the retry interval when it already has, or
        none was observed."""
        seconds = self._observed[1] - self._clock.monotonic() if self._observed is not None else 0.0
        return seconds if seconds > 0 else self._config.retry_seconds

    async def _try_renew(self) -> None:
        start = self._clock.monotonic()
        if self._lease is None or self._renewed_at is None:
            return
        try:
            renewed = await self._client.replace(self._build_lease(self._lease, holder=self.identity))
        except api_errors.Conflict:
            await self._reread_lease()
            return
        except api_errors.NotFound:
            self._report_loss("the Lease has been deleted")
            return
        except api_errors.ApiError as error:
            log.warning("the Lease could not be renewed, trying again", extra={"error": str(error)})
            return
        # The deadline may have passed while the request was in flight.
        if self._renewed_at is not None:
            self.last_contact = self._clock.monotonic()
            self._record_renewal(renewed, start)

    async def _reread_lease(self) -> None:
        """Read the Lease after a conflict: our earlier renewal whose response was lost, an edit, or a new holder."""
        try:
            lease = await self._client.get(kinds.LEASE, self._config.namespace, self._config.name)
        except api_errors.ApiError as error:
            log.warning("the Lease could not be read, trying again", extra={"error": str(error)})
            return
        if lease is None:
            self._report_loss("the Lease has been deleted")
        elif (lease.get("spec") or {}).get("holderIdentity") != self.identity:
            self._report_loss("another process has taken the Lease")
        elif self._renewed_at is not None:
            self._lease = lease
            await self._try_renew()

    def _build_lease(self, lease: Object | None, *, holder: str, seconds: float | None = None) -> Object:
        now = _format_micro_time(self._clock.now())
        old = dict((lease or {}).get("spec") or {})
        spec: Object = {
            "holderIdentity": holder,
            "leaseDurationSeconds": max(1, round(seconds or self._config.lease_seconds)),
            "renewTime": now,
            "acquireTime": now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0),
        }
        if lease is not None and holder and old.get("holderIdentity") != holder:
            spec["leaseTransitions"] += 1
        elif old.get("acquireTime"):
            spec["acquireTime"] = old["acquireTime"]
        metadata: Object = {"namespace": self._config.namespace, "name": self._config.name}
        annotations = (
            {ANNOTATION_ADDRESS: self._config.address, ANNOTATION_POD_UID: self._config.pod_uid} if holder else {}
        )
        if holder and (followed := self.followed_version()) is not None:
            annotations[ANNOTATION_FOLLOWED] = str(followed)
        if any(annotations.values()):
            metadata["annotations"] = {key: value for key, value in annotations.items() if value}
        if self._config.shard:
            metadata["labels"] = {LABEL_SHARD: self._config.shard}
        if lease is not None:
            metadata["resourceVersion"] = lease["metadata"]["resourceVersion"]
            metadata["uid"] = lease["metadata"]["uid"]
        return {"apiVersion": kinds.LEASE.api_version, "kind": "Lease", "metadata": metadata, "spec": spec}

    def _record_renewal(self, lease: Object, since: float) -> None:
        self._lease = lease
        self._renewed_at = since
        if self._deadline is not None:
            self._deadline.cancel()
        seconds = self._config.renew_seconds - (self._clock.monotonic() - since)
        self._deadline = self._clock.call_later(seconds, self._on_deadline)

    def _on_deadline(self) -> None:
        self._report_loss(f"the Lease could not be renewed for {self._config.renew_seconds:g} s")

    def _report_loss(self, reason: str) -> None:
        if self._renewed_at is not None:
            self._stop_holding()
            self._on_lost(reason)

    def _stop_holding(self) -> None:
        self._renewed_at = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        metrics.LEADER.set(0)


def _lease_annotations(lease: Object) -> dict[str, str]:
    return lease["metadata"].get("annotations") or {}


def _format_micro_time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
