from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from artcafe.model import Cursor, Epoch, Seq
from artcafe.rules.start_position import LogLineage, resolve
from artcafe.wire.frames import Start
from artcafe.wire.replies import Gap

HERE, BEFORE, ELSEWHERE = Epoch("here"), Epoch("before"), Epoch("elsewhere")
OLDER, NOTHING = Cursor(), Cursor()
LIFE = LogLineage(HERE)
seqs = st.integers(0, 2**53)
few = st.integers(0, 12)
"""Few enough for sequences to collide often."""
ones = st.integers(1, 12)


def at(seq: Seq, epoch: Epoch = HERE) -> Cursor:
    return Cursor(epoch=epoch, seq=seq)


# --- nothing was removed -------------------------------------------------------------------------------------------------


@given(seqs, seqs)
def test_start_at_the_cursor_delivers_the_following_messages(seq: int, last: int) -> None:
    assert resolve("cursor", at(seq), LIFE, last, NOTHING) == (seq, None)


@given(seqs)
def test_subscription_older_than_the_log_gets_the_whole_log(last: int) -> None:
    assert resolve("cursor", OLDER, LIFE, last, NOTHING) == (0, None)
    assert resolve("cursor", OLDER, LogLineage(None), 0, NOTHING) == (0, None)


@given(seqs, seqs, st.sampled_from([LIFE, LogLineage(None), LogLineage(HERE, {BEFORE: 5})]))
def test_cursor_of_another_log_yields_a_gap_and_the_whole_log(seq: int, last: int, lineage: LogLineage) -> None:
    assert resolve("cursor", at(seq, ELSEWHERE), lineage, last, NOTHING) == (0, Gap(seq + 1, None, "epoch"))


@given(st.sampled_from([OLDER, at(41), at(41, ELSEWHERE)]), seqs, st.integers(1, 2**53))
def test_new_first_and_a_sequence_ignore_the_cursor(cursor: Cursor, last: int, wanted: int) -> None:
    assert resolve("new", cursor, LIFE, last, NOTHING) == (last, None)
    assert resolve("first", cursor, LIFE, last, NOTHING) == (0, None)
    assert resolve(wanted, cursor, LIFE, last, NOTHING) == (wanted - 1, None)


# --- retention -----------------------------------------------------------------------------------------------------------


@given(few, few)
def test_start_below_the_kept_messages_yields_a_gap_and_the_rest(seq: int, removed: int) -> None:
    expected = (removed, Gap(seq + 1, removed, "retention")) if seq < removed else (seq, None)
    assert resolve("cursor", at(seq), LIFE, 20, at(removed)) == expected
    assert resolve(seq + 1, OLDER, LIFE, 20, at(removed)) == expected


@given(few)
def test_subscription_older_than_the_log_gets_a_gap_for_removed_messages(removed: int) -> None:
    gap = Gap(1, removed, "retention") if removed else None
    assert resolve("cursor", OLDER, LIFE, 20, at(removed)) == (removed, gap)


@given(few, few, few)
def test_starting_at_the_first_kept_or_new_message_yields_no_gap(seq: int, removed: int, last: int) -> None:
    assert resolve("first", at(seq), LIFE, last, at(removed)) == (removed, None)
    assert resolve("new", at(seq), LIFE, last, at(removed)) == (last, None)


@given(few, few)
def test_removals_from_another_log_do_not_affect_this_one(seq: int, removed: int) -> None:
    assert resolve("cursor", at(seq), LIFE, 20, at(removed, ELSEWHERE)) == (seq, None)


# --- a log restored from another -----------------------------------------------------------------------------------------


@given(few, ones)
def test_cursor_of_the_previous_log_continues_with_a_gap_for_possibly_lost_messages(seq: int, end: int) -> None:
    lineage = LogLineage(HERE, {BEFORE: end})
    assert resolve("cursor", at(seq, BEFORE), lineage, 20, NOTHING) == (min(seq, end), Gap(max(seq, end) + 1, None, "epoch"))


@given(ones, few)
def test_subscription_older_than_every_log_gets_a_gap_for_a_restored_log(end: int, removed: int) -> None:
    lineage = LogLineage(HERE, {BEFORE: end, ELSEWHERE: 1})
    lost = 1 if removed else end + 1
    assert resolve("cursor", OLDER, lineage, 20, at(removed)) == (removed, Gap(lost, None, "epoch"))


@given(few, ones, few)
def test_restored_log_respects_removals_before_its_backup(seq: int, end: int, removed: int) -> None:
    lineage = LogLineage(HERE, {BEFORE: end})
    common = min(removed, end)
    assert resolve("first", OLDER, lineage, 20, at(removed, BEFORE)) == (common, None)
    start, gap = resolve("cursor", at(seq), lineage, 20, at(removed, BEFORE))
    assert (start, gap) == ((common, Gap(seq + 1, common, "retention")) if seq < common else (seq, None))


# --- all cases -----------------------------------------------------------------------------------------------------------

epochs = st.sampled_from([HERE, BEFORE, ELSEWHERE])
places = st.one_of(st.just(Cursor()), st.builds(at, few, epochs))
lives = st.one_of(st.just(LIFE), st.builds(lambda end: LogLineage(HERE, {BEFORE: end}), ones))
starts = st.one_of(st.sampled_from(["cursor", "first"]), ones)


@given(starts, places, lives, places)
def test_every_skipped_message_is_in_the_gap(start: Start, cursor: Cursor, lineage: LogLineage, removed_to: Cursor) -> None:
    """A delivery contains every message after the requested position, except those in its gap."""
    begun, gap = resolve(start, cursor, lineage, 20, removed_to)
    assert begun >= lineage.to_seq(removed_to)
    if start == "first":
        return
    asked = start - 1 if isinstance(start, int) else cursor.seq
    is_same_log = isinstance(start, int) or cursor.epoch == HERE or (cursor.epoch is None and not lineage.continues)
    if is_same_log:
        missing = set(range(asked + 1, begun + 1))
        assert missing == (set() if gap is None or gap.to is None else set(range(gap.from_, gap.to + 1)))
        return
    assert gap is not None
    assert (gap.reason, gap.to) == ("epoch", None)
    common = lineage.continues.get(cursor.epoch or BEFORE, 0)
    # Of the cursor's log, this one has the common part; the gap contains the undelivered messages of that part and all later
    # ones.
    assert set(range(asked + 1, 20)) - set(range(begun + 1, common + 1)) <= set(range(gap.from_, 20))


@given(places, lives, places)
def test_cursor_moved_by_a_gap_gets_it_only_once(cursor: Cursor, lineage: LogLineage, removed_to: Cursor) -> None:
    begun, _ = resolve("cursor", cursor, lineage, 20, removed_to)
    assert resolve("cursor", at(begun), lineage, 20, removed_to) == (begun, None)
