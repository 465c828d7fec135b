"""Asks a gateway a question as a caller would, to see what it really does."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp

from modelwright.core.attachment import ListenerAddress, bracket_host
from modelwright.net import addresses
from modelwright.net.resolver import DnsLookups, GuardedResolver

TIMEOUT = aiohttp.ClientTimeout(total=3, sock_connect=2)


@dataclass(frozen=True, slots=True)
class ProbeResponse:
    """`status` 0 means that there was no answer; `error` says why. Header names are in lower case. `cookies`: each
    Set-Cookie."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    cookies: tuple[str, ...] = ()


class GatewayProbe:
    """One short GET per question over a connection of its own, so that no old connection answers from the past."""

    def __init__(self) -> None:
        # Whether the route is programmed is what is asked; whose certificate the gateway shows is the caller's matter.
        self._lookups = DnsLookups()
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE

    async def send_probe(self, address: ListenerAddress, *, path: str, headers: Mapping[str, str]) -> ProbeResponse:
        """GET `path` with `headers` from the listener at `address`, for its hostname when it has one; a wildcard stands
        for one name. Of several hosts (a gateway with IPv4 and IPv6) the first that answers counts."""
        answer = ProbeResponse(0)
        for host in address.hosts:
            answer = await self._send_to_host(address, host, path, headers)
            if answer.status:
                return answer
        return answer

    async def _send_to_host(
        self, address: ListenerAddress, target: str, path: str, headers: Mapping[str, str]
    ) -> ProbeResponse:
        host = (address.hostname or bracket_host(target)).replace("*", "modelwright-probe")
        url = f"{address.scheme}://{bracket_host(target)}:{address.port}{path}"
        if addresses.is_forbidden(target):
            return ProbeResponse(0, error=f"{target} is a link-local or metadata address, which is never asked")
        try:
            connector = aiohttp.TCPConnector(force_close=True, resolver=GuardedResolver(self._lookups))
            async with (
                aiohttp.ClientSession(timeout=TIMEOUT, connector=connector) as session,
                session.get(
                    url,
                    headers={**headers, "Host": host, "User-Agent": "modelwright-probe"},
                    ssl=self._tls,
                    server_hostname=host if address.scheme == "https" else None,
                    allow_redirects=False,
                ) as response,
            ):
                found = {key.lower(): value for key, value in response.headers.items()}
                return ProbeResponse(response.status, found, cookies=tuple(response.headers.getall("Set-Cookie", ())))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return ProbeResponse(0, error=str(error) or type(error).__name__)
