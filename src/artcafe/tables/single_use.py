"""Rows of the challenges table that can be redeemed once, until their `ttl`: login challenges, and codes of the console."""

from __future__ import annotations

from datetime import datetime

from artcafe.tables.catalog import CHALLENGES
from artcafe.tables.engine.conditions import Absent, And, Equals, Exists, Greater, Or
from artcafe.tables.engine.port import ConditionFailed, Tables
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import Assign, ItemKey, Update


async def take_once(tables: Tables, key: str, attempt: str, now: datetime) -> Item | None:
    """Redeem a row for this attempt, on any server; return None if it is missing, expired or already redeemed.

    An engine retrying after a lost answer passes the same `attempt` and gets the row again.
    """
    # `ttl` is a whole second, so the comparison with the current whole second is exact.
    is_alive = Greater("ttl", int(now.timestamp()))
    good = And(Exists("challenge_id"), is_alive, Or(Absent("used_by"), Equals("used_by", attempt)))
    try:
        return await tables.update(Update(CHALLENGES, ItemKey(key), [Assign("used_by", attempt)], good))
    except ConditionFailed:
        return None
