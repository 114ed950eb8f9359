from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.rules.clients import UNKNOWN, Proxies, rate_limit_key

OURS = Proxies([ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")])


@pytest.mark.parametrize(
    ("peer", "forwarded", "observed"),
    [
        ("10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["198.51.100.9, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["198.51.100.9", "192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["192.0.2.7, 10.2.2.2"], "192.0.2.7"),
        ("10.0.0.1", ["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.7, _hidden"], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.7:4711"], "192.0.2.7"),
        ("fd00::1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("::ffff:10.0.0.1", ["::ffff:192.0.2.7"], "192.0.2.7"),
        ("fe80::1%eth0", ["192.0.2.7"], "fe80::1"),
        ("192.0.2.1", ["192.0.2.7"], "192.0.2.1"),
        (None, ["192.0.2.7"], UNKNOWN),
    ],
)
def test_nearest_address_outside_the_trusted_proxies_is_used(peer: str | None, forwarded: list[str], observed: str) -> None:
    assert OURS.client_address(peer, forwarded) == observed


@given(st.lists(st.text()))
def test_only_a_trusted_proxy_can_set_the_client_address(forwarded: list[str]) -> None:
    assert OURS.client_address("192.0.2.1", forwarded) == "192.0.2.1"
    assert Proxies().client_address("10.0.0.1", forwarded) == "10.0.0.1"


@given(st.text(), st.ip_addresses(v=4).filter(lambda address: address not in ipaddress.ip_network("10.0.0.0/8")))
def test_addresses_written_by_the_client_are_ignored(written: str, client: ipaddress.IPv4Address) -> None:
    assert OURS.client_address("10.0.0.1", [f"{written},{client}"]) == str(client)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("2001:db8:0:1::7", "2001:db8:0:1:ffff::8", True),
        ("2001:db8:0:1::7", "2001:db8:0:2::7", False),
        (UNKNOWN, UNKNOWN, True),
    ],
)
def test_addresses_of_one_site_share_a_rate_limit_key(one: str, other: str, is_same: bool) -> None:
    assert (rate_limit_key(one) == rate_limit_key(other)) is is_same
