"""Repeatable requests: the id a new thing gets, and whether a second request with a key is the first one again."""

from __future__ import annotations

from artcafe.errors import Conflict, IdempotencyMismatch
from artcafe.rules import fields, ids


class Request:
    """A request to make something, perhaps with an `Idempotency-Key`. The row it makes is the only memory of it."""

    def __init__(self, key: str | None, *made_by: str) -> None:
        """`made_by` is whatever makes equal keys different requests: tenant, principal, route. Raises Invalid for a bad key."""
        self._parts = None if key is None else (*made_by, fields.idempotency_key(key))

    def new_id(self, prefix: str) -> str:
        """The id of the thing: with a key, the same one whenever the request comes again."""
        return ids.new_id(prefix) if self._parts is None else ids.derived_id(prefix, *self._parts)

    def hash(self, *content: str) -> str | None:
        """What the row keeps of the request; nothing without a key."""
        return None if self._parts is None else ids.digest(*content)


def check_repeat(existing: str | None, hash: str | None) -> None:
    """Raises IdempotencyMismatch unless the hash that a row kept is that of this request."""
    if hash is None or existing != hash:
        raise IdempotencyMismatch


def repeat_of_deleted(what: str) -> Conflict:
    """Return the error for a repeat of a request whose result was deleted since; `what` says what it made."""
    return Conflict(f"this request made {what}; take a new Idempotency-Key for a new one")
