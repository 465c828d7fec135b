"""Which network addresses an http(s) artifact may not come from: the clouds' metadata services. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

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


def forbidden(text: str) -> bool:
    """Whether `text`, an IP address in any usual form, is link-local or a metadata service. False for host names."""
    try:
        address: IPv4Address | IPv6Address = ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        address = inner or address
    return any(address in network for network in _FORBIDDEN if network.version == address.version)
