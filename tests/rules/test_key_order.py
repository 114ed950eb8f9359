"""The order of messages by key, against a simple model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from artcafe.rules import key_order
from artcafe.rules.key_order import KeyOrder


def test_message_is_first_once_every_earlier_one_of_its_key_has_ended() -> None:
    order = KeyOrder(0)
    for seq, key in ((1, "a"), (2, "b"), (3, "a"), (5, "a")):
        order.add(seq, key)
    assert [seq for seq in range(1, 6) if order.is_first(seq)] == [1, 2]
    assert (order.blocker(1), order.blocker(5), order.blocker(4)) == (None, 1, None)
    assert order.end(3) is None
    assert order.end(1) == 5
    assert [seq for seq in (1, 3, 5) if order.is_ended(seq)] == [1, 3]
    assert len(order) == 2


def test_end_that_comes_before_its_message_is_remembered() -> None:
    order = KeyOrder(10)
    order.end(12)
    assert [seq for seq in (11, 12) if order.is_ended(seq)] == [12]
    order.add(11, "a")
    order.add(12, "a")
    order.add(14, "a")
    order.reach(20)
    assert order.end(11) == 14
    assert order.is_ended(15)  # no message with a key


def test_everything_at_or_below_the_floor_has_ended() -> None:
    order = KeyOrder(0)
    for seq in (1, 2, 3):
        order.add(seq, "a")
    order.raise_floor(2)
    order.raise_floor(1)
    assert order.is_first(3)
    assert (order.floor, order.read_to) == (2, 3)


def test_many_early_ends_ask_for_the_log() -> None:
    order = KeyOrder(0)
    for seq in range(1, key_order.MAX_EARLY + 1):
        order.end(seq)
    assert order.unread_to == 0
    order.end(key_order.MAX_EARLY + 1)
    assert order.unread_to == key_order.MAX_EARLY + 1
    order.reach(order.unread_to)
    assert order.unread_to == 0


@given(
    keys=st.lists(st.sampled_from("abc"), max_size=30),
    steps=st.lists(st.tuples(st.sampled_from(["add", "end", "floor"]), st.integers(1, 30)), max_size=90),
)
def test_first_messages_are_those_of_a_list_of_unended_ones(keys: list[str], steps: list[tuple[str, int]]) -> None:
    order, read, ended = KeyOrder(0), 0, set[int]()
    for step, number in steps:
        if step == "add" and read < len(keys):
            read += 1
            order.add(read, keys[read - 1])
        elif step == "end":
            ended.add(number)
            order.end(number)
        elif step == "floor":
            floor = min(number, read)
            ended |= set(range(1, floor + 1))
            order.raise_floor(floor)
        open_seqs = [seq for seq in range(1, read + 1) if seq not in ended]
        for seq in range(1, read + 1):
            first = next((each for each in open_seqs if keys[each - 1] == keys[seq - 1]), None)
            assert order.is_first(seq) == (seq == first)
            assert order.is_ended(seq) == (seq in ended)
            assert (seq in order) == (seq in open_seqs)
