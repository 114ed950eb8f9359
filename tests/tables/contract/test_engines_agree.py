"""Random operations on the file and on DynamoDB: equal answers, equal tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artcafe.tables.catalog import AGENTS, Environment
from artcafe.tables.dynamodb.client import Endpoint
from artcafe.tables.engine.port import ConditionFailed, Query, Tables
from artcafe.tables.engine.values import Item, Unstorable
from artcafe.tables.engine.writes import Add, Assign, Delete, ItemKey, Put, Update, Write
from artcafe.tables.sqlite.engine import Sqlite
from tests.tables.conftest import emptied
from tests.tables.contract.test_differential import PLACES, on_engine, operations, typed_answer
from tests.tables.strategies import names, numbers, values

Engines = tuple[Tables, Tables]

QUICK = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
ANYTHING = st.dictionaries(names(), values(), max_size=4)
KEY = ItemKey("p", "a")


@pytest.fixture
async def engines(tmp_path: Path, emulated: Endpoint) -> AsyncIterator[Engines]:
    """Yield an engine on a file and one on DynamoDB."""
    both = await Sqlite.open(tmp_path / "tables.db", Environment.PROD), await emptied(emulated)
    yield both
    for engine in both:
        await engine.close()


async def answered(tables: Tables, todo: list[Write] | Query) -> object:
    """Return an engine's answer in a form in which values of different types are unequal."""
    try:
        if isinstance(todo, Query):
            fields = {name: getattr(todo, name) for name in ("prefix", "after", "limit", "descending", "where")}
            return typed_answer(await tables.query(todo.table, todo.partition, consistent=True, **fields))
        answer = await on_engine(tables, todo)
    except ConditionFailed as refused:
        return {index: typed_answer(item) for index, item in refused.failed.items()}
    except Unstorable:
        return Unstorable
    return None if answer is None else [[typed_answer(part) for part in parts if part is not ...] for parts in answer]


async def everything(tables: Tables) -> list[object]:
    return [typed_answer(item) for table, key in PLACES for item in await tables.get(table, [key], consistent=True)]


@settings(suppress_health_check=QUICK, max_examples=60)
@given(todo=operations)
async def test_engines_give_equal_answers_and_end_with_equal_tables(engines: Engines, todo: list[list[Write] | Query]) -> None:
    for engine in engines:
        await engine.transact([Delete(table, key) for table, key in PLACES])
    for each in todo:
        one, other = [await answered(engine, each) for engine in engines]
        assert one == other, each
    one, other = [await everything(engine) for engine in engines]
    assert one == other


@settings(suppress_health_check=QUICK, max_examples=100)
@given(item=ANYTHING, changed=ANYTHING)
async def test_engines_return_the_same_item(engines: Engines, item: Item, changed: Item) -> None:
    keys = {"tenant_id": KEY.partition, "id": KEY.sort}
    changes = [Assign(name, value) for name, value in changed.items() if name not in keys] or [Assign("n", 1)]
    kept = []
    for engine in engines:
        await engine.put(Put(AGENTS, {**item, **keys}))
        (read,) = await engine.get(AGENTS, [KEY], consistent=True)
        kept.append((typed_answer(read), typed_answer(await engine.update(Update(AGENTS, KEY, changes)))))
    assert kept[0] == kept[1]


@settings(suppress_health_check=QUICK, max_examples=100)
@given(first=numbers(), second=numbers())
async def test_engines_add_equally(engines: Engines, first: int, second: int) -> None:
    sums = []
    for engine in engines:
        await engine.put(Put(AGENTS, {"tenant_id": KEY.partition, "id": KEY.sort, "n": first}))
        sums.append(await answered(engine, [Update(AGENTS, KEY, [Add("n", second)])]))
    assert sums[0] == sums[1]
