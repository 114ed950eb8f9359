from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.tables.catalog import AGENTS, Environment
from artcafe.tables.dynamodb.client import Consumed, Endpoint
from artcafe.tables.dynamodb.engine import DynamoDb
from artcafe.tables.engine.capacity import MeteredTables, Units, item_bytes, read_units, write_units
from artcafe.tables.engine.conditions import Absent, Equals, Exists
from artcafe.tables.engine.port import ConditionFailed, Tables
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import Assign, Check, Delete, ItemKey, Put, Update
from artcafe.tables.open import open_engine
from artcafe.tables.sqlite.engine import Sqlite
from tests.aws import Aws

SIZES = (10, 1000, 1025, 4000, 4097, 9000)
READING = {"get_item", "batch_get_item", "query", "scan"}


def item(id: str, size: int) -> Item:
    return {"tenant_id": "t", "id": id, "text": "x" * size}


def test_published_examples_of_capacity_units() -> None:
    # Developer guide, "Capacity unit consumption".
    assert [read_units(size, consistent=True) for size in (1, 3 * 1024, 4096, 4097, 8 * 1024)] == [1, 1, 1, 2, 2]
    assert read_units(4096, consistent=False) == 0.5
    assert read_units(0, consistent=True) == 1
    assert write_units(None, item("a", 10)) == 1
    assert write_units(None, item("a", 1024)) == 2
    assert write_units(item("a", 3000), item("a", 10)) == 3
    assert item_bytes({"tenant_id": "t", "id": "a"}) == len("tenant_idtida")


@given(st.integers(0, 400_000))
def test_more_bytes_never_cost_less(size: int) -> None:
    assert read_units(size, consistent=True) <= read_units(size + 1, consistent=True)
    assert read_units(size, consistent=True) == 2 * read_units(size, consistent=False)


async def asked(tables: Tables, units: Units) -> list[tuple[float, float]]:
    """Run each request once and return the charged units.

    Reads of several keys and queries are omitted: the emulator reports nothing for the first, and always one unit for the second.
    """
    charged: list[tuple[float, float]] = []

    def note() -> None:
        charged.append((units.reads, units.writes))
        units.reads = units.writes = 0.0

    for number, size in enumerate(SIZES):
        await tables.put(Put(AGENTS, item(f"{number}", size)))
        note()
    for consistent in (True, False):
        await tables.get(AGENTS, [ItemKey("t", "1")], consistent=consistent)
        note()
    await tables.get(AGENTS, [ItemKey("t", "none")], consistent=True)
    note()
    await tables.update(Update(AGENTS, ItemKey("t", "5"), [Assign("text", "y")]))
    note()
    await tables.transact(
        [
            Put(AGENTS, item("new", 2000)),
            Update(AGENTS, ItemKey("t", "4"), [Assign("more", 1)]),
            Delete(AGENTS, ItemKey("t", "3")),
            Check(AGENTS, ItemKey("t", "2"), Exists("id")),
        ]
    )
    note()
    await tables.delete(Delete(AGENTS, ItemKey("t", "4")))
    note()
    return charged


@pytest.fixture
async def metered(tmp_path: Path) -> AsyncIterator[tuple[MeteredTables, Units]]:
    units = Units()
    tables = MeteredTables(await Sqlite.open(tmp_path / "tables.sqlite", Environment.PROD), units)
    yield tables, units
    await tables.close()


async def test_metered_units_equal_the_units_reported_by_the_emulator(aws: Aws, metered: tuple[MeteredTables, Units]) -> None:
    endpoint, units = Endpoint(aws.new_region(), aws.url), Units()
    await (await open_engine(f"dynamodb:{endpoint.region}", aws.url, Environment.PROD, make_missing=True)).close()

    def charge(consumed: Consumed) -> None:
        if consumed.operation in READING:
            units.reads += sum(consumed.units.values())
        else:
            units.writes += sum(consumed.units.values())

    dynamodb = await DynamoDb.open(endpoint, Environment.PROD, charge)
    try:
        assert await asked(*metered) == await asked(dynamodb, units)
    finally:
        await dynamodb.close()


async def test_each_key_counts_as_one_read(metered: tuple[MeteredTables, Units]) -> None:
    tables, units = metered
    for number, size in enumerate(SIZES):
        await tables.put(Put(AGENTS, item(f"{number}", size)))
    await tables.get(AGENTS, [ItemKey("t", f"{number}") for number in range(len(SIZES) + 1)], consistent=True)
    assert units.reads == 1 + 1 + 1 + 1 + 2 + 3 + 1


async def test_items_filtered_out_are_charged(metered: tuple[MeteredTables, Units]) -> None:
    tables, units = metered
    for number, size in enumerate(SIZES):
        await tables.put(Put(AGENTS, item(f"{number}", size)))
    for consistent, charged in ((True, 5), (False, 2.5)):
        units.reads = 0
        found = await tables.query(AGENTS, "t", where=Equals("text", "none"), consistent=consistent)
        assert (found.items, units.reads) == ([], charged)


async def test_refused_writes_are_charged(metered: tuple[MeteredTables, Units]) -> None:
    tables, units = metered
    await tables.put(Put(AGENTS, item("a", 1500)))
    units.writes = 0
    with pytest.raises(ConditionFailed):
        await tables.put(Put(AGENTS, item("a", 10), Absent("id")))
    assert units.writes == 2
