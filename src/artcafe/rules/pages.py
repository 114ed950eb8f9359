"""Pages of a list, and the opaque cursors between them. What a list holds, and in which order, is its service's."""

from __future__ import annotations

import base64
import binascii
import os
from typing import Final, Generic, Self, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from artcafe.errors import BadCursor, Invalid

T = TypeVar("T")

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200

_NONCE_BYTES: Final = 12
_MAX_CURSOR_CHARS: Final = 4096
"""A sort key is at most 1,024 bytes in DynamoDB; sealed and in base64 that is under 1,500."""


class Page(msgspec.Struct, Generic[T], frozen=True):
    """A part of a list. `next` is the sort key to go on behind, or None when nothing follows; it is for `seal` alone."""

    items: tuple[T, ...]
    next: str | None


class PageRequest(msgspec.Struct, frozen=True):
    """What a caller asks of a list: at most `limit` items, behind the sort key `after`."""

    limit: int = DEFAULT_LIMIT
    after: str | None = None

    @classmethod
    def checked(cls, limit: int, after: str | None = None) -> Self:
        """Raises Invalid where the limit is none that a peer may ask for."""
        if not 1 <= limit <= MAX_LIMIT:
            raise Invalid("limit", f"must be from 1 to {MAX_LIMIT}")
        return cls(limit, after)


FIRST: Final = PageRequest()
"""The first page, of the usual length."""


def seal(key: bytes, tenant: str, query: str, sort_key: str) -> str:
    """The opaque cursor for `sort_key`, good only for this tenant and this query (route and filters).

    AES-GCM: the peer neither reads nor makes one, so a sort key is one that a list of this tenant reached. `key` has 32 bytes.
    For a list of a user's own, `tenant` is `usr:{sub}`.
    """
    nonce = os.urandom(_NONCE_BYTES)
    sealed = AESGCM(key).encrypt(nonce, sort_key.encode(), _bound_to(tenant, query))
    return _text(nonce + sealed)


def open(key: bytes, tenant: str, query: str, cursor: str) -> str:
    """The sort key in a cursor. Raises BadCursor unless `seal` made it so, to the letter, with the same key, tenant and query."""
    if len(cursor) > _MAX_CURSOR_CHARS:
        raise BadCursor
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        if _text(data) != cursor:  # the same bytes in another spelling
            raise BadCursor
        return AESGCM(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _bound_to(tenant, query)).decode()
    except (binascii.Error, InvalidTag, ValueError) as exc:
        raise BadCursor from exc


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bound_to(tenant: str, query: str) -> bytes:
    name = tenant.encode()
    return len(name).to_bytes(4, "big") + name + query.encode()
