"""The codes and reasons of WebSocket close frames (RFC 6455, section 7.4)."""

from __future__ import annotations

from typing import Final

from picows import WSCloseCode

from artcafe.errors import ArtcafeError, Internal

REASON_BYTES: Final = 123
"""A control frame holds 125 bytes, two of them the code (RFC 6455, section 5.5)."""

_SENDABLE: Final = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})
"""The registered codes (IANA), except codes not allowed in a frame."""


def for_error(error: ArtcafeError) -> tuple[int, bytes]:
    """Return the close code and reason for this error."""
    reason = str(error).encode()[:REASON_BYTES].decode(errors="ignore")  # not in the middle of a character
    code = error.close if error.close is not None else Internal.close
    assert code is not None
    return code, reason.encode()


def for_reply(payload: bytes) -> int:
    """Return the code of the reply to a close frame: its own, if a frame may carry it."""
    if not payload:
        return WSCloseCode.OK.value  # a close frame without a code
    code = int.from_bytes(payload[:2], "big")
    is_sendable = code in _SENDABLE or 3000 <= code <= 4999
    return code if is_sendable else WSCloseCode.PROTOCOL_ERROR.value
