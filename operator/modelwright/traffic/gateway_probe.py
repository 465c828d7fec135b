"""Sends requests to a gateway as a caller would, to check which rules are in force."""

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
    """Response to a probe. `status` 0: no response; `error` says why. Header names are in lower case. `cookies`: each
    Set-Cookie."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    cookies: tuple[str, ...] = ()


class GatewayProbe:
    """Sends each probe as a short GET on a new connection: an open one may still use former rules."""

    def __init__(self) -> None:
        # A probe only checks the route. Callers verify the gateway's certificate themselves.
        self._lookups = DnsLookups()
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE

    async def send_probe(self, address: ListenerAddress, *, path: str, headers: Mapping[str, str]) -> ProbeResponse:
        """GET `path` with `headers` from the listener at `address`, for its hostname when it has one.

        A wildcard is replaced by a name. Of several hosts (a gateway with IPv4 and IPv6), the first response counts.
        """
        response = ProbeResponse(0)
        for host in address.hosts:
            response = await self._send_to_host(address, host, path, headers)
            if response.status:
                return response
        return response

    async def _send_to_host(
        self, address: ListenerAddress, host: str, path: str, headers: Mapping[str, str]
    ) -> ProbeResponse:
        host_header = (address.hostname or bracket_host(host)).replace("*", "modelwright-probe")
        url = f"{address.scheme}://{bracket_host(host)}:{address.port}{path}"
        if addresses.is_forbidden(host):
            return ProbeResponse(0, error=f"{host} is a link-local or metadata address, which is never contacted")
        try:
            connector = aiohttp.TCPConnector(force_close=True, resolver=GuardedResolver(self._lookups))
            async with (
                aiohttp.ClientSession(timeout=TIMEOUT, connector=connector) as session,
                session.get(
                    url,
                    headers={**headers, "Host": host_header, "User-Agent": "modelwright-probe"},
                    ssl=self._tls,
                    server_hostname=host_header if address.scheme == "https" else None,
                    allow_redirects=False,
                ) as response,
            ):
                lower_headers = {key.lower(): value for key, value in response.headers.items()}
                cookies = tuple(response.headers.getall("Set-Cookie", ()))
                return ProbeResponse(response.status, lower_headers, cookies=cookies)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return ProbeResponse(0, error=str(error) or type(error).__name__)
