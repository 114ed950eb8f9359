"""Rows that have no room: an item of the tables holds at most 400 KB, and an older system's may be close to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from artcafe.errors import RowFull
from artcafe.tables.engine.values import MOST_ITEM_BYTES, Unstorable


@contextmanager
def reported() -> Iterator[None]:
    """Raise `RowFull` where a write is refused because its outcome is too large. Nothing was changed then."""
    try:
        yield
    except Unstorable as exc:
        raise RowFull(exc.problem, MOST_ITEM_BYTES) from exc
