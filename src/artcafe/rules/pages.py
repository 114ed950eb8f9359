"""Pages of a list and their opaque cursors. The services define the contents and the order of a list."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import AsyncIterator, Awaitable, Callable
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
"""A sort key has at most 1,024 bytes in DynamoDB; sealed and in base64 it has under 1,500."""


class Page(msgspec.Struct, Generic[T], frozen=True):
    """A page of a list. `next` is the sort key to continue after, for `seal` only; None on the last page."""

    items: tuple[T, ...]
    next: str | None


class PageRequest(msgspec.Struct, frozen=True):
    """A request for a page: at most `limit` items after the sort key `after`."""

    limit: int = DEFAULT_LIMIT
    after: str | None = None

    @classmethod
    def checked(cls, limit: int, after: str | None = None) -> Self:
        """Return a page request. Raises Invalid if the limit is outside the range for peers."""
        if not 1 <= limit <= MAX_LIMIT:
            raise Invalid("limit", f"must be from 1 to {MAX_LIMIT}")
        return cls(limit, after)


FIRST: Final = PageRequest()
"""The first page, with the default limit."""


async def each_page(read: Callable[[PageRequest], Awaitable[Page[T]]], limit: int = MAX_LIMIT) -> AsyncIterator[Page[T]]:
    """Yield every page of a list. Each is read after the one before was used."""
    page = await read(PageRequest(limit))
    yield page
    while page.next is not None:
        page = await read(PageRequest(limit, page.next))
        yield page


def seal(key: bytes, tenant: str, query: str, sort_key: str) -> str:
    """Return the opaque cursor for `sort_key`, valid only for this tenant and this query (route and filters).

    Sealed by AES-GCM: a peer can neither read nor forge a cursor, so every sort key comes from a list of this tenant. `key` has
    32 bytes. For a list of a user's own, `tenant` is `usr:{sub}`.
    """
    nonce = os.urandom(_NONCE_BYTES)
    sealed = AESGCM(key).encrypt(nonce, sort_key.encode(), _bound_to(tenant, query))
    return _text(nonce + sealed)


def open(key: bytes, tenant: str, query: str, cursor: str) -> str:
    """Return the sort key in a cursor.

    Raises BadCursor for any text except one from `seal` with the same key, tenant and query, character by character.
    """
    if len(cursor) > _MAX_CURSOR_CHARS:
        raise BadCursor
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        if _text(data) != cursor:  # another spelling of the same bytes
            raise BadCursor
        return AESGCM(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _bound_to(tenant, query)).decode()
    except (binascii.Error, InvalidTag, ValueError) as exc:
        raise BadCursor from exc


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bound_to(tenant: str, query: str) -> bytes:
    name = tenant.encode()
    return len(name).to_bytes(4, "big") + name + query.encode()
