from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from artcafe.model import Cursor, Epoch
from artcafe.rules.starts import behind
from artcafe.wire.frames import Gap

HERE, ELSEWHERE = Epoch("here"), Epoch("elsewhere")
OLDER = Cursor()
seqs = st.integers(0, 2**53)


@given(seqs, seqs)
def test_from_the_cursor_goes_on_behind_it(seq: int, last: int) -> None:
    assert behind("cursor", Cursor(epoch=HERE, seq=seq), HERE, last) == (seq, None)


@given(seqs)
def test_a_subscription_that_is_older_than_the_log_gets_all_of_it(last: int) -> None:
    assert behind("cursor", OLDER, HERE, last) == (0, None)
    assert behind("cursor", OLDER, None, 0) == (0, None)


@given(seqs, seqs, st.sampled_from([HERE, None]))
def test_a_cursor_of_another_log_yields_a_gap_and_all_there_is(seq: int, last: int, epoch: Epoch | None) -> None:
    assert behind("cursor", Cursor(epoch=ELSEWHERE, seq=seq), epoch, last) == (0, Gap(seq + 1, None, "epoch"))


@given(st.sampled_from([OLDER, Cursor(epoch=HERE, seq=41), Cursor(epoch=ELSEWHERE, seq=41)]), seqs, st.integers(1, 2**53))
def test_new_first_and_a_sequence_do_not_look_at_the_cursor(cursor: Cursor, last: int, wanted: int) -> None:
    assert behind("new", cursor, HERE, last) == (last, None)
    assert behind("first", cursor, HERE, last) == (0, None)
    assert behind(wanted, cursor, HERE, last) == (wanted - 1, None)
