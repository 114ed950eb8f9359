from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.cli.terminal.output import align, as_json, as_text, escape, width
from artcafe.sdk.records import CursorInfo

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u202e\u2066]")


@given(st.text())
def test_control_characters_are_escaped(text: str) -> None:
    assert not CONTROLS.search(escape(text))


def test_line_breaks_become_spaces() -> None:
    assert escape("two\nlines \x1b[31mred") == "two lines \\u001b[31mred"


@pytest.mark.parametrize(("text", "columns"), [("", 0), ("scout", 5), ("日本", 4), ("e\u0301", 1), ("👩", 2)])
def test_width_counts_terminal_columns(text: str, columns: int) -> None:
    assert width(text) == columns


@given(st.lists(st.lists(st.text(alphabet="aé日 \u0301", max_size=5), min_size=3, max_size=3), min_size=1))
def test_columns_are_aligned(rows: list[list[str]]) -> None:
    ended = [[*row, "|"] for row in rows]  # The last cell's trailing spaces are stripped, so append one.
    assert len({width(line) for line in align(ended)}) == 1


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert align([["ID", "NAME", "X"], ["1", "日本", ""], ["22", "a", "x"]]) == ["ID  NAME  X", "1   日本", "22  a     x"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "yes"),
        (59, "59"),
        ((), ""),
        (("receive", "publish"), "receive, publish"),
        ({"agents": 100}, "agents 100"),
        (datetime(2026, 11, 22, 16, 50, 57, 123000, UTC), "2026-11-22T16:50:57Z"),
        (CursorInfo(epoch=None, seq=41), "seq 41"),
    ],
)
def test_values_are_formatted_for_display(value: object, text: str) -> None:
    assert as_text(value) == text


def test_json_is_one_line_with_the_servers_times_and_escaped_controls() -> None:
    class Thing(msgspec.Struct):
        name: str
        at: datetime

    text = as_json([Thing("日本 \x9b31m\n", datetime(2026, 11, 22, 16, 50, 57, 123000, UTC))])
    assert text == '[{"name":"日本 \\u009b31m\\n","at":"2026-11-22T16:50:57.123Z"}]'
    assert json.loads(text)[0]["name"] == "日本 \x9b31m\n"
