from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.errors import BadCursor, Invalid
from artcafe.rules import pages

KEY = b"k" * 32
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@given(texts, texts, texts)
def test_cursor_opens_to_its_sort_key(tenant: str, query: str, sort_key: str) -> None:
    cursor = pages.seal(KEY, tenant, query, sort_key)
    assert pages.open(KEY, tenant, query, cursor) == sort_key
    assert cursor.isascii()
    assert "=" not in cursor


def test_cursor_does_not_reveal_its_sort_key() -> None:
    assert "agt" not in pages.seal(KEY, "ten_a", "agents", "agt_1")
    assert pages.seal(KEY, "ten_a", "agents", "agt_1") != pages.seal(KEY, "ten_a", "agents", "agt_1")


@pytest.mark.parametrize(
    ("key", "tenant", "query"),
    [
        (b"l" * 32, "ten_a", "agents?status=active"),
        (KEY, "ten_b", "agents?status=active"),
        (KEY, "ten_a", "agents?status=disabled"),
        (KEY, "ten_aa", "gents?status=active"),
    ],
)
def test_cursor_is_refused_by_another_installation_tenant_or_query(key: bytes, tenant: str, query: str) -> None:
    cursor = pages.seal(KEY, "ten_a", "agents?status=active", "agt_1")
    with pytest.raises(BadCursor):
        pages.open(key, tenant, query, cursor)


@given(st.text(max_size=100))
def test_text_other_than_a_cursor_is_refused(text: str) -> None:
    with pytest.raises(BadCursor):
        pages.open(KEY, "ten_a", "agents", text)


@pytest.mark.parametrize("length", range(4))
def test_cursor_with_any_byte_changed_is_refused(length: int) -> None:
    """Change every position to every other byte; the lengths cover each padding of base64."""
    cursor = pages.seal(KEY, "ten_a", "agents", "agt_00000000000000000000000000"[: 4 + length])
    for place in range(len(cursor)):
        for byte in set(map(chr, range(256))) - {cursor[place]}:
            with pytest.raises(BadCursor):
                pages.open(KEY, "ten_a", "agents", cursor[:place] + byte + cursor[place + 1 :])


@given(st.data(), texts)
def test_cursor_with_one_character_more_or_less_is_refused(data: st.DataObject, sort_key: str) -> None:
    cursor = pages.seal(KEY, "ten_a", "agents", sort_key)
    place = data.draw(st.integers(0, len(cursor) - 1))
    for changed in (cursor[:place] + cursor[place + 1 :], cursor[:place] + data.draw(st.characters()) + cursor[place:]):
        with pytest.raises(BadCursor):
            pages.open(KEY, "ten_a", "agents", changed)


def test_oversized_cursor_is_refused() -> None:
    with pytest.raises(BadCursor):
        pages.open(KEY, "ten_a", "agents", "A" * 1_000_000)


def test_page_has_1_to_200_items_and_50_by_default() -> None:
    assert pages.FIRST.limit == 50
    assert pages.PageRequest.checked(200, "agt_1") == pages.PageRequest(200, "agt_1")
    for limit in (0, -1, 201):
        with pytest.raises(Invalid, match="limit"):
            pages.PageRequest.checked(limit)


@given(st.integers(0, 12), st.integers(1, 5))
async def test_each_page_is_read_once_and_the_last_one_ends_the_list(items: int, limit: int) -> None:
    asked: list[pages.PageRequest] = []

    async def read(page_request: pages.PageRequest) -> pages.Page[int]:
        asked.append(page_request)
        start = int(page_request.after or 0)
        end = min(start + page_request.limit, items)
        return pages.Page(tuple(range(start, end)), str(end) if end < items else None)

    assert [item async for page in pages.each_page(read, limit) for item in page.items] == list(range(items))
    assert len(asked) == max(1, -(-items // limit))
