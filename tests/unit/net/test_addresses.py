"""Addresses of metadata services, in all the forms in which they can be written."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.net.addresses import is_forbidden


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.0.1",
        "169.254.169.254.",
        "2852039166",
        "0xA9FEA9FE",
        "0xa9.0xfe.0xa9.0xfe",
        "0251.0376.0251.0376",
        "025177524776",
        "169.254.43518",
        "169.16689662",
        "169。254。169。254",
        "１６９.254.169.254",
        "fe80::1",
        "fe80::1%eth0",
        "[fe80::1]",
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "64:ff9b::a9fe:a9fe",
        "fd00:ec2::254",
        "fd00:0ec2:0:0::0254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fd00:42::42",
        "192.0.0.192",
        "::169.254.169.254",
        "::ffff:0:169.254.169.254",
        "64:ff9b:1::a9fe:a9fe",
        "64:ff9b:1:a9fe:a9:fe00::",
        "::ffff:192.0.0.192",
        "64:ff9b::100.100.100.200",
        "100.100.100.200",
        "168.63.129.16",
        "metadata",
        "Metadata.Google.Internal",
        "metadata.google.internal.",
    ],
)
def test_metadata_and_link_local_addresses_are_forbidden(address: str) -> None:
    assert is_forbidden(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "localhost",
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "fd00::1",
        "::1",
        "8.8.8.8",
        "2130706433",
        "example.com",
        "169.254.169.254.example.com",
        "169.254.169.256",
        "0xa9fea9fe1",
        "metadata.vision.svc",
        "1.2.3.4.5",
        "089.254.169.254",
        "-1",
        "",
        ".",
    ],
)
def test_private_and_public_addresses_are_allowed(address: str) -> None:
    assert not is_forbidden(address)


@given(st.integers(0, 2**16 - 1), st.sampled_from([(4,), (3, 1), (2, 2), (2, 1, 1), (1, 1, 1, 1), (1, 3)]), st.data())
def test_any_spelling_of_a_link_local_address_is_one(low: int, widths: tuple[int, ...], data: st.DataObject) -> None:
    """As inet_aton reads them: numbers of any base, of which the last one fills what is left."""
    rest, numbers = (169 << 24 | 254 << 16 | low).to_bytes(4, "big"), []
    first = [1] * (len(widths) - 1)
    for width in (*first, 4 - len(first)):
        numbers.append(int.from_bytes(rest[:width], "big"))
        rest = rest[width:]
    text = ".".join(data.draw(st.sampled_from([str, hex, lambda n: f"0{n:o}"]))(number) for number in numbers)
    assert is_forbidden(text)


@given(st.one_of(st.text(max_size=40), st.from_regex(r"[0-9a-fx.:%\[\]]{0,40}")))
def test_any_text_is_judged(text: str) -> None:
    assert is_forbidden(text) in (True, False)


@given(st.ip_addresses(v=4))
def test_of_plain_addresses_only_those_of_the_list_are_forbidden(address: ipaddress.IPv4Address) -> None:
    listed = address.is_link_local or str(address) in ("100.100.100.200", "168.63.129.16", "192.0.0.192")
    assert is_forbidden(str(address)) == listed


FORMS = {
    "IPv4-compatible": lambda v4: v4,
    "IPv4-mapped": lambda v4: 0xFFFF << 32 | v4,
    "IPv4-translated": lambda v4: 0xFFFF << 48 | v4,
    "NAT64": lambda v4: 0x0064FF9B << 96 | v4,
    "local NAT64, a prefix of 96 bits": lambda v4: 0x0064FF9B0001 << 80 | v4,
    "local NAT64, a prefix of 64 bits": lambda v4: 0x0064FF9B0001 << 80 | v4 << 24,
    "local NAT64, a prefix of 56 bits": lambda v4: 0x0064FF9B0001 << 80 | v4 >> 24 << 64 | (v4 & 0xFFFFFF) << 32,
    "local NAT64, a prefix of 48 bits": lambda v4: 0x0064FF9B0001 << 80 | v4 >> 16 << 64 | (v4 & 0xFFFF) << 40,
    "6to4": lambda v4: 0x2002 << 112 | v4 << 80,
    "Teredo, the server": lambda v4: 0x20010000 << 96 | v4 << 64,
    "Teredo, the client": lambda v4: 0x20010000 << 96 | ~v4 & 0xFFFFFFFF,
    "ISATAP": lambda v4: 0x2A00 << 112 | 0x5EFE << 32 | v4,
}


@pytest.mark.parametrize("form", FORMS)
@given(low=st.integers(0, 2**16 - 1))
def test_an_ipv4_address_is_found_in_an_ipv6_address_by_its_bits(form: str, low: int) -> None:
    assert is_forbidden(str(ipaddress.IPv6Address(FORMS[form](0xA9FE << 16 | low))))


@pytest.mark.parametrize("form", FORMS)
def test_another_ipv4_address_in_the_same_place_is_fine(form: str) -> None:
    assert not is_forbidden(str(ipaddress.IPv6Address(FORMS[form](int(ipaddress.IPv4Address("10.1.2.3"))))))
