"""Network addresses that nobody may make us ask: link-local ones and the clouds' metadata services; and how an
artifact's address is told.

Pure, and beside `core` since both images hold it: the operator's, and fetch's, which has nothing else of the operator.
"""

import unicodedata
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

METADATA_HOSTS = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})
"""Names under which clouds give instance credentials to whoever asks from the inside."""

_FORBIDDEN = tuple(
    ip_network(text)
    for text in (
        "169.254.0.0/16",
        "fe80::/10",
        "fd00:ec2::254/128",  # AWS over IPv6
        "100.100.100.200/32",  # Alibaba Cloud
        "168.63.129.16/32",  # Azure's host agent
    )
)
_NAT64 = ip_network("64:ff9b::/96")


def refused(host: str) -> bool:
    """Whether a host name or address, in any spelling that a resolver takes, is one that must never be asked."""
    name = unicodedata.normalize("NFKC", host).replace("。", ".").strip("[]").partition("%")[0].rstrip(".").lower()
    if name in METADATA_HOSTS:
        return True
    found = _address(name)
    return found is not None and any(found in network for network in _FORBIDDEN if network.version == found.version)


def shown(uri: str) -> str:
    """An artifact's address for messages and other objects: without its query, which may be a signature, and without a
    user."""
    scheme, separator, rest = uri.partition("://")
    if scheme not in ("http", "https"):
        return uri
    host, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}{'?...' if '?' in rest else ''}"


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(name)
    except ValueError:
        return _legacy(name)
    if isinstance(address, IPv6Address):
        if inner := address.ipv4_mapped or address.sixtofour:
            return inner
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _legacy(name: str) -> IPv4Address | None:
    """An IPv4 address as inet_aton reads it: one to four numbers, decimal, octal or hexadecimal, the last one filling
    the bytes that are left."""
    try:
        numbers = [_number(part) for part in name.split(".")]
    except ValueError:
        return None
    *first, last = numbers
    room = 4 - len(first)
    if len(first) > 3 or any(number > 255 for number in first) or last >= 256**room:
        return None
    return IPv4Address(sum(number << 8 * (3 - at) for at, number in enumerate(first)) + last)


def _number(text: str) -> int:
    if not text.isascii() or not text.isalnum() or len(text) > 16:
        raise ValueError
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if text.startswith("0") else 10)
