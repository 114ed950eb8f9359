"""Acks in any order, compared with a set of sequences."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from artcafe.sdk.acks import Acked


def through_of(seqs: list[int], acked: set[int]) -> int:
    """Return the last sequence before the first unacknowledged message."""
    through = 0
    for seq in seqs:
        if seq not in acked:
            break
        through = seq
    return through


@given(st.sets(st.integers(1, 60), min_size=1).flatmap(lambda seqs: st.tuples(st.just(sorted(seqs)), st.data())))
def test_acks_in_any_order_advance_to_the_first_unacknowledged_message(case: tuple[list[int], st.DataObject]) -> None:
    seqs, data = case
    before = dict(zip(seqs, [0, *seqs], strict=False))
    acked, known = Acked(), set[int]()
    for seq, is_cumulative in data.draw(st.lists(st.tuples(st.sampled_from(seqs), st.integers(0, 9)))):
        if is_cumulative == 0:
            acked.add_all(seq)
            known |= {each for each in seqs if each <= seq}
        elif seq not in known:
            acked.add(before[seq], seq)
            known.add(seq)
        assert acked.through == through_of(seqs, known)
    acked.reset(7)
    acked.add(7, 9)
    assert acked.through == 9


def test_memory_grows_with_the_number_of_holes_not_of_messages() -> None:
    acked = Acked()
    for seq in range(2, 1000):
        acked.add(seq - 1, seq)
    assert (acked.through, acked._ends) == (0, {1: 999})
    acked.add(0, 1)
    assert (acked.through, acked._ends, acked._begins) == (999, {}, {})
