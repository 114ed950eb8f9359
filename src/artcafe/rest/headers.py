"""Headers of every response, sent by the application or by the HTTP protocol itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

Header = tuple[bytes, bytes]

HEADERS: Final[tuple[Header, ...]] = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
"""Responses are JSON for programs: a browser must not cache, frame or execute them. There are no CORS headers. A page for people
sets its own `cache-control` and `content-security-policy`."""

_OWN: Final = frozenset(name for name, _ in HEADERS)

TLS_ONLY: Final[Header] = (b"strict-transport-security", b"max-age=31536000")
"""One year, for responses over the server's own TLS (RFC 6797). A proxy that terminates TLS sets its own header."""


def response_headers(scheme: str | None, given: Iterable[Header] = ()) -> tuple[Header, ...]:
    """Return the headers to add to the `given` ones of a response over `http` or `https`."""
    headers = (*HEADERS, TLS_ONLY) if scheme == "https" else HEADERS
    names = {name for name, _ in given}
    return headers if names.isdisjoint(_OWN) else tuple(header for header in headers if header[0] not in names)
