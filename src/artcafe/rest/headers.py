"""The headers of every answer, whether the application gives it or the HTTP protocol itself."""

from __future__ import annotations

from typing import Final

Header = tuple[bytes, bytes]

HEADERS: Final[tuple[Header, ...]] = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
"""No header of CORS is among them. The answers are JSON for programs: a browser must neither cache, frame nor run one."""

TLS_ONLY: Final[Header] = (b"strict-transport-security", b"max-age=31536000")
"""A year, on answers over TLS of ours (RFC 6797). A proxy that ends TLS sets its own."""


def of_every_answer(scheme: str | None) -> tuple[Header, ...]:
    """Return the headers that an answer over `http` or `https` carries."""
    return (*HEADERS, TLS_ONLY) if scheme == "https" else HEADERS
