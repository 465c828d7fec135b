"""Addresses that Modelwright never contacts: link-local ones and the clouds' metadata services. Redacts URIs.

Pure: the operator's image and the fetcher's hold it, and the fetcher's has nothing else of the operator.
"""

import unicodedata
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

METADATA_HOSTS = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})
"""Names under which clouds give instance credentials to any client on the instance."""

_FORBIDDEN = tuple(
    ip_network(text)
    for text in (
        "169.254.0.0/16",
        "fe80::/10",
        "fd00:ec2::/32",  # AWS: instance metadata, EKS Pod Identity, DNS and time over IPv6
        "fd20:ce::254/128",  # Google Cloud over IPv6
        "fd00:42::42/128",  # Scaleway over IPv6
        "100.100.100.200/32",  # Alibaba Cloud
        "168.63.129.16/32",  # Azure's host agent
        "192.0.0.192/32",  # Oracle Cloud
    )
)
# Where the 32 bits of an IPv4 address start in an IPv6 address of these networks, counted from the left. RFC 6052
# leaves bits 64 to 71 out of those that would cross them.
_EMBEDDED = tuple(
    (ip_network(text), first_bit)
    for text, first_bit in (
        ("::/96", 96),  # IPv4-compatible
        ("::ffff:0:0/96", 96),  # IPv4-mapped
        ("::ffff:0:0:0/96", 96),  # IPv4-translated
        ("64:ff9b::/96", 96),  # NAT64
        ("2002::/16", 16),  # 6to4
        ("2001::/32", 32),  # Teredo's server; its client is below
    )
)
_LOCAL_NAT64 = ip_network("64:ff9b:1::/48")
"""Networks choose a prefix of 48 to 96 bits in it, so that the address can stand in each of these places."""

_TEREDO = ip_network("2001::/32")


def is_forbidden(host: str) -> bool:
    """Whether a host name or address, in any spelling that a resolver accepts, must never be contacted."""
    name = unicodedata.normalize("NFKC", host).replace("。", ".").strip("[]").partition("%")[0].rstrip(".").lower()
    if name in METADATA_HOSTS:
        return True
    address = _parse_address(name)
    return address is not None and any(map(_is_in_forbidden_network, (address, *_list_embedded(address))))


def redact_uri(uri: str) -> str:
    """Redact an artifact's URI for messages and other objects: without its query, which may be a signature, and without
    a user."""
    scheme, separator, rest = uri.partition("://")
    if scheme not in ("http", "https"):
        return uri
    host, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}{'?...' if '?' in rest else ''}"


def _parse_address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return _parse_legacy(name)


def _is_in_forbidden_network(address: IPv4Address | IPv6Address) -> bool:
    return any(address in network for network in _FORBIDDEN if network.version == address.version)


def _list_embedded(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address]:
    """List every IPv4 address that an IPv6 address may embed, by its bits."""
    if isinstance(address, IPv4Address):
        return
    bits = int(address)
    for network, first_bit in _EMBEDDED:
        if address in network:
            yield IPv4Address(bits >> (96 - first_bit) & 0xFFFFFFFF)
    if address in _TEREDO:
        yield IPv4Address(~bits & 0xFFFFFFFF)
    # An interface identifier of ISATAP, in any network.
    if bits >> 32 & 0xFCFFFFFF == 0x5EFE:
        yield IPv4Address(bits & 0xFFFFFFFF)
    if address in _LOCAL_NAT64:
        text = f"{bits:0128b}"
        for first_bit in (48, 56, 64, 96):
            around = text[first_bit:64] + text[72:] if first_bit <= 64 else text[first_bit:]
            yield IPv4Address(int(around[:32], 2))


def _parse_legacy(name: str) -> IPv4Address | None:
    """Parse an IPv4 address as inet_aton does: one to four numbers, decimal, octal or hexadecimal, of which the last
    fills the remaining bytes."""
    try:
        numbers = [_parse_number(part) for part in name.split(".")]
    except ValueError:
        return None
    *first, last = numbers
    room = 4 - len(first)
    if len(first) > 3 or any(number > 255 for number in first) or last >= 256**room:
        return None
    return IPv4Address(sum(number << 8 * (3 - at) for at, number in enumerate(first)) + last)


def _parse_number(text: str) -> int:
    if not text.isascii() or not text.isalnum() or len(text) > 16:
        raise ValueError
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if text.startswith("0") else 10)
