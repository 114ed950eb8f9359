"""Addresses as people type them, and failures as they read them."""

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
def test_a_gateway_without_a_path_gets_the_usual_one(given: str, found: str) -> None:
    assert addresses.is_gateway(given)
    assert addresses.gateway(given) == found


@pytest.mark.parametrize("given", ["http://127.0.0.1:8080", "http://127.0.0.1:8080/", "http://127.0.0.1:8080/v1"])
def test_the_rest_address_is_the_one_that_the_routes_stand_under(given: str) -> None:
    assert not addresses.is_gateway(given)
    assert addresses.rest(given) == "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    "given",
    ["", "127.0.0.1:8080", "ftp://127.0.0.1", "http://", "http://host:port", "http://host:99999", "ws://[::1", "http://host:0"],
)
def test_what_is_no_address_is_refused_with_an_example(given: str) -> None:
    with pytest.raises(Invalid, match="url: "):
        addresses.is_gateway(given)


@pytest.mark.parametrize("given", ["ws://me:secret@host/", "ws://host/?token=secret", "ws://host/#secret"])
def test_no_credential_stands_in_an_address_or_in_the_error(given: str) -> None:
    with pytest.raises(Invalid, match="address alone") as caught:
        addresses.gateway(given)
    assert "secret" not in str(caught.value)


def test_an_address_of_the_other_kind_is_refused() -> None:
    with pytest.raises(Invalid, match="must be the REST address"):
        addresses.rest("ws://127.0.0.1:8081/v1/connect")
    with pytest.raises(Invalid, match="begins with ws://"):
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
def test_this_machine_is_known_for_what_it_is(given: str, is_here: bool) -> None:
    assert addresses.is_loopback(given) is is_here


def wrapped(cause: BaseException) -> Exception:
    """As HTTP libraries do it: the system's error below two of their own and a group."""
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
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "(its name is not known)"),
        (TimeoutError("timed out during opening handshake"), "(timed out during opening handshake)"),
        (TimeoutError(), "(no answer in time)"),
    ],
)
def test_a_failure_says_in_a_few_words_why(cause: OSError, phrase: str) -> None:
    failure = addresses.failure("ws://host/", cause)
    assert isinstance(failure, Unavailable)
    assert phrase in str(failure)


def test_the_systems_word_is_found_below_what_libraries_wrap_it_in() -> None:
    failure = addresses.failure("ws://host/", wrapped(ConnectionRefusedError(errno.ECONNREFUSED, "refused")))
    assert "(connection refused)" in str(failure)


def test_a_certificate_that_is_refused_is_no_reason_to_try_again() -> None:
    failure = addresses.failure("wss://host/", ssl.SSLCertVerificationError(1, "certificate verify failed"))
    assert isinstance(failure, Invalid)
    assert "certificate verify failed" in str(failure)


def test_several_addresses_stand_between_commas_or_spaces_or_in_a_sequence() -> None:
    both = ["http://a:1", "http://b:2"]
    for given in ("http://a:1,http://b:2", " http://a:1 , http://b:2", "http://a:1 http://b:2", both, tuple(both)):
        assert addresses.several(given) == both
    for nothing in ("", " , "):
        with pytest.raises(Invalid):
            addresses.several(nothing)
    with pytest.raises(Invalid):
        addresses.several([])
