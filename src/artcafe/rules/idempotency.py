"""Repeatable requests: derive the id of a new record, and recognise a retry of the same request."""

from __future__ import annotations

from artcafe.errors import Conflict, IdempotencyMismatch
from artcafe.rules import fields, ids


class KeyedRequest:
    """A creating request with an optional `Idempotency-Key`. The created row is its only record."""

    def __init__(self, key: str | None, *made_by: str) -> None:
        """Combine the key with `made_by`, the scope of equal keys: tenant, principal, route.

        Raises Invalid for a malformed key.
        """
        self._parts = None if key is None else (*made_by, fields.idempotency_key(key))

    def new_id(self, prefix: str) -> str:
        """Return the id of the new record: with a key, the same id for every retry."""
        return ids.new_id(prefix) if self._parts is None else ids.derived_id(prefix, *self._parts)

    def hash(self, *content: str) -> str | None:
        """Return the hash of the request for the row; None without a key."""
        return None if self._parts is None else ids.digest(*content)


def check_repeat(existing: str | None, hash: str | None) -> None:
    """Raise IdempotencyMismatch unless the hash in the row is this request's."""
    if hash is None or existing != hash:
        raise IdempotencyMismatch


def repeat_of_deleted(what: str) -> Conflict:
    """Return the error for a retry of a request whose record was deleted; `what` names the record."""
    return Conflict(f"this request made {what}; take a new Idempotency-Key for a new one")
