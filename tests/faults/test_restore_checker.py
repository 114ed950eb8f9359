"""Tests of the checkers with a restore in the run: they excuse what the contract says of it, and find every planted fault."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults import pull_checker, queue_checker, receipt_checker, request_checker, schedule_checker
from tests.faults.checker import Entry
from tests.faults.planting import some, with_event, with_events, without
from tests.faults.pull_checker import (
    AckConfirmed,
    AckSent,
    CursorRead,
    GapSeen,
    LostLog,
    PullBegan,
    PullBroken,
    Pulled,
    PullEvent,
    PullHistory,
    TaskConfirmed,
    judge_pulls,
)
from tests.faults.queue_checker import (
    Acked,
    DeadLetter,
    Event,
    NotHeld,
    Put,
    QueueBroken,
    QueueHistory,
    ReceiptTold,
    Taken,
    judge_queue,
)
from tests.faults.receipt_checker import (
    AckGiven,
    Arrived,
    Claimed,
    Followed,
    Gone,
    LastPush,
    PublisherGone,
    Read,
    ReceiptBroken,
    ReceiptEvent,
    ReceiptHistory,
    judge_receipts,
)
from tests.faults.request_checker import (
    Asked,
    AskerLeft,
    Closed,
    Ended,
    Handled,
    Opened,
    PartReceived,
    PartSent,
    RequestBroken,
    RequestEvent,
    RequestHistory,
    judge_requests,
)
from tests.faults.restores import EPOCH, BackupBegan, BackupEnded, Restored, lives_of
from tests.faults.schedule_checker import (
    Accepted,
    CancelAttempted,
    Cancelled,
    CancelTooLate,
    GapPushed,
    Kept,
    Published,
    ScheduleBroken,
    ScheduleEvent,
    ScheduleHistory,
    Seen,
    judge_schedule,
)

LAST_SEQ: Final = 12
"""The last sequence of the backup. The lost log and the restored one have other messages above it."""
END: Final = 18
BEGAN, ENDED, RESTORED = BackupBegan(100.0), BackupEnded(101.0), Restored(LAST_SEQ, 200.0)
AGENTS: Final = ("ann", "bob")
OLD, NEW = "epoch 1", "epoch 2"


class Planted(NamedTuple):
    """A fault that is planted in a run, and the violation that it is."""

    plant: Callable[[Any, random.Random], Any]
    broken: StrEnum


def after_restore(events: Sequence[Any]) -> int:
    """Return the place of the restore."""
    return next(at for at, event in enumerate(events) if isinstance(event, Restored))


# --- queues --------------------------------------------------------------------------------------------------------------------

FLOOR: Final = 6
"""The first tasks, which are done long before the backup."""
OPEN: Final = 7
"""A task that is acknowledged after the backup only; the ones above it up to `LAST_SEQ` before it."""


def queue_run(chance: random.Random) -> QueueHistory:
    """Return a run without a fault: after the restore the open task comes again, and perhaps later ones, and then others."""
    events: list[Event] = []
    for seq in range(1, LAST_SEQ + 1):
        events += [Put(seq, seq), Taken(f"old {seq}", seq, seq, 1, seq)]
        events += [Acked(f"old {seq}", seq, seq)] if seq != OPEN else [Acked("x", seq, seq), NotHeld("x", seq, seq)]
    events += [BEGAN, ENDED, Acked(f"old {OPEN}", OPEN, 110), ReceiptTold(OPEN, "acked", 110)]
    for seq in range(LAST_SEQ + 1, END):
        events += [Put(seq, seq), Taken(f"old {seq}", seq, seq, 1, 110 + seq), Acked(f"old {seq}", seq, 110 + seq)]
    events += [ReceiptTold(LAST_SEQ + 1, "dead_lettered", 140), RESTORED]
    if chance.random() < 0.5:  # an agent that noticed nothing
        events += [Acked(f"old {END - 1}", END - 1, 201), NotHeld(f"old {END - 1}", END - 1, 201)]
    again = [seq for seq in range(OPEN + 1, LAST_SEQ + 1) if chance.random() < 0.5]
    for seq in (OPEN, *again):
        events += [Taken(f"new {seq}", seq, seq, 1, 200 + seq), Acked(f"new {seq}", seq, 200 + seq)]
    for seq in range(LAST_SEQ + 1, END):
        number = 100 + seq
        events += [Put(number, seq), Taken(f"new {seq}", seq, number, 1, 210 + seq), Acked(f"new {seq}", seq, 210 + seq)]
        if chance.random() < 0.5:
            events.append(ReceiptTold(seq, "acked", 210 + seq))
    return QueueHistory(events, [], [], 3, 10.0, lost_letters=[DeadLetter(END, LAST_SEQ + 1, "max_deliveries", 3)])


def in_queue(
    plant: Callable[[Sequence[Event], random.Random], list[Event]],
) -> Callable[[QueueHistory, random.Random], QueueHistory]:
    def planted(run: QueueHistory, chance: random.Random) -> QueueHistory:
        return replace(run, events=plant(run.events, chance))

    planted.__name__ = plant.__name__
    return planted


def new_ack(events: Sequence[Event], chance: random.Random) -> tuple[int, Acked]:
    return some(chance, events, Acked, lambda each: each.holder.startswith("new") and each.seq > LAST_SEQ)


def deliver_again_what_had_ended(events: Sequence[Event], chance: random.Random) -> list[Event]:
    seq = chance.randint(1, FLOOR)
    return with_events(events, after_restore(events), Taken("new", seq, seq, 2, 201), Acked("new", seq, 201))


def count_an_ack_after_the_backup(events: Sequence[Event], _: random.Random) -> list[Event]:
    """The open task does not come again, since it was acknowledged in the lost log."""
    return without(events, lambda each: isinstance(each, Taken | Acked) and each.holder == f"new {OPEN}")


def count_an_ack_of_the_lost_task(events: Sequence[Event], chance: random.Random) -> list[Event]:
    """A new task is not delivered, since the lost one with its sequence was acknowledged."""
    _, acked = new_ack(events, chance)
    return without(events, lambda each: isinstance(each, Taken | Acked | ReceiptTold) and each.seq == acked.seq and each.at > 200)


def count_an_ack_by_a_lost_holder(events: Sequence[Event], chance: random.Random) -> list[Event]:
    """A new task is ended by the ack of the lost one with its sequence."""
    at, acked = new_ack(events, chance)
    return with_event(events, at, replace(acked, holder=f"old {acked.seq}"))


def deliver_the_lost_task(events: Sequence[Event], chance: random.Random) -> list[Event]:
    at, taken = some(chance, events, Taken, lambda each: each.holder.startswith("new") and each.seq > LAST_SEQ)
    return with_event(events, at, replace(taken, number=taken.seq))


def give_a_repeat_to_two(events: Sequence[Event], _: random.Random) -> list[Event]:
    at = next(at for at, each in enumerate(events) if isinstance(each, Taken) and each.holder == f"new {OPEN}")
    return with_events(events, at, Taken("other", OPEN, OPEN, 2, 208))


def deliver_again_after_the_second_ack(events: Sequence[Event], _: random.Random) -> list[Event]:
    """The restore excuses one repeat, not another one after the ack of that."""
    return [*events, Taken("other", OPEN, OPEN, 3, 300), Acked("other", OPEN, 300)]


def report_the_lost_ack(events: Sequence[Event], chance: random.Random) -> list[Event]:
    seq = chance.choice([OPEN, *range(LAST_SEQ + 1, END)])
    return with_events(events, after_restore(events), ReceiptTold(seq, "acked", 200))


def report_the_lost_letter(events: Sequence[Event], _: random.Random) -> list[Event]:
    return with_events(events, after_restore(events), ReceiptTold(LAST_SEQ + 1, "dead_lettered", 200))


QUEUE_FAULTS: Final = [
    Planted(in_queue(deliver_again_what_had_ended), QueueBroken.BACKED_UP_ACK),
    Planted(in_queue(count_an_ack_after_the_backup), QueueBroken.LOST),
    Planted(in_queue(count_an_ack_of_the_lost_task), QueueBroken.LOST),
    Planted(in_queue(count_an_ack_by_a_lost_holder), QueueBroken.LOST),
    Planted(in_queue(deliver_the_lost_task), QueueBroken.CHANGED),
    Planted(in_queue(give_a_repeat_to_two), QueueBroken.TWO_HOLDERS),
    Planted(in_queue(deliver_again_after_the_second_ack), QueueBroken.AFTER_ACK),
    Planted(in_queue(report_the_lost_ack), QueueBroken.FALSE_RECEIPT),
    Planted(in_queue(report_the_lost_letter), QueueBroken.FALSE_RECEIPT),
]


# --- pulls ---------------------------------------------------------------------------------------------------------------------


def news(seqs: range, life: str) -> list[Entry]:
    return [Entry("news", seq, seq - 1 or None, f"{life if seq > LAST_SEQ else OLD} {seq}", "eve", "{}") for seq in seqs]


LOST_NEWS, NEW_NEWS = news(range(1, END), OLD), news(range(1, END), NEW)
ACKED: Final = 4
"""What every agent has acknowledged before the backup."""
LOST_EXPIRED: Final = 15
"""A message of the lost log that had expired."""


def pull_run(chance: random.Random) -> PullHistory:
    """Return a run without a fault: after the restore each agent gets everything above its cursor, and then new messages."""
    before, lost, after = list[PullEvent](), list[PullEvent](), list[PullEvent]()
    for first, agent in ((100, "ann"), (200, "bob")):
        before += page(first, agent, LOST_NEWS[:ACKED], OLD, ACKED)
        lost += page(first + 1, agent, LOST_NEWS[ACKED:LAST_SEQ], OLD, LAST_SEQ)
        ends = LOST_NEWS[LAST_SEQ:14], [GapSeen("news", LOST_EXPIRED, LOST_EXPIRED, "expired")]
        lost += [PullBegan(first + 2, agent, 10), Pulled(first + 2, tuple(ends[0]), tuple(ends[1]), 11, OLD)]
        lost += [AckSent(agent, "news", LOST_EXPIRED, OLD), AckConfirmed(agent, "news", LOST_EXPIRED, OLD)]
        stale = [AckSent(agent, "news", END - 1, OLD), AckSent(agent, "news", END - 1, None)]
        after += [*chance.sample(stale, chance.randint(0, 2)), CursorRead(agent, "news", ACKED, OLD)]
        middle = chance.randint(ACKED + 1, END - 2)
        gone = GapSeen("news", LAST_SEQ + 1, None, EPOCH)
        after += page(first + 3, agent, NEW_NEWS[ACKED:middle], NEW, middle, gone)
        after += page(first + 4, agent, NEW_NEWS[middle:], NEW, END - 1)
    events = [*before, BEGAN, ENDED, *lost, RESTORED, *after]
    queue, expiry = queue_run(chance), {("news", LOST_EXPIRED): 5.0}
    return PullHistory(events, NEW_NEWS, AGENTS, {}, queue, lost_log=LostLog(LOST_NEWS, expiry))


def page(number: int, agent: str, items: Sequence[Entry], epoch: str, ack: int, *gaps: GapSeen) -> list[PullEvent]:
    pulled = PullBegan(number, agent, 10), Pulled(number, tuple(items), gaps, 11, epoch)
    return [*pulled, AckSent(agent, "news", ack, epoch), AckConfirmed(agent, "news", ack, epoch)]


def with_page(run: PullHistory, number: int, change: Callable[[Pulled], Pulled]) -> PullHistory:
    events = [change(each) if isinstance(each, Pulled) and each.number == number else each for each in run.events]
    return replace(run, events=events)


def in_new_pages(run: PullHistory, change: Callable[[Pulled], Pulled]) -> PullHistory:
    at = after_restore(run.events)
    changed = [change(each) if isinstance(each, Pulled) else each for each in run.events[at:]]
    return replace(run, events=[*run.events[:at], *changed])


def without_seq(pulled: Pulled, seq: int) -> Pulled:
    return replace(pulled, items=tuple(item for item in pulled.items if item.seq != seq))


def conceal_the_restore(run: PullHistory, _: random.Random) -> PullHistory:
    return with_page(run, 103, lambda pulled: replace(pulled, gaps=()))


def accept_an_ack_of_the_lost_log(run: PullHistory, chance: random.Random) -> PullHistory:
    ack = END - 1, chance.choice([OLD, None])
    sent = AckSent("ann", "news", *ack), AckConfirmed("ann", "news", *ack)
    return replace(run, events=with_events(run.events, after_restore(run.events), *sent))


def accept_a_lost_receipt(run: PullHistory, _: random.Random) -> PullHistory:
    at = after_restore(run.tasks.events) + 1
    return replace(run, confirmed=[(at, TaskConfirmed(LAST_SEQ + 1, 201.0, f"old {LAST_SEQ + 1}"))])


def answer_with_the_lost_epoch(run: PullHistory, chance: random.Random) -> PullHistory:
    return with_page(run, chance.choice([103, 204]), lambda pulled: replace(pulled, epoch=OLD))


def repeat_the_gap_after_an_ack(run: PullHistory, _: random.Random) -> PullHistory:
    gone = GapSeen("news", LAST_SEQ + 1, None, EPOCH)
    return with_page(run, 104, lambda pulled: replace(pulled, gaps=(gone,)))


def report_a_restore_without_one(run: PullHistory, _: random.Random) -> PullHistory:
    gone = GapSeen("news", LAST_SEQ + 1, None, EPOCH)
    return with_page(run, 101, lambda pulled: replace(pulled, gaps=(gone,)))


def report_too_much_lost(run: PullHistory, chance: random.Random) -> PullHistory:
    gone = GapSeen("news", chance.choice([LAST_SEQ, END + 5]), None, EPOCH)
    return with_page(run, 103, lambda pulled: replace(pulled, gaps=(gone,)))


def keep_a_cursor_of_the_lost_log(run: PullHistory, chance: random.Random) -> PullHistory:
    """A message that was acknowledged after the backup only does not come again."""
    seq = chance.randint(ACKED + 1, LAST_SEQ)
    return in_new_pages(run, lambda pulled: without_seq(pulled, seq))


def skip_a_reassigned_sequence(run: PullHistory, chance: random.Random) -> PullHistory:
    """A new message does not come: the lost one with its sequence was pulled, expired, or is in the gap of the restore."""
    seq = chance.choice([LAST_SEQ + 1, LOST_EXPIRED, END - 1])
    return in_new_pages(run, lambda pulled: without_seq(pulled, seq))


def repeat_an_ack_of_the_backup(run: PullHistory, _: random.Random) -> PullHistory:
    return with_page(run, 103, lambda pulled: replace(pulled, items=(NEW_NEWS[ACKED - 1], *pulled.items)))


def deliver_a_lost_message(run: PullHistory, _: random.Random) -> PullHistory:
    lost = tuple(LOST_NEWS[item.seq - 1] for item in NEW_NEWS[-2:])
    return with_page(run, 104, lambda pulled: replace(pulled, items=(*pulled.items[:-2], *lost)))


def acknowledge_by_the_restore(run: PullHistory, _: random.Random) -> PullHistory:
    read = CursorRead("ann", "news", LAST_SEQ, NEW)
    return replace(run, events=with_events(run.events, after_restore(run.events), read))


PULL_FAULTS: Final = [
    Planted(conceal_the_restore, PullBroken.RESTORE_NOT_TOLD),
    Planted(accept_an_ack_of_the_lost_log, PullBroken.OLD_ACK),
    Planted(accept_a_lost_receipt, PullBroken.OLD_ACK),
    Planted(answer_with_the_lost_epoch, PullBroken.OLD_EPOCH),
    Planted(repeat_the_gap_after_an_ack, PullBroken.FALSE_GAP),
    Planted(report_a_restore_without_one, PullBroken.FALSE_GAP),
    Planted(report_too_much_lost, PullBroken.FALSE_GAP),
    Planted(keep_a_cursor_of_the_lost_log, PullBroken.LOST),
    Planted(skip_a_reassigned_sequence, PullBroken.LOST),
    Planted(repeat_an_ack_of_the_backup, PullBroken.REPEATED),
    Planted(deliver_a_lost_message, PullBroken.CHANGED),
    Planted(acknowledge_by_the_restore, PullBroken.ACKED_BY_READING),
]


# --- receipts ------------------------------------------------------------------------------------------------------------------


def receipt_run(chance: random.Random) -> ReceiptHistory:
    """Return a run without a fault: an agent acknowledges everything, before the restore and after it."""
    events: list[ReceiptEvent] = [Arrived("ann", 0.0)]
    for seq in range(1, 9):
        events += receipt(seq, seq)
    events += [BEGAN, ENDED]
    for seq in range(9, END):
        events += receipt(seq, 101 + seq)
    events += [Followed("news", END, "acked", 30, 180), Gone("ann", 190.0), PublisherGone(190.0), RESTORED, Arrived("ann", 202.0)]
    # What was acknowledged after the backup is so no more.
    states = [Claimed("ann", "news", seq, chance.choice(["pending", "away"]), 201.0, True) for seq in range(9, LAST_SEQ + 1)]
    events += chance.sample(states, chance.randint(0, len(states)))
    events += [Claimed("ann", "news", seq, "acked", 203.0, True) for seq in range(1, 9)]
    for seq in range(LAST_SEQ + 1, END + 2):
        events += receipt(seq, 220 + seq)
    return ReceiptHistory(events, {"news": ["ann"]}, 1.0)


def receipt(seq: int, at: float) -> list[ReceiptEvent]:
    claims = [Claimed("ann", "news", seq, state, at) for state in ("delivered", "acked")]
    sent = Followed("news", seq, "acked", 30, at), claims[0], Read("ann", "news", seq, at)
    return [*sent, AckGiven("ann", "news", seq, at), claims[1], LastPush("news", seq, "reached", 0, at)]


def in_receipts(
    plant: Callable[[Sequence[ReceiptEvent], random.Random], list[ReceiptEvent]],
) -> Callable[[ReceiptHistory, random.Random], ReceiptHistory]:
    def planted(run: ReceiptHistory, chance: random.Random) -> ReceiptHistory:
        return replace(run, events=plant(run.events, chance))

    planted.__name__ = plant.__name__
    return planted


def claim_the_ack_of_a_lost_message(events: Sequence[ReceiptEvent], chance: random.Random) -> list[ReceiptEvent]:
    """A message is reported as acknowledged, and only a lost one with its sequence, or after the backup, was."""
    claimed = Claimed("ann", "news", chance.randint(9, END), "acked", 203.0, True)
    return with_events(events, after_restore(events), claimed)


def claim_the_delivery_of_a_lost_message(events: Sequence[ReceiptEvent], chance: random.Random) -> list[ReceiptEvent]:
    seq, at = chance.randint(LAST_SEQ + 1, END - 1), after_restore(events)
    after = without(events[at:], lambda each: isinstance(each, Read) and each.seq == seq)
    return [*events[:at], *after]


def end_a_lost_receipt(events: Sequence[ReceiptEvent], _: random.Random) -> list[ReceiptEvent]:
    return with_events(events, after_restore(events), LastPush("news", END, "deadline", 1, 201.0))


def forget_an_ack_of_the_backup(events: Sequence[ReceiptEvent], chance: random.Random) -> list[ReceiptEvent]:
    claimed = Claimed("ann", "news", chance.randint(1, 8), "pending", 201.0, True)
    return with_events(events, after_restore(events), claimed)


def never_end_a_receipt(events: Sequence[ReceiptEvent], chance: random.Random) -> list[ReceiptEvent]:
    """That of the lost message with its sequence has ended."""
    seq, at = chance.randint(LAST_SEQ + 1, END - 1), after_restore(events)
    after = without(events[at:], lambda each: isinstance(each, LastPush) and each.seq == seq)
    return [*events[:at], *after]


def reach_by_lost_states(events: Sequence[ReceiptEvent], chance: random.Random) -> list[ReceiptEvent]:
    seq, at = chance.randint(LAST_SEQ + 1, END - 1), after_restore(events)
    after = without(events[at:], lambda each: isinstance(each, Claimed | AckGiven) and each.seq == seq)
    return [*events[:at], *after]


RECEIPT_FAULTS: Final = [
    Planted(in_receipts(claim_the_ack_of_a_lost_message), ReceiptBroken.FALSE_ACKED),
    Planted(in_receipts(claim_the_delivery_of_a_lost_message), ReceiptBroken.FALSE_DELIVERED),
    Planted(in_receipts(end_a_lost_receipt), ReceiptBroken.NOT_FOLLOWED),
    Planted(in_receipts(forget_an_ack_of_the_backup), ReceiptBroken.BACKED_UP_ACK),
    Planted(in_receipts(never_end_a_receipt), ReceiptBroken.NO_FINAL),
    Planted(in_receipts(reach_by_lost_states), ReceiptBroken.FALSE_REACHED),
]


# --- scheduled messages --------------------------------------------------------------------------------------------------------

DUE: Final = 1_000.0
STARTED: Final = 1_300.0
KINDS: Final = {"stored": 3, "cancelled": 4, "delivered": 5, "uncancelled": 6, "waiting": 7, "lost": 8, "at once": 9, "new": 10}
"""The number of a message by what becomes of it: stored before the backup, cancelled before it; delivered after it, cancelled
after it, waiting until after the restore; scheduled after the backup, published after it; sent after the restore."""


def schedule_run(chance: random.Random) -> ScheduleHistory:
    """Return a run without a fault: what the backup has scheduled is delivered, again or in spite of a later cancel."""
    n = KINDS
    first: list[ScheduleEvent] = [Published(n["stored"], None, None), Accepted(n["stored"], "msg_3", DUE)]
    for at, number in enumerate((n["cancelled"], n["delivered"], n["uncancelled"], n["waiting"])):
        first += [Published(number, DUE + 50 + 10 * at, None), Accepted(number, f"msg_{number}", DUE)]
    first += [*seen(LAST_SEQ, n["stored"], DUE), CancelAttempted("msg_4"), Cancelled("msg_4", DUE), BEGAN]
    if chance.random() < 0.5:  # cancelled while the backup was made: it may have that
        first += [Published(11, DUE + 45, None), Accepted(11, "msg_11", DUE), CancelAttempted("msg_11"), Cancelled("msg_11", DUE)]
    first += [
        ENDED,
        *seen(LAST_SEQ + 1, n["delivered"], DUE + 60),
        CancelAttempted("msg_5"),
        CancelTooLate("msg_5", LAST_SEQ + 1),
    ]
    first += [CancelAttempted("msg_6"), Cancelled("msg_6", DUE + 65)]
    first += [Published(n["lost"], DUE + 90, None), Accepted(n["lost"], "msg_8", DUE + 65)]
    first += [Published(n["at once"], None, None), Accepted(n["at once"], "msg_9", DUE + 65)]
    first += seen(LAST_SEQ + 2, n["at once"], DUE + 66)
    second: list[ScheduleEvent] = [GapPushed(a, GapSeen("news", LAST_SEQ + 1, None, EPOCH), STARTED) for a in AGENTS]
    if chance.random() < 0.5:
        second += [CancelAttempted("msg_8"), CancelTooLate("msg_8", 0)]
    for back, number in enumerate((n["delivered"], n["uncancelled"], n["waiting"])):
        second += seen(LAST_SEQ + 1 + back, number, STARTED + 1)
    second += [Published(n["new"], None, None), Accepted(n["new"], "msg_10", STARTED + 2)]
    second += seen(LAST_SEQ + 4, n["new"], STARTED + 2)
    log = [Kept(LAST_SEQ, "msg_3", 3), *(Kept(LAST_SEQ - 4 + number, f"msg_{number}", number) for number in (5, 6, 7))]
    lost_log = [Kept(LAST_SEQ, "msg_3", 3), Kept(LAST_SEQ + 1, "msg_5", 5), Kept(LAST_SEQ + 2, "msg_9", 9)]
    log.append(Kept(LAST_SEQ + 4, "msg_10", 10))
    return ScheduleHistory([*first, RESTORED, *second], log, AGENTS, lost_log=lost_log, restored_at=STARTED)


def seen(seq: int, number: int, at: float) -> list[ScheduleEvent]:
    return [Seen(agent, number, seq, f"msg_{number}", at) for agent in AGENTS]


def without_messages(run: ScheduleHistory, *numbers: int) -> ScheduleHistory:
    """Return the run without deliveries of messages after the restore."""
    at = after_restore(run.events)
    after = without(run.events[at:], lambda each: isinstance(each, Seen) and each.number in numbers)
    return replace(run, events=[*run.events[:at], *after], log=[kept for kept in run.log if kept.number not in numbers])


def never_deliver_what_the_backup_has(run: ScheduleHistory, chance: random.Random) -> ScheduleHistory:
    """It was delivered in the lost log, cancelled there, or not due there."""
    return without_messages(run, chance.choice([KINDS["delivered"], KINDS["uncancelled"], KINDS["waiting"]]))


def deliver_what_was_cancelled_before(run: ScheduleHistory, _: random.Random) -> ScheduleHistory:
    return replace(run, log=[*run.log, Kept(END + 5, "msg_4", 4)])


def bring_back_what_was_lost(run: ScheduleHistory, chance: random.Random) -> ScheduleHistory:
    number = chance.choice([KINDS["lost"], KINDS["at once"]])
    return replace(run, log=[*run.log, Kept(END + 5, f"msg_{number}", number)])


def deliver_twice_after_the_restore(run: ScheduleHistory, _: random.Random) -> ScheduleHistory:
    return replace(run, log=[*run.log, Kept(END + 5, "msg_5", 5)])


def conceal_the_replaced_log(run: ScheduleHistory, chance: random.Random) -> ScheduleHistory:
    _, pushed = some(chance, run.events, GapPushed)
    return replace(run, events=without(run.events, lambda each: each is pushed))


def tell_of_a_restore_without_one(run: ScheduleHistory, _: random.Random) -> ScheduleHistory:
    return replace(run, events=[GapPushed("ann", GapSeen("news", LAST_SEQ + 1, None, EPOCH), DUE), *run.events])


def tell_that_the_backup_is_lost(run: ScheduleHistory, chance: random.Random) -> ScheduleHistory:
    at, pushed = some(chance, run.events, GapPushed)
    return replace(run, events=with_event(run.events, at, replace(pushed, gap=replace(pushed.gap, first=LAST_SEQ))))


def leave_out_behind_the_gap(run: ScheduleHistory, chance: random.Random) -> ScheduleHistory:
    """A message of the log does not come to an agent, which had a lost one with its sequence, or the gap of the restore."""
    number = chance.choice([KINDS["delivered"], KINDS["uncancelled"], KINDS["new"]])
    at = after_restore(run.events)
    after = without(run.events[at:], lambda each: isinstance(each, Seen) and (each.agent, each.number) == ("bob", number))
    return replace(run, events=[*run.events[:at], *after])


def refuse_to_cancel_what_waits(run: ScheduleHistory, chance: random.Random) -> ScheduleHistory:
    """It was delivered in the lost log, or is unknown, though the backup has it."""
    told = CancelTooLate("msg_7", 0) if chance.random() < 0.5 else CancelTooLate("msg_5", END + 5)
    return replace(run, events=with_events(run.events, after_restore(run.events), told))


def deliver_after_a_second_cancel(run: ScheduleHistory, _: random.Random) -> ScheduleHistory:
    again = CancelAttempted("msg_6"), Cancelled("msg_6", STARTED)
    return replace(run, events=with_events(run.events, after_restore(run.events), *again))


def deliver_long_after_the_start(run: ScheduleHistory, _: random.Random) -> ScheduleHistory:
    at = after_restore(run.events)
    after = [replace(each, at=each.at + 60) if isinstance(each, Seen) and each.number == 6 else each for each in run.events[at:]]
    return replace(run, events=[*run.events[:at], *after])


def change_the_lost_log(run: ScheduleHistory, chance: random.Random) -> ScheduleHistory:
    """What was seen before the restore is compared with the lost log."""
    at, event = some(chance, run.events, Seen, lambda each: each.number == KINDS["at once"])
    return replace(run, events=with_event(run.events, at, replace(event, seq=END)))


SCHEDULE_FAULTS: Final = [
    Planted(never_deliver_what_the_backup_has, ScheduleBroken.NEVER),
    Planted(deliver_what_was_cancelled_before, ScheduleBroken.AFTER_CANCEL),
    Planted(bring_back_what_was_lost, ScheduleBroken.NOT_IN_BACKUP),
    Planted(deliver_twice_after_the_restore, ScheduleBroken.TWICE),
    Planted(conceal_the_replaced_log, ScheduleBroken.RESTORE_NOT_TOLD),
    Planted(tell_of_a_restore_without_one, ScheduleBroken.FALSE_RESTORE),
    Planted(tell_that_the_backup_is_lost, ScheduleBroken.FALSE_RESTORE),
    Planted(leave_out_behind_the_gap, ScheduleBroken.NOT_TOLD),
    Planted(refuse_to_cancel_what_waits, ScheduleBroken.FALSE_REFUSAL),
    Planted(deliver_after_a_second_cancel, ScheduleBroken.AFTER_CANCEL),
    Planted(deliver_long_after_the_start, ScheduleBroken.LATE),
    Planted(change_the_lost_log, ScheduleBroken.CHANGED),
]


# --- requests ------------------------------------------------------------------------------------------------------------------


def request_run(chance: random.Random) -> RequestHistory:
    """Return a run without a fault: a request ends with its connection, and another one is answered after the restore."""
    handled: list[RequestEvent] = [Handled(1, "old", 180.5), PartSent(1, "old", 1, 180.6)]
    handled = handled[: chance.randint(0, 2)]
    events: list[RequestEvent] = [Opened("old", "ann", 0.0), Asked(1, "ann", 3.0, 2, 180.0), *handled, BEGAN, ENDED]
    events += [Closed("old", 190.0), AskerLeft(1, 190.0), RESTORED, Opened("new", "ann", 210.0), Asked(2, "ann", 3.0, 1, 220.0)]
    events += [Handled(2, "new", 220.1), PartSent(2, "new", 1, 220.2), PartReceived(2, 2, 1, 220.3)]
    return RequestHistory([*events, Ended(2, "answered", None, 220.3)])


def handle_a_lost_request(run: RequestHistory, _: random.Random) -> RequestHistory:
    return replace(run, events=[*run.events, Handled(1, "new", 221.0)])


def answer_a_lost_request(run: RequestHistory, _: random.Random) -> RequestHistory:
    return replace(run, events=[*run.events, PartSent(1, "new", 1, 221.0), PartReceived(1, 1, 1, 221.0)])


REQUEST_FAULTS: Final = [
    Planted(handle_a_lost_request, RequestBroken.STORED),
    Planted(answer_a_lost_request, RequestBroken.STORED),
]


# --- the tests -----------------------------------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """One of the checkers: a run without a fault, its planted faults, and the violations that are of restores only."""

    name: str
    run_of: Callable[[random.Random], Any]
    judge: Callable[[Any], Any]
    faults: Sequence[Planted]
    only: frozenset[StrEnum]


CHECKERS: Final = [
    Kind("queues", queue_run, judge_queue, QUEUE_FAULTS, frozenset(queue_checker.AFTER_RESTORE)),
    Kind("pulls", pull_run, judge_pulls, PULL_FAULTS, frozenset(pull_checker.AFTER_RESTORE)),
    Kind("receipts", receipt_run, judge_receipts, RECEIPT_FAULTS, frozenset(receipt_checker.AFTER_RESTORE)),
    Kind("schedule", schedule_run, judge_schedule, SCHEDULE_FAULTS, frozenset(schedule_checker.AFTER_RESTORE)),
    Kind("requests", request_run, judge_requests, REQUEST_FAULTS, frozenset(request_checker.AFTER_RESTORE)),
]
FAULTS: Final = [(kind, fault) for kind in CHECKERS for fault in kind.faults]


@pytest.mark.parametrize("kind", CHECKERS, ids=lambda kind: kind.name)
@settings(max_examples=50)
@given(st.integers(0))
def test_restore_excuses_what_the_contract_says(kind: Kind, seed: int) -> None:
    found = kind.judge(kind.run_of(random.Random(seed)))
    assert not found.counts, str(found)


@pytest.mark.parametrize(("kind", "fault"), FAULTS, ids=[fault.plant.__name__ for _, fault in FAULTS])
@settings(max_examples=20)
@given(st.integers(0))
def test_fault_planted_beside_a_restore_is_found(kind: Kind, fault: Planted, seed: int) -> None:
    chance = random.Random(seed)
    found = kind.judge(fault.plant(kind.run_of(chance), chance))
    assert fault.broken in found.counts, str(found)


@pytest.mark.parametrize("kind", CHECKERS, ids=lambda kind: kind.name)
def test_every_violation_of_a_restore_is_planted(kind: Kind) -> None:
    assert kind.only <= {fault.broken for fault in kind.faults}


def test_last_of_several_backups_is_the_one_that_is_restored() -> None:
    lives = lives_of(["a", BackupBegan(1), "b", BackupEnded(2), "c", BEGAN, "d", ENDED, "e", RESTORED, "f"])
    assert [each for each in lives.before if isinstance(each, str)] == ["a", "b", "c"]
    assert (lives.during, lives.lost, lives.after) == (["d"], ["e"], ["f"])
