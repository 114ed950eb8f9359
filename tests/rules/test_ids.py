from __future__ import annotations

import itertools
import os
import re
import time

import ulid
from hypothesis import given
from hypothesis import strategies as st

from artcafe.rules import ids

ULID = re.compile(r"agt_[0-7][0-9A-HJKMNP-TV-Z]{25}")


def test_new_ids_are_a_prefix_and_a_unique_ulid() -> None:
    made = [ids.new_id("agt") for _ in range(1000)]
    assert all(ULID.fullmatch(each) for each in made)
    assert len(set(made)) == 1000


def test_new_id_contains_its_millisecond() -> None:
    before = time.time_ns() // 1_000_000
    made = ulid.ULID.from_str(ids.new_id("agt").removeprefix("agt_"))
    assert before <= made.milliseconds <= time.time_ns() // 1_000_000


def test_id_does_not_reveal_the_next_one_of_the_same_millisecond() -> None:
    numbers = [int.from_bytes(each.encode(), "big") for each in (ids.new_id("chl") for _ in range(1000))]
    assert not any(after - before == 1 for before, after in itertools.pairwise(numbers))


def test_forked_process_makes_other_ids() -> None:
    ids.new_id("agt")  # more random parts are read from now on
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write, ids.new_id("agt").encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(read, 100).decode()
    os.close(read)
    os.close(write)

    assert theirs[-16:] not in {ids.new_id("agt")[-16:] for _ in range(300)}


@given(st.lists(st.text()))
def test_derived_ids_are_stable_and_formatted_like_new_ones(parts: list[str]) -> None:
    assert ids.derived_id("agt", *parts) == ids.derived_id("agt", *parts)
    assert ULID.fullmatch(ids.derived_id("agt", *parts))


@given(st.lists(st.text(max_size=3), max_size=4), st.lists(st.text(max_size=3), max_size=4))
def test_different_parts_give_different_ids_and_digests(one: list[str], other: list[str]) -> None:
    assert (ids.derived_id("agt", *one) == ids.derived_id("agt", *other)) is (one == other)
    assert (ids.digest(*one) == ids.digest(*other)) is (one == other)


def test_parts_are_separated_in_digests() -> None:
    assert ids.digest("ab", "c") != ids.digest("a", "bc")
    assert ids.digest("ab") != ids.digest("ab", "")


def test_ids_of_an_older_system_are_possible() -> None:
    for id in ("0b7f1c6e-3c1c-4a36-9d3b-2f7a1f0f5a11", "agent one", "bot@example.com", "x", "número#1", "a" * 128):
        assert ids.is_possible(id), id


def test_text_invalid_as_a_key_is_not_an_id() -> None:
    for id in ("", "a" * 129, "é" * 65, "a\nb", "a\x00b", "\ud800", "a\u2028b"):
        assert not ids.is_possible(id), ascii(id)


@given(st.text())
def test_id_check_accepts_any_text(text: str) -> None:
    assert isinstance(ids.is_possible(text), bool)
