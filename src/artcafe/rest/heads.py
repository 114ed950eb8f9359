"""Strict parsing of request heads by RFC 9112. h11 alone accepts heads that another parser may read differently."""

from __future__ import annotations

import re
from typing import Final

import h11
from h11._receivebuffer import ReceiveBuffer

from artcafe.errors import ArtcafeError, BadRequest, TooLarge

MAX_HEAD_BYTES: Final = 16 * 1024
"""A user's access token has a few KB. h11 limits only incomplete heads."""

_END: Final = re.compile(rb"\n\r?\n")
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_FOLD: Final = re.compile(rb"\n[ \t]")


class BadHead(h11.RemoteProtocolError):
    """A refused head, with the error to send."""

    def __init__(self, error: ArtcafeError) -> None:
        super().__init__(str(error))
        self.error = error


class StrictBuffer(ReceiveBuffer):
    """h11's receive buffer with checks before h11 parses a head.

    Every head passes through it, including pipelined ones. The base class is internal to h11: the tests of this module show
    whether another version of h11 is compatible.
    """

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """Return the lines of a head, or of a chunked body's trailers, or None while it is incomplete. Raises BadHead."""
        end = _END.search(self._data)
        size = len(self._data) if end is None else end.end()
        if size > MAX_HEAD_BYTES:
            raise BadHead(TooLarge("the request's head", MAX_HEAD_BYTES))
        if end is not None:
            _check_lines(bytes(self._data[:size]))
        return super().maybe_extract_lines()


def _check_lines(head: bytes) -> None:
    if _BARE_LF.search(head):
        raise BadHead(BadRequest("a line of its head ends with LF without CR (RFC 9112, section 2.2)"))
    if _FOLD.search(head):
        raise BadHead(BadRequest("a line of its head is folded (RFC 9112, section 5.2)"))
