"""Parsing upgrade requests, and the HTTP answers to refused ones. No I/O.

picows parses requests too, but it compares `Connection` and `Upgrade` with whole values and answers on its own. So it gets a
`canonical` request made here.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from artcafe.errors import ArtcafeError, RateLimited, ShuttingDown
from artcafe.wire.frames import SUBPROTOCOL

PATH: Final = "/v1/connect"
MAX_HEAD_BYTES: Final = 16 * 1024
WEBSOCKET_VERSION: Final = "13"

_HEADERS: Final = {
    "Content-Type": "text/plain; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Connection": "close",
}
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ANSWERED_PATH_CHARS: Final = 100


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """A parsed request: `host` is its authority, `origins` its Origin headers, `forwarded` its X-Forwarded-For headers."""

    key: str
    host: str
    origins: list[str]
    forwarded: list[str]

    def canonical(self) -> bytes:
        """Return an equivalent request in the form accepted by picows."""
        lines = (
            f"GET {PATH} HTTP/1.1",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Version: {WEBSOCKET_VERSION}",
            f"Sec-WebSocket-Key: {self.key}",
        )
        return "\r\n".join((*lines, "", "")).encode()


@dataclass(eq=False)
class UpgradeRefused(Exception):
    """A refused request, and its HTTP answer in plain text for the developer of the client."""

    status: HTTPStatus
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)
    is_noise: bool = False
    """Whether the refusal is logged: the peer speaks no HTTP, or has too many connections."""

    def answer(self) -> bytes:
        """Return the HTTP response."""
        body = f"{self.text}\n".encode()
        headers = {**_HEADERS, **self.headers, "Content-Length": str(len(body))}
        lines = (f"HTTP/1.1 {self.status.value} {self.status.phrase}", *(f"{name}: {value}" for name, value in headers.items()))
        return "\r\n".join((*lines, "", "")).encode() + body


def refusal(error: ArtcafeError) -> UpgradeRefused:
    """Return the HTTP answer to an error."""
    headers = {"Retry-After": "1"} if error.temporary else {}
    status = HTTPStatus.SERVICE_UNAVAILABLE if isinstance(error, ShuttingDown) else HTTPStatus(error.status)
    return UpgradeRefused(status, str(error), headers, is_noise=isinstance(error, RateLimited))


def parse(head: bytes) -> UpgradeRequest:
    """Parse the head of a request, without its empty last line. Raises UpgradeRefused."""
    target, headers = _read(head)
    scheme, _, rest = target.partition("://")
    authority = None
    if rest and scheme.lower() in ("http", "https", "ws", "wss"):  # absolute-form (RFC 9112, section 3.2.2)
        parts = urlsplit(f"//{rest}")
        authority, target = parts.netloc, parts.path + (f"?{parts.query}" if parts.query else "")
    hosts = headers.get("host", [])
    if len(hosts) != 1:
        raise UpgradeRefused(HTTPStatus.BAD_REQUEST, "A request names one Host (RFC 9112, section 3.2).")
    _check(target, headers)
    key = headers.get("sec-websocket-key", [])
    if len(key) != 1 or not _is_key(key[0]):
        raise UpgradeRefused(HTTPStatus.BAD_REQUEST, "Sec-WebSocket-Key must be 16 random bytes in base64.")
    return UpgradeRequest(key[0], authority or hosts[0], headers.get("origin", []), headers.get("x-forwarded-for", []))


def _read(head: bytes) -> tuple[str, dict[str, list[str]]]:
    """Return the target and the headers by lower-case name."""
    first, *lines = head.split(b"\r\n")
    parts = first.split(b" ")
    if len(parts) != 3 or not parts[2].startswith(b"HTTP/") or not parts[1]:
        raise UpgradeRefused(HTTPStatus.BAD_REQUEST, "This is no request of HTTP/1.1.", is_noise=True)
    method, target, version = parts
    if version != b"HTTP/1.1":
        raise UpgradeRefused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "Connect by HTTP/1.1.")
    if method != b"GET":
        raise UpgradeRefused(HTTPStatus.METHOD_NOT_ALLOWED, f"Agents connect by GET {PATH}.", {"Allow": "GET"})
    headers: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name) or b"\n" in line or b"\r" in line or b"\0" in line:
            raise UpgradeRefused(HTTPStatus.BAD_REQUEST, "A line of the head is no header of HTTP/1.1.", is_noise=True)
        headers.setdefault(name.decode().lower(), []).append(value.strip(b" \t").decode("latin-1"))
    if "transfer-encoding" in headers or any(length.strip("0") for length in headers.get("content-length", [])):
        raise UpgradeRefused(HTTPStatus.BAD_REQUEST, "An upgrade has no body.")
    return target.decode("latin-1"), headers


def _check(target: str, headers: Mapping[str, list[str]]) -> None:
    """Raise UpgradeRefused unless it is an upgrade to our protocol. Headers are lists: Firefox sends `keep-alive, Upgrade`."""
    path, _, query = target.partition("?")
    if path != PATH:
        shown = path[:_ANSWERED_PATH_CHARS]
        raise UpgradeRefused(HTTPStatus.NOT_FOUND, f"There is nothing at {shown}; agents connect at {PATH}.")
    if query:
        raise UpgradeRefused(
            HTTPStatus.BAD_REQUEST, "Nothing goes into this URL, credentials least of all: send them in connect."
        )
    if "websocket" not in _tokens(headers, "upgrade") or "upgrade" not in _tokens(headers, "connection"):
        raise _upgrade_required(f"This is a WebSocket: connect with the subprotocol {SUBPROTOCOL}.")
    if headers.get("sec-websocket-version", []) != [WEBSOCKET_VERSION]:
        raise _upgrade_required(f"This takes version {WEBSOCKET_VERSION} of the WebSocket protocol (RFC 6455).")
    if SUBPROTOCOL not in {each.strip() for each in ",".join(headers.get("sec-websocket-protocol", [])).split(",")}:
        raise UpgradeRefused(HTTPStatus.BAD_REQUEST, f"Offer the subprotocol: Sec-WebSocket-Protocol: {SUBPROTOCOL}")


def _upgrade_required(text: str) -> UpgradeRefused:
    """Return the refusal of a request for another protocol (RFC 9110, section 15.5.22; RFC 6455, section 4.4)."""
    return UpgradeRefused(HTTPStatus.UPGRADE_REQUIRED, text, {"Upgrade": "websocket", "Sec-WebSocket-Version": WEBSOCKET_VERSION})


def _tokens(headers: Mapping[str, list[str]], name: str) -> set[str]:
    return {token.strip().lower() for token in ",".join(headers.get(name, [])).split(",")}


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False
