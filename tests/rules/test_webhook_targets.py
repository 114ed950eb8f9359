"""Where webhooks may be sent: every address that only the server can reach is refused."""

from __future__ import annotations

import ipaddress

import pytest

from artcafe.errors import Invalid
from artcafe.rules import webhook_targets
from artcafe.rules.webhook_targets import Target

PRIVATE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "2002:7f00:1::",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
PUBLIC = ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
HTTPS, HTTP = Target("https", "hooks.example.com", 443), Target("http", "hooks.example.com", 80)


@pytest.mark.parametrize("address", PRIVATE)
def test_address_that_is_not_public_is_refused_alone_and_among_public_ones(address: str) -> None:
    found, public = ipaddress.ip_address(address), ipaddress.ip_address("1.1.1.1")
    for addresses in ([found], [public, found]):
        problem = webhook_targets.refused(HTTPS, addresses, ())
        assert problem is not None
        assert address in problem.replace(str(found), address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_address_is_allowed_with_https_only(address: str) -> None:
    found = ipaddress.ip_address(address)
    assert webhook_targets.refused(HTTPS, [found], ()) is None
    assert "needs https" in (webhook_targets.refused(HTTP, [found], ()) or "")


def test_network_of_the_operator_allows_its_addresses_and_no_others() -> None:
    networks = (ipaddress.ip_network("10.20.0.0/16"),)
    for address in ("10.20.1.1", "::ffff:10.20.1.1"):
        for target in (HTTPS, HTTP):
            assert webhook_targets.refused(target, [ipaddress.ip_address(address)], networks) is None
    assert webhook_targets.refused(HTTPS, [ipaddress.ip_address("10.21.0.1")], networks) is not None
    assert "has no address" in (webhook_targets.refused(HTTPS, [], networks) or "")


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://hooks.example.com", ("https", "hooks.example.com", 443)),
        ("https://Hooks.example.com:8443/a/b?c=d", ("https", "hooks.example.com", 8443)),
        ("https://[2606:4700:4700::1111]/", ("https", "2606:4700:4700::1111", 443)),
    ],
)
def test_url_is_parsed_into_its_target(url: str, target: tuple[str, str, int]) -> None:
    assert webhook_targets.parse(url, ()) == target


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.com",
        "http://hooks.example.com",
        "ftp://hooks.example.com",
        "file:///etc/passwd",
        "https://",
        "https://user:password@hooks.example.com",
        "https://hooks.example.com@169.254.169.254",
        "https://hooks.example.com/#fragment",
        "https://hooks.example.com:99999/",
        "https://hooks.example.com/a b",
        "https://hooks.example.com/\nx",
        "https://häuser.example.com/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::ffff:127.0.0.1]/",
        "https://" + "a" * 2048,
    ],
)
def test_url_that_names_no_public_https_endpoint_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="url: "):
        webhook_targets.parse(url, ())
