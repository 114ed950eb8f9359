"""Translate writes to full rows into an error: an item holds at most 400 KB, and rows of an older system may be close to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from artcafe.errors import RowFull
from artcafe.tables.engine.values import MAX_ITEM_BYTES, Unstorable


@contextmanager
def reported() -> Iterator[None]:
    """Raise `RowFull` for a write refused because its result is too large. Nothing was changed."""
    try:
        yield
    except Unstorable as exc:
        raise RowFull(exc.problem, MAX_ITEM_BYTES) from exc
