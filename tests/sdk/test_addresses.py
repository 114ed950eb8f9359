"""Parsing of typed addresses, and texts of connection errors."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest

from artcafe.errors import Invalid, Unavailable
from artcafe.sdk import addresses


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("ws://127.0.0.1:8081", "ws://127.0.0.1:8081/v1/connect"),
        ("wss://cafe.example.com/", "wss://cafe.example.com/v1/connect"),
        ("wss://cafe.example.com/behind/a/proxy", "wss://cafe.example.com/behind/a/proxy"),
        ("ws://[::1]:8081/v1/connect", "ws://[::1]:8081/v1/connect"),
    ],
)
def test_gateway_address_without_a_path_gets_the_default_path(given: str, found: str) -> None:
    assert addresses.is_gateway(given)
    assert addresses.gateway(given) == found


@pytest.mark.parametrize("given", ["http://127.0.0.1:8080", "http://127.0.0.1:8080/", "http://127.0.0.1:8080/v1"])
def test_rest_address_has_no_trailing_slash_or_version(given: str) -> None:
    assert not addresses.is_gateway(given)
    assert addresses.rest(given) == "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    "given",
    ["", "127.0.0.1:8080", "ftp://127.0.0.1", "http://", "http://host:port", "http://host:99999", "ws://[::1", "http://host:0"],
)
def test_invalid_address_is_refused_with_an_example(given: str) -> None:
    with pytest.raises(Invalid, match="url: "):
        addresses.is_gateway(given)


@pytest.mark.parametrize("given", ["ws://me:secret@host/", "ws://host/?token=secret", "ws://host/#secret"])
def test_credentials_in_an_address_are_refused_and_not_repeated(given: str) -> None:
    with pytest.raises(Invalid, match="must have no user") as caught:
        addresses.gateway(given)
    assert "secret" not in str(caught.value)


def test_address_of_the_other_kind_is_refused() -> None:
    with pytest.raises(Invalid, match="must be the REST address"):
        addresses.rest("ws://127.0.0.1:8081/v1/connect")
    with pytest.raises(Invalid, match="must begin with ws://"):
        addresses.gateway("http://127.0.0.1:8080")


@pytest.mark.parametrize(
    ("given", "is_here"),
    [
        ("http://127.0.0.1:8080", True),
        ("ws://127.3.2.1", True),
        ("ws://[::1]:1", True),
        ("http://localhost", True),
        ("http://10.0.0.1", False),
        ("http://localhost.example.com", False),
    ],
)
def test_loopback_addresses_are_recognized(given: str, is_here: bool) -> None:
    assert addresses.is_loopback(given) is is_here


def wrapped(cause: BaseException) -> Exception:
    """Wrap the system's error as HTTP libraries do: in two exceptions and a group."""
    try:
        try:
            raise ExceptionGroup("all attempts failed", [cause]) if isinstance(cause, Exception) else cause
        except BaseException as exc:
            raise OSError("All connection attempts failed") from exc
    except OSError as exc:
        return exc


@pytest.mark.parametrize(
    ("cause", "phrase"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 9)"), "(connection refused)"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "(unknown host name)"),
        (TimeoutError("timed out during opening handshake"), "(timed out during opening handshake)"),
        (TimeoutError(), "(timeout)"),
    ],
)
def test_failure_has_a_short_reason(cause: OSError, phrase: str) -> None:
    failure = addresses.failure("ws://host/", cause)
    assert isinstance(failure, Unavailable)
    assert phrase in str(failure)


def test_system_error_is_found_inside_wrapping_exceptions() -> None:
    failure = addresses.failure("ws://host/", wrapped(ConnectionRefusedError(errno.ECONNREFUSED, "refused")))
    assert "(connection refused)" in str(failure)


def test_refused_certificate_is_not_temporary() -> None:
    failure = addresses.failure("wss://host/", ssl.SSLCertVerificationError(1, "certificate verify failed"))
    assert isinstance(failure, Invalid)
    assert "certificate verify failed" in str(failure)
    assert "SSL_CERT_FILE" in str(failure)


def test_certificate_is_no_advice_for_another_tls_failure() -> None:
    failure = addresses.failure("wss://host/", ssl.SSLError(1, "wrong version number"))
    assert isinstance(failure, Invalid)
    assert "SSL_CERT_FILE" not in str(failure)


def test_several_addresses_are_separated_by_commas_or_spaces_or_in_a_sequence() -> None:
    both = ["http://a:1", "http://b:2"]
    for given in ("http://a:1,http://b:2", " http://a:1 , http://b:2", "http://a:1 http://b:2", both, tuple(both)):
        assert addresses.several(given) == both
    for nothing in ("", " , "):
        with pytest.raises(Invalid):
            addresses.several(nothing)
    with pytest.raises(Invalid):
        addresses.several([])
