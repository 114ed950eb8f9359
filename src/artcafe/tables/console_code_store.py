"""Codes of the console: each signs one person in once. They are rows of the challenges table, where every engine removes expired
rows by `ttl`.

A code is stored as its digest: a copy of the table signs nobody in.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from artcafe.model import UserId
from artcafe.rules import ids
from artcafe.tables.attributes import expiry, text
from artcafe.tables.catalog import CHALLENGES
from artcafe.tables.engine.port import Tables
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import Put
from artcafe.tables.single_use import take_once

_PREFIX: Final = "console#"


_CREATORS_END: Final = "token_expires_at"


class CodeCreator(NamedTuple):
    """The creator of a code, and when the token expires that the creator used."""

    user_id: UserId
    token_expires_at: datetime


class ConsoleCodeStore:
    """The unused codes of all servers."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def put(self, code: str, creator: CodeCreator, expires_at: datetime) -> None:
        """Store a code until it is taken or expires."""
        item: Item = {
            "challenge_id": _key(code),
            "challenge": creator.user_id,
            _CREATORS_END: int(creator.token_expires_at.timestamp()),
            "ttl": int(expires_at.timestamp()),
        }
        await self._tables.put(Put(CHALLENGES, item))

    async def take(self, code: str, attempt: str, now: datetime) -> CodeCreator | None:
        """Redeem a code for this attempt, on any server; return None if it is unknown, expired or already redeemed.

        An engine retrying after a lost answer passes the same `attempt` and gets the creator again.
        """
        item = await take_once(self._tables, _key(code), attempt, now)
        return None if item is None else CodeCreator(UserId(text(item, "challenge")), expiry(item, _CREATORS_END))


def _key(code: str) -> str:
    return f"{_PREFIX}{ids.digest(code)}"
