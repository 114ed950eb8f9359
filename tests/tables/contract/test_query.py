"""Pages of a partition: order, boundaries and filters."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artcafe.tables.catalog import AGENTS, CHANNEL_SUBSCRIPTIONS
from artcafe.tables.engine.conditions import Condition, Contains, Equals
from artcafe.tables.engine.port import Tables
from artcafe.tables.engine.values import Item, Unstorable
from artcafe.tables.engine.writes import Delete, ItemKey, Put
from tests.tables.strategies import texts

EDGES = [
    "\x00",
    "a",
    "a\x00",
    "a\x01",
    "b",
    "\x7f",
    "\x80",
    "\ud7ff",
    "\ue000",
    "\uffff",
    "\U00010000",
    "\U0010fffe",
    "\U0010ffff",
    "\U0010ffff" * 2,
]


async def fill(tables: Tables, ids: list[str], partition: str = "ten_1") -> None:
    for each in ids:
        await tables.put(Put(AGENTS, {"tenant_id": partition, "id": each, "even": len(each) % 2 == 0}))


async def walk(
    tables: Tables,
    *,
    prefix: str = "",
    limit: int = 50,
    descending: bool = False,
    where: Condition | None = None,
) -> list[list[str]]:
    """Return the ids of every page until the last."""
    pages: list[list[str]] = []
    after: str | None = None
    while True:
        page = await tables.query(
            AGENTS, "ten_1", prefix=prefix, after=after, limit=limit, descending=descending, where=where, consistent=True
        )
        pages.append([str(item["id"]) for item in page.items])
        assert len(page.items) <= limit
        if page.next is None:
            return pages
        assert after is None or (page.next < after if descending else page.next > after)
        after = page.next


def flat(pages: list[list[str]]) -> list[str]:
    return [each for page in pages for each in page]


async def test_partition_is_ordered_by_the_utf8_bytes_of_its_keys(tables: Tables) -> None:
    await fill(tables, EDGES)
    await fill(tables, ["other"], partition="ten_2")
    assert flat(await walk(tables)) == sorted(EDGES, key=str.encode)
    assert flat(await walk(tables, descending=True)) == sorted(EDGES, key=str.encode, reverse=True)


async def test_prefix_finds_its_keys_in_any_position(tables: Tables) -> None:
    await fill(tables, EDGES)
    for prefix in EDGES:
        expected = sorted((each for each in EDGES if each.startswith(prefix)), key=str.encode)
        assert flat(await walk(tables, prefix=prefix)) == expected
        assert flat(await walk(tables, prefix=prefix, descending=True)) == expected[::-1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    ids=st.lists(st.sampled_from(EDGES) | texts(3, 1), max_size=8, unique=True),
    prefix=st.sampled_from(["", *EDGES]) | texts(2),
    limit=st.integers(1, 5),
    descending=st.booleans(),
)
async def test_pages_hold_every_key_with_the_prefix_once_in_order(
    tables: Tables, ids: list[str], prefix: str, limit: int, descending: bool
) -> None:
    await fill(tables, ids)
    try:
        pages = await walk(tables, prefix=prefix, limit=limit, descending=descending)
        expected = sorted((each for each in ids if each.startswith(prefix)), key=str.encode, reverse=descending)
        assert flat(pages) == expected
    finally:
        for each in ids:
            await tables.delete(Delete(AGENTS, ItemKey("ten_1", each)))


async def test_page_holds_complete_items(tables: Tables) -> None:
    item: Item = {"tenant_id": "ten_1", "id": "chn_1#agt_1", "status": "active", "sets": frozenset({1}), "map": {"a": b"x"}}
    await tables.put(Put(CHANNEL_SUBSCRIPTIONS, item))
    assert (await tables.query(CHANNEL_SUBSCRIPTIONS, "ten_1", prefix="chn_1#")).items == [item]
    assert (await tables.query(CHANNEL_SUBSCRIPTIONS, "ten_1", prefix="chn_10")).items == []


async def test_page_can_start_after_a_missing_key(tables: Tables) -> None:
    await fill(tables, ["a", "c"])
    assert [item["id"] for item in (await tables.query(AGENTS, "ten_1", after="b")).items] == ["c"]
    assert [item["id"] for item in (await tables.query(AGENTS, "ten_1", after="b", descending=True)).items] == ["a"]
    assert [item["id"] for item in (await tables.query(AGENTS, "ten_1", after="a")).items] == ["c"]


async def test_next_is_none_at_the_end_and_may_lead_to_an_empty_page(tables: Tables) -> None:
    assert (await tables.query(AGENTS, "ten_1")).next is None
    await fill(tables, ["a", "b"])
    assert (await tables.query(AGENTS, "ten_1", limit=3)).next is None
    full = await tables.query(AGENTS, "ten_1", limit=2)
    assert len(full.items) == 2
    if full.next is not None:
        assert await walk(tables, limit=2) in ([["a", "b"]], [["a", "b"], []])


async def test_limit_counts_items_read_before_the_filter(tables: Tables) -> None:
    ids = [f"{number:03}" if number % 3 else f"{number:04}" for number in range(12)]
    await fill(tables, ids)
    pages = await walk(tables, limit=2, where=Equals("even", True))
    assert flat(pages) == sorted(each for each in ids if len(each) == 4)
    assert len(pages) >= 6
    assert [] in pages
    backwards = await walk(tables, limit=5, descending=True, where=Equals("even", True))
    assert flat(backwards) == flat(pages)[::-1]


async def test_page_ends_early_at_one_megabyte(tables: Tables) -> None:
    for number in range(8):
        await tables.put(Put(AGENTS, {"tenant_id": "ten_1", "id": f"agt_{number}", "name": "x" * 300_000}))
    first = await tables.query(AGENTS, "ten_1")
    assert 1 <= len(first.items) <= 5
    assert first.next == first.items[-1]["id"]
    assert flat(await walk(tables)) == [f"agt_{number}" for number in range(8)]


async def test_paging_during_changes_neither_repeats_nor_skips_unchanged_items(tables: Tables) -> None:
    await fill(tables, [f"{number:02}" for number in range(0, 20, 2)])
    seen: list[str] = []
    after: str | None = None
    for number in range(1, 20, 2):
        page = await tables.query(AGENTS, "ten_1", after=after, limit=2)
        seen += [str(item["id"]) for item in page.items]
        await fill(tables, [f"{number:02}"])
        await tables.delete(Delete(AGENTS, ItemKey("ten_1", seen[0])))
        if page.next is None:
            break
        after = page.next
    assert all(one < other for one, other in pairwise(seen))
    assert {f"{number:02}" for number in range(0, 20, 2)} <= set(seen)


async def test_invalid_query_is_refused(tables: Tables) -> None:
    with pytest.raises(ValueError, match="prefix"):
        await tables.query(AGENTS, "ten_1", prefix="agt_", after="chn_1")
    with pytest.raises(ValueError, match="key attribute"):
        await tables.query(AGENTS, "ten_1", where=Contains("id", "agt"))
    with pytest.raises(Unstorable):
        await tables.query(AGENTS, "")
