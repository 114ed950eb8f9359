"""What has arrived and what is acknowledged, against a log that is a list."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.sdk.inbox import ROOM, Inbox
from artcafe.sdk.messages import Gap, Message
from artcafe.wire import replies

CHANNEL = "chn_1"
WINDOW = 8


def pushed(seq: int, channel: str = CHANNEL) -> replies.Message:
    return replies.Message(
        channel=channel,
        seq=seq,
        prev=seq - 1 or None,
        message_id=f"msg_{seq}",
        sender="agt_1",
        time="2026-11-22T16:50:57.123Z",
        data=msgspec.Raw(b'{"number": %d}' % seq),
    )


def gap(first: int, last: int | None, reason: str) -> replies.GapPush:
    return replies.GapPush(channel=CHANNEL, from_=first, to=last, reason=reason)


def acks(inbox: Inbox) -> list[tuple[str, int]]:
    return [(ack["channel"], ack["seq"]) for ack in (json.loads(frame)["ack"] for frame in inbox.acks())]


def taken(inbox: Inbox, *channels: str) -> list[int | Gap]:
    """Everything that waits, messages by their sequence."""
    found: list[int | Gap] = []
    while (item := inbox.take(channels)) is not None:
        found.append((item.seq or 0) if isinstance(item, Message) else item)
    return found


def message(inbox: Inbox) -> Message:
    item = inbox.take()
    assert isinstance(item, Message)
    return item


async def test_a_message_shows_what_was_pushed() -> None:
    inbox = Inbox(WINDOW)
    inbox.message(pushed(7))
    found = message(inbox)
    assert (found.channel, found.seq, found.prev, found.message_id, found.sender) == (CHANNEL, 7, 6, "msg_7", "agt_1")
    assert (found.time.isoformat(), found.headers, found.reply_to) == ("2026-11-22T16:50:57.123000+00:00", {}, None)
    assert (found.raw, found.data) == (b'{"number": 7}', {"number": 7})
    assert json.loads(found.json)["from"] == "agt_1"
    assert "number" not in repr(found)


def test_messages_of_all_channels_come_in_the_order_of_their_arrival() -> None:
    inbox = Inbox(WINDOW)
    for seq, channel in ((1, "a"), (2, "b"), (3, "a"), (4, "c")):
        inbox.message(pushed(seq, channel))
    assert taken(inbox) == [1, 2, 3, 4]


def test_whoever_names_channels_leaves_the_others_to_others() -> None:
    inbox = Inbox(WINDOW)
    for seq, channel in ((1, "a"), (2, "b"), (3, "a"), (4, "c")):
        inbox.message(pushed(seq, channel))
    assert taken(inbox, "b", "c", "unheard of") == [2, 4]
    assert taken(inbox) == [1, 3]


async def test_acknowledgements_leave_together_one_a_channel() -> None:
    woken: list[int] = []
    inbox = Inbox(WINDOW, on_ack=lambda: woken.append(1))
    for seq in (1, 2, 3):
        inbox.message(pushed(seq))
    inbox.message(pushed(4, "other"))
    for _ in range(4):
        await message(inbox).ack()
    assert sorted(acks(inbox)) == [(CHANNEL, 3), ("other", 4)]
    assert acks(inbox) == []
    assert len(woken) == 4


async def test_an_acknowledgement_covers_what_came_before_and_never_goes_back() -> None:
    inbox = Inbox(WINDOW)
    for seq in (1, 2):
        inbox.message(pushed(seq))
    first, second = message(inbox), message(inbox)
    await second.ack()
    assert acks(inbox) == [(CHANNEL, 2)]
    await first.ack()
    assert acks(inbox) == []


async def test_what_repeats_after_a_reconnect_is_not_shown_and_is_acknowledged_again_when_it_was() -> None:
    inbox = Inbox(WINDOW)
    for seq in (1, 2, 3):
        inbox.message(pushed(seq))
    await message(inbox).ack()
    assert acks(inbox) == [(CHANNEL, 1)]
    assert inbox.lost() == []
    for seq in (1, 2, 3, 4):
        inbox.message(pushed(seq))
    assert acks(inbox) == [(CHANNEL, 1)]
    assert taken(inbox) == [2, 3, 4]


async def test_a_socket_acknowledges_only_what_it_was_sent() -> None:
    inbox = Inbox(WINDOW)
    for seq in (1, 2):
        inbox.message(pushed(seq))
    one, two = message(inbox), message(inbox)
    await one.ack()
    inbox.lost()
    await two.ack()
    assert acks(inbox) == []
    inbox.message(pushed(1))
    assert acks(inbox) == [(CHANNEL, 1)]
    inbox.message(pushed(2))
    assert acks(inbox) == [(CHANNEL, 2)]


def test_a_gap_stands_where_the_messages_are_missing_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    inbox = Inbox(WINDOW)
    inbox.message(pushed(1))
    with caplog.at_level(logging.WARNING, "artcafe"):
        inbox.gap(CHANNEL, gap(2, 5, "retention"))
    inbox.message(pushed(6))
    assert taken(inbox) == [1, Gap(CHANNEL, 2, 5, "retention"), 6]
    assert "chn_1 will not come: 2 to 5 (retention)" in caplog.text


def test_a_log_that_was_begun_anew_is_logged_as_one(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "artcafe"):
        Inbox(WINDOW).gap(CHANNEL, gap(41, None, "epoch"))
    assert "the log of chn_1 was begun anew (epoch): what the one before it had from 41 on, if anything" in caplog.text


def test_a_gap_that_is_told_again_is_not_shown_again() -> None:
    inbox = Inbox(WINDOW)
    inbox.gap(CHANNEL, gap(1, 5, "retention"))
    inbox.lost()
    inbox.gap(CHANNEL, gap(1, 5, "retention"))
    assert taken(inbox) == [Gap(CHANNEL, 1, 5, "retention")]


async def test_in_another_log_low_sequences_are_new_and_old_acknowledgements_mean_nothing() -> None:
    inbox = Inbox(WINDOW)
    inbox.message(pushed(41))
    old = message(inbox)
    inbox.lost()
    inbox.gap(CHANNEL, gap(41, None, "epoch"))
    inbox.message(pushed(1))
    inbox.message(pushed(50))
    await old.ack()
    assert acks(inbox) == []
    assert taken(inbox) == [Gap(CHANNEL, 41, None, "epoch"), 1, 50]


def test_until_it_is_acknowledged_in_the_new_log_the_same_gap_begins_no_other() -> None:
    inbox = Inbox(WINDOW)
    for _ in range(2):
        inbox.gap(CHANNEL, gap(41, None, "epoch"))
        inbox.message(pushed(1))
        inbox.lost()
    assert taken(inbox) == [Gap(CHANNEL, 41, None, "epoch"), 1]


def test_an_equal_gap_in_yet_another_log_begins_anew() -> None:
    inbox = Inbox(WINDOW)
    for epoch in ("E2", "E2", "E3"):
        inbox.gap(CHANNEL, gap(41, None, "epoch"), epoch)
        inbox.message(pushed(1))
        inbox.lost()
    assert taken(inbox) == [Gap(CHANNEL, 41, None, "epoch"), 1, Gap(CHANNEL, 41, None, "epoch"), 1]


@pytest.mark.parametrize("is_pushed_first", [True, False])
def test_a_gap_before_the_place_that_was_asked_for_is_shown_before_its_messages(is_pushed_first: bool) -> None:
    inbox = Inbox(WINDOW)
    inbox.message(pushed(30))
    if is_pushed_first:
        inbox.gap(CHANNEL, gap(5, 20, "retention"))
    inbox.joined(CHANNEL, 5, replies.SubscribeReply("E1", 20, 30, replies.Gap(5, 20, "retention")))
    inbox.message(pushed(30))
    assert taken(inbox) == [Gap(CHANNEL, 5, 20, "retention"), 30]


def test_a_gap_in_the_answer_and_pushed_before_it_is_one() -> None:
    inbox = Inbox(WINDOW)
    inbox.gap(CHANNEL, gap(41, None, "epoch"))
    inbox.joined(CHANNEL, "cursor", replies.SubscribeReply("E2", 0, 9, replies.Gap(41, None, "epoch")))
    inbox.message(pushed(1))
    assert taken(inbox) == [Gap(CHANNEL, 41, None, "epoch"), 1]


def test_a_start_elsewhere_leaves_out_what_waited_and_shows_old_messages_again() -> None:
    inbox = Inbox(WINDOW)
    inbox.message(pushed(8))
    inbox.joined(CHANNEL, "first", replies.SubscribeReply("E1", 0, 8))
    for seq in (7, 8):
        inbox.message(pushed(seq))
    assert taken(inbox) == [7, 8]


def test_a_start_at_the_cursor_repeats_nothing() -> None:
    inbox = Inbox(WINDOW)
    inbox.message(pushed(8))
    inbox.joined(CHANNEL, "cursor", replies.SubscribeReply("E1", 7, 8))
    inbox.message(pushed(8))
    assert taken(inbox) == [8]
    assert inbox.lost() == []


async def test_a_delivery_that_began_elsewhere_goes_on_behind_what_was_acknowledged() -> None:
    inbox = Inbox(WINDOW)
    inbox.joined(CHANNEL, 5, replies.SubscribeReply("E1", 4, 90))
    inbox.message(pushed(5))
    inbox.message(pushed(6))
    assert inbox.lost() == [(CHANNEL, 5)]
    inbox.message(pushed(77))  # From the cursor, where the new connection begins by itself.
    assert inbox.resumed(CHANNEL, replies.SubscribeReply("E1", 4, 90))
    await message(inbox).ack()
    for seq in (5, 6, 7):
        inbox.message(pushed(seq))
    assert acks(inbox) == [(CHANNEL, 5)]
    assert taken(inbox) == [6, 7]
    assert inbox.lost() == [(CHANNEL, 6)]


def test_whoever_acknowledges_nothing_goes_on_behind_what_arrived() -> None:
    inbox = Inbox(None)
    inbox.joined(CHANNEL, "first", replies.SubscribeReply("E1", 0, 90))
    inbox.message(pushed(5))
    assert inbox.lost() == [(CHANNEL, 6)]
    assert inbox.lost() == []  # It is told once, however often the connection breaks before the answer.


def test_a_delivery_that_finds_another_log_begins_there_at_its_first_message() -> None:
    inbox = Inbox(WINDOW)
    inbox.joined(CHANNEL, "first", replies.SubscribeReply("E1", 0, 9))
    inbox.message(pushed(9))
    inbox.lost()
    assert not inbox.resumed(CHANNEL, replies.SubscribeReply("E2", 9, 20))
    inbox.message(pushed(20))  # Of the delivery that began at the sequence of the other log.
    assert inbox.resumed(CHANNEL, replies.SubscribeReply("E2", 0, 20))
    inbox.message(pushed(1))
    assert taken(inbox) == [9, Gap(CHANNEL, 10, None, "epoch"), 1]


def test_a_delivery_that_is_older_than_its_log_hears_from_the_cursor_that_the_log_is_another_one_now() -> None:
    inbox = Inbox(WINDOW)
    inbox.joined(CHANNEL, "first", replies.SubscribeReply(None, 0, 0))
    inbox.message(pushed(9))
    inbox.lost()
    assert inbox.resumed(CHANNEL, replies.SubscribeReply(None, 0, 9))
    inbox.lost()
    inbox.gap(CHANNEL, gap(5, None, "epoch"), "E2")
    assert not inbox.resumed(CHANNEL, replies.SubscribeReply("E2", 9, 20))
    assert inbox.resumed(CHANNEL, replies.SubscribeReply("E2", 0, 20))
    inbox.lost()
    inbox.gap(CHANNEL, gap(5, None, "epoch"), "E2")  # Nothing was acknowledged in it yet, but it is known.
    assert inbox.resumed(CHANNEL, replies.SubscribeReply("E2", 0, 20))
    assert taken(inbox) == [9, Gap(CHANNEL, 10, None, "epoch")]


def test_a_gap_that_the_server_names_when_it_goes_on_is_shown() -> None:
    inbox = Inbox(WINDOW)
    inbox.joined(CHANNEL, "first", replies.SubscribeReply("E1", 0, 9))
    inbox.lost()
    assert inbox.resumed(CHANNEL, replies.SubscribeReply("E1", 4, 9, replies.Gap(1, 4, "retention")))
    assert taken(inbox) == [Gap(CHANNEL, 1, 4, "retention")]


def test_without_a_window_a_full_inbox_leaves_the_socket_unread_until_something_is_taken() -> None:
    inbox = Inbox(None)
    for seq in range(1, ROOM + 1):
        assert not inbox.is_full
        inbox.message(pushed(seq))
    assert inbox.is_full
    inbox.take()
    assert not inbox.is_full


async def test_with_a_window_the_server_waits_and_that_can_be_seen() -> None:
    inbox = Inbox(2)
    inbox.message(pushed(1))
    assert not inbox.stalled()
    inbox.message(pushed(2))
    assert inbox.stalled()
    assert not inbox.stalled(["another"])
    await message(inbox).ack()
    assert not inbox.stalled([CHANNEL])


class Feed:
    """A server that feeds one channel from its cursor, loses connections, and takes acknowledgements of what it sent alone."""

    def __init__(self) -> None:
        self.inbox = Inbox(WINDOW)
        self.newest = self.cursor = self.sent = 0
        self.seen: list[int] = []
        self.unacked: list[Message] = []

    def publish(self) -> None:
        self.newest += 1

    def feed(self) -> None:
        if self.sent < self.newest:
            self.sent += 1
            self.inbox.message(pushed(self.sent))

    def take(self) -> None:
        item = self.inbox.take()
        if isinstance(item, Message):
            self.seen.append(item.seq or 0)
            self.unacked.append(item)

    def ack(self) -> None:
        if self.unacked:
            asyncio.run(self.unacked.pop(0).ack())

    def acks(self) -> None:
        for _, seq in acks(self.inbox):
            assert self.cursor <= seq <= self.sent  # saying on a new socket what the one before said is no fault
            self.cursor = seq

    def cut(self) -> None:
        self.inbox.lost()
        self.sent = self.cursor


STEPS: dict[str, Callable[[Feed], None]] = {
    "publish": Feed.publish,
    "feed": Feed.feed,
    "take": Feed.take,
    "ack": Feed.ack,
    "send acks": Feed.acks,
    "cut": Feed.cut,
}


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=80))
def test_whatever_happens_every_message_is_seen_once_in_order_and_the_cursor_follows(steps: list[str]) -> None:
    feed = Feed()
    for step in steps:
        STEPS[step](feed)
    feed.acks()
    while feed.sent < feed.newest:
        feed.feed()
    feed.acks()
    while len(feed.inbox):
        feed.take()
    while feed.unacked:
        feed.ack()
    feed.acks()
    assert feed.seen == list(range(1, feed.newest + 1))
    assert feed.cursor == feed.newest
