"""Pages of a whole table without a sort key."""

from __future__ import annotations

from pathlib import Path

import pytest

import artcafe
from artcafe.tables.catalog import AGENTS, TENANTS
from artcafe.tables.engine.conditions import Condition, Equals
from artcafe.tables.engine.port import Tables
from artcafe.tables.engine.values import Unstorable
from artcafe.tables.engine.writes import Delete, ItemKey, Put

SOURCE = Path(artcafe.__file__).parent
IDS = [f"ten_{number:02}" for number in range(23)]


async def fill(tables: Tables) -> None:
    for number, each in enumerate(IDS):
        await tables.put(Put(TENANTS, {"id": each, "status": "suspended" if number % 5 == 0 else "active"}))


async def walk(tables: Tables, limit: int, where: Condition | None = None) -> list[list[str]]:
    """Return the ids of every page until the last."""
    pages: list[list[str]] = []
    after: str | None = None
    while True:
        page = await tables.scan_page(TENANTS, after=after, limit=limit, where=where)
        pages.append([str(item["id"]) for item in page.items])
        assert len(page.items) <= limit
        if page.next is None:
            return pages
        after = page.next


@pytest.mark.parametrize("limit", [1, 4, 23, 1000])
async def test_pages_have_every_row_once(tables: Tables, limit: int) -> None:
    await fill(tables)
    pages = await walk(tables, limit)
    assert sorted(id for page in pages for id in page) == IDS


async def test_filtered_page_counts_the_rows_read_and_may_be_empty(tables: Tables) -> None:
    await fill(tables)
    pages = await walk(tables, 2, Equals("status", "suspended"))
    assert sorted(id for page in pages for id in page) == IDS[::5]
    assert len(pages) >= len(IDS) // 2
    assert [] in pages


async def test_page_after_a_deleted_row_continues_where_it_was(tables: Tables) -> None:
    await fill(tables)
    first = await tables.scan_page(TENANTS, limit=5)
    assert first.next is not None
    await tables.delete(Delete(TENANTS, ItemKey(first.next)))
    rest = await tables.scan_page(TENANTS, after=first.next)
    assert sorted(str(item["id"]) for item in [*first.items, *rest.items]) == IDS


async def test_empty_table_is_one_empty_page(tables: Tables) -> None:
    page = await tables.scan_page(TENANTS)
    assert (page.items, page.next) == ([], None)


async def test_invalid_pages_are_refused_before_anything_is_read(tables: Tables) -> None:
    with pytest.raises(ValueError, match="sort key"):
        await tables.scan_page(AGENTS)
    with pytest.raises(ValueError, match="limit"):
        await tables.scan_page(TENANTS, limit=0)
    with pytest.raises(ValueError, match="key attribute"):
        await tables.scan_page(TENANTS, where=Equals("id", "x"))
    with pytest.raises(Unstorable):
        await tables.scan_page(TENANTS, after="")


def test_only_the_store_of_operators_scans() -> None:
    engines = ("tables/engine/", "tables/sqlite/", "tables/dynamodb/")
    sources = {str(file.relative_to(SOURCE)): file.read_text() for file in SOURCE.rglob("*.py")}
    scanning = {name for name, text in sources.items() if "scan_page(" in text and not name.startswith(engines)}
    assert scanning == {"tables/platform_store.py"}
