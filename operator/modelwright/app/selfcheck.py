"""`python -m modelwright selfcheck`: verifies that the operator's prerequisites exist and that a replica leads.

`helm test` runs it in a pod, with the operator's ServiceAccount. It writes nothing.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

import aiohttp

from modelwright.app.settings import InvalidSettings, Settings
from modelwright.kube import api_errors, kinds
from modelwright.kube.client import ClusterNotConfigured, KubeClient, load_configuration
from modelwright.kube.lease import ANNOTATION_ADDRESS
from modelwright.obs.clock import Clock, SystemClock

MAX_QUOTED_BYTES = 4096
RESPONSE_SECONDS = 5.0
POLL_SECONDS = 1.0


class CheckFailed(Exception):
    """A failed check; the message says what is wrong and what to do."""


class SelfCheck:
    """The checks: each returns a sentence with its result, or raises CheckFailed."""

    def __init__(self, client: KubeClient, settings: Settings, clock: Clock) -> None:
        self._client = client
        self._settings = settings
        self._clock = clock

    def list_checks(self) -> dict[str, Callable[[], Awaitable[str]]]:
        """Return the checks by name, each building on those before it."""
        return {"CRDs": self.check_kinds, "rights": self.check_rights, "leader": self.check_leader}

    async def check_kinds(self) -> str:
        """Check that our CRDs are served."""
        served = await self._client.served_kinds()
        missing = [f"{k.plural}.{k.group}" for k in kinds.OWN_KINDS if k not in served]
        if missing:
            raise CheckFailed(f"not installed: {', '.join(missing)}; install the chart modelwright-crds")
        return f"{len(kinds.OWN_KINDS)} kinds of ours are served"

    async def check_rights(self) -> str:
        """Check that the watched objects can be read."""
        places = self._settings.watch_namespaces or (None,)
        for namespace in places:
            try:
                await self._client.list(kinds.MODEL, namespace, metadata_only=True)
            except api_errors.Denied as error:
                raise CheckFailed(f"Models of {namespace or 'the cluster'} can't be read: {error}") from None
        if self._settings.shard:
            for kind, namespace in ((kinds.NAMESPACE, None), (kinds.LEASE, self._settings.namespace)):
                try:
                    await self._client.list(kind, namespace, metadata_only=True)
                except api_errors.Denied as error:
                    raise CheckFailed(f"a shard has to list {kind.plural}, and may not: {error}") from None
            return f"what shard {self._settings.shard} needs can be read"
        return f"Models can be read in {', '.join(self._settings.watch_namespaces) or 'the whole cluster'}"

    async def check_leader(self) -> str:
        """Check that the Lease is being renewed, by this clock alone, and that its holder reports ready."""
        lease_name = f"Lease {self._settings.namespace}/{self._settings.lease_name}"
        held: list[tuple[str, str]] = []
        for _ in range(round(self._settings.lease_seconds / POLL_SECONDS)):
            lease = await self._client.get(kinds.LEASE, self._settings.namespace, self._settings.lease_name) or {}
            spec = lease.get("spec") or {}
            if spec.get("holderIdentity"):
                held.append((spec["holderIdentity"], spec.get("renewTime", "")))
                if held[0] != held[-1]:
                    address = (lease["metadata"].get("annotations") or {}).get(ANNOTATION_ADDRESS)
                    return await self._check_ready(spec["holderIdentity"], address)
            await self._clock.sleep(POLL_SECONDS)
        if not held:
            raise CheckFailed(f"no process holds the {lease_name}: is a pod of the operator running?")
        raise CheckFailed(f"{held[-1][0]} holds the {lease_name} and does not renew it: see that pod's log")

    async def _check_ready(self, holder: str, address: str | None) -> str:
        if not address:
            return f"{holder} leads"
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=RESPONSE_SECONDS)) as session,
                # The request contains no secret, and no certificate names the address in the Lease.
                session.get(f"{self._settings.scheme}://{address}/readyz", ssl=False) as answer,
            ):
                if answer.status != 200:
                    body = (await answer.content.read(MAX_QUOTED_BYTES)).decode(errors="replace")
                    raise CheckFailed(f"{holder} leads and is not ready: {body}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise CheckFailed(
                f"{holder} leads and does not respond at {address} ({error!r}): a NetworkPolicy?"
            ) from None
        return f"{holder} leads and is ready"


async def _run_checks(settings: Settings) -> int:
    client = KubeClient(await load_configuration())
    try:
        check = SelfCheck(client, settings, SystemClock())
        results = [await _report_check(name, run_check) for name, run_check in check.list_checks().items()]
    finally:
        await client.close()
    return 0 if all(results) else 1


async def _report_check(name: str, run_check: Callable[[], Awaitable[str]]) -> bool:
    try:
        print(f"ok      {name}: {await run_check()}")
    except (CheckFailed, api_errors.ApiError) as error:
        print(f"FAILED  {name}: {error}")
        return False
    return True


def main() -> int:
    """Run all checks. Exit code: 0 all passed, 1 one failed, 2 a setting is wrong."""
    try:
        settings = Settings.from_environment()
        kinds.register_kinds(settings.training_kinds)
        return asyncio.run(_run_checks(settings))
    except InvalidSettings as error:
        print(f"wrong settings: {error}", file=sys.stderr)
        return 2
    except ClusterNotConfigured as error:
        print(error, file=sys.stderr)
        return 1
