"""The measured engine: every verb reaches the engine, is timed by verb and table, and a failure is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from artcafe.errors import Unavailable
from artcafe.observe import metrics
from artcafe.tables.catalog import AGENTS, CHANNELS, TENANTS, Environment
from artcafe.tables.engine.conditions import Exists
from artcafe.tables.engine.measured import MeasuredTables
from artcafe.tables.engine.port import ConditionFailed
from artcafe.tables.engine.writes import Assign, Delete, ItemKey, Put, Update
from artcafe.tables.sqlite.engine import Sqlite

KEY = ItemKey("ten_1", "chn_1")
ITEM = {"tenant_id": "ten_1", "id": "chn_1"}


def counts() -> dict[tuple[str, str], int]:
    """Return the calls of each verb and table so far."""
    cells = {series.pairs: series for series in metrics.TABLE_SECONDS.series}
    found = {}
    for pairs in cells:
        verb, table = (value for _, value in pairs)
        found[verb, table] = metrics.TABLE_SECONDS.of(verb, table).count
    return found


async def test_every_verb_reaches_the_engine_and_is_timed_by_verb_and_table(tmp_path: Path) -> None:
    before = counts()
    tables = MeasuredTables(await Sqlite.open(tmp_path / "tables", Environment.PROD))
    await tables.put(Put(CHANNELS, ITEM))
    assert await tables.get(CHANNELS, [KEY]) == [ITEM]
    assert (await tables.update(Update(CHANNELS, KEY, [Assign("name", "news")])))["name"] == "news"
    assert len((await tables.query(CHANNELS, "ten_1", prefix="chn_", limit=5)).items) == 1
    assert await tables.delete(Delete(CHANNELS, KEY)) == {**ITEM, "name": "news"}
    await tables.transact([Put(CHANNELS, ITEM)])
    await tables.transact([Put(TENANTS, {"id": "ten_1"}), Put(AGENTS, {"tenant_id": "ten_1", "id": "agt_1"})])
    await tables.close()
    moved = {key: count - before[key] for key, count in counts().items() if count != before[key]}
    verbs = ("put", "get", "update", "query", "delete", "transact")
    assert moved == {**{(verb, CHANNELS.name): 1 for verb in verbs}, ("transact", "several"): 1}


async def test_false_condition_is_an_answer_and_an_unreachable_engine_a_failure(tmp_path: Path) -> None:
    failures = [metrics.TABLE_FAILURES.of(verb) for verb in ("put", "get")]
    before = [each.value for each in failures]
    tables = MeasuredTables(await Sqlite.open(tmp_path / "tables", Environment.PROD))
    with pytest.raises(ConditionFailed):
        await tables.put(Put(CHANNELS, ITEM, Exists("id")))
    await tables.close()
    with pytest.raises(Unavailable):
        await tables.get(CHANNELS, [KEY])
    assert [each.value - b for each, b in zip(failures, before, strict=True)] == [0, 1]
