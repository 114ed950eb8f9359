"""What has arrived and what is acknowledged, against a log that is a list."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Collection

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from artcafe.sdk.inbox import MAX_BUFFERED, MAX_RECENT_IDS, Inbox
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


def acks(inbox: Inbox, held: Collection[str] = ()) -> list[tuple[str, int]]:
    return [(ack.channel, ack.seq) for ack in inbox.acks(held)]


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
    inbox.on_message(pushed(7))
    found = message(inbox)
    assert (found.channel, found.seq, found.prev, found.message_id, found.sender) == (CHANNEL, 7, 6, "msg_7", "agt_1")
    assert (found.time.isoformat(), found.headers, found.reply_to) == ("2026-11-22T16:50:57.123000+00:00", {}, None)
    assert (found.raw, found.data) == (b'{"number": 7}', {"number": 7})
    assert json.loads(found.json)["from"] == "agt_1"
    assert "number" not in repr(found)


def test_messages_of_all_channels_come_in_the_order_of_their_arrival() -> None:
    inbox = Inbox(WINDOW)
    for seq, channel in ((1, "a"), (2, "b"), (3, "a"), (4, "c")):
        inbox.on_message(pushed(seq, channel))
    assert taken(inbox) == [1, 2, 3, 4]


def test_whoever_names_channels_leaves_the_others_to_others() -> None:
    inbox = Inbox(WINDOW)
    for seq, channel in ((1, "a"), (2, "b"), (3, "a"), (4, "c")):
        inbox.on_message(pushed(seq, channel))
    assert taken(inbox, "b", "c", "unheard of") == [2, 4]
    assert taken(inbox) == [1, 3]


async def test_acknowledgements_leave_together_one_a_channel() -> None:
    woken: list[int] = []
    inbox = Inbox(WINDOW, on_ack=lambda: woken.append(1))
    for seq in (1, 2, 3):
        inbox.on_message(pushed(seq))
    inbox.on_message(pushed(4, "other"))
    for _ in range(4):
        await message(inbox).ack()
    assert sorted(acks(inbox)) == [(CHANNEL, 3), ("other", 4)]
    assert acks(inbox) == []
    assert len(woken) == 4


async def test_acks_in_any_order_leave_up_to_the_first_message_that_lacks_one() -> None:
    inbox = Inbox(WINDOW)
    for seq in (1, 2):
        inbox.on_message(pushed(seq))
    inbox.on_gap(CHANNEL, gap(3, 8, "retention"))
    for seq in (9, 11, 12):
        inbox.on_message(pushed(seq))
    one, two, _, nine, eleven, twelve = [inbox.take() for _ in range(6)]
    sent = []
    for each in (two, eleven, one, one, twelve, nine):
        assert isinstance(each, Message)
        await each.ack()
        sent.append(acks(inbox))
    assert sent == [[], [], [(CHANNEL, 2)], [], [], [(CHANNEL, 12)]]


async def test_a_cumulative_ack_covers_what_came_before_and_never_goes_back() -> None:
    inbox = Inbox(WINDOW)
    for seq in (1, 2, 3, 4):
        inbox.on_message(pushed(seq))
    first, second, third, fourth = (message(inbox) for _ in range(4))
    await fourth.ack()
    await second.ack(cumulative=True)
    assert acks(inbox) == [(CHANNEL, 2)]
    await first.ack()
    assert acks(inbox) == []
    await third.ack()
    assert acks(inbox) == [(CHANNEL, 4)]
    await first.ack(cumulative=True)
    assert acks(inbox) == []


async def test_everything_is_flushed_when_each_ack_has_left_on_some_connection() -> None:
    inbox = Inbox(WINDOW)
    for seq in (1, 2, 3):
        inbox.on_message(pushed(seq))
    one, two, three = (message(inbox) for _ in range(3))
    await one.ack()
    assert inbox.has_unsent_acks()
    acks(inbox)
    assert not inbox.has_unsent_acks()
    inbox.on_connection_lost()
    await three.ack()
    assert not inbox.has_unsent_acks()  # It waits for the second message.
    await two.ack()
    assert acks(inbox) == []
    assert inbox.has_unsent_acks()
    for seq in (2, 3):
        inbox.on_message(pushed(seq))
    assert acks(inbox) == [(CHANNEL, 3)]
    assert not inbox.has_unsent_acks()


async def test_what_repeats_after_a_reconnect_is_not_shown_and_is_acknowledged_again_when_it_was() -> None:
    inbox = Inbox(WINDOW)
    for seq in (1, 2, 3):
        inbox.on_message(pushed(seq))
    await message(inbox).ack()
    assert acks(inbox) == [(CHANNEL, 1)]
    assert inbox.on_connection_lost() == []
    for seq in (1, 2, 3, 4):
        inbox.on_message(pushed(seq))
    assert acks(inbox) == [(CHANNEL, 1)]
    assert taken(inbox) == [2, 3, 4]


async def test_a_socket_acknowledges_only_what_it_was_sent() -> None:
    inbox = Inbox(WINDOW)
    for seq in (1, 2):
        inbox.on_message(pushed(seq))
    one, two = message(inbox), message(inbox)
    await one.ack()
    inbox.on_connection_lost()
    await two.ack()
    assert acks(inbox) == []
    inbox.on_message(pushed(1))
    assert acks(inbox) == [(CHANNEL, 1)]
    inbox.on_message(pushed(2))
    assert acks(inbox) == [(CHANNEL, 2)]


def test_a_gap_stands_where_the_messages_are_missing_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    inbox = Inbox(WINDOW)
    inbox.on_message(pushed(1))
    with caplog.at_level(logging.WARNING, "artcafe"):
        inbox.on_gap(CHANNEL, gap(2, 5, "retention"))
    inbox.on_message(pushed(6))
    assert taken(inbox) == [1, Gap(CHANNEL, 2, 5, "retention"), 6]
    assert "chn_1 will not come: 2 to 5 (retention)" in caplog.text


def test_a_log_that_was_begun_anew_is_logged_as_one(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "artcafe"):
        Inbox(WINDOW).on_gap(CHANNEL, gap(41, None, "epoch"))
    assert "the log of chn_1 was begun anew (epoch): what the one before it had from 41 on, if anything" in caplog.text


def test_a_gap_that_is_told_again_is_not_shown_again() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_gap(CHANNEL, gap(1, 5, "retention"))
    inbox.on_connection_lost()
    inbox.on_gap(CHANNEL, gap(1, 5, "retention"))
    assert taken(inbox) == [Gap(CHANNEL, 1, 5, "retention")]


async def test_in_another_log_low_sequences_are_new_and_old_acknowledgements_mean_nothing() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_message(pushed(41))
    old = message(inbox)
    inbox.on_connection_lost()
    inbox.on_gap(CHANNEL, gap(41, None, "epoch"))
    inbox.on_message(pushed(1))
    inbox.on_message(pushed(50))
    await old.ack()
    assert acks(inbox) == []
    assert taken(inbox) == [Gap(CHANNEL, 41, None, "epoch"), 1, 50]


def of_another_log(seq: int) -> replies.Message:
    return msgspec.structs.replace(pushed(seq), message_id=f"other_{seq}")


async def test_another_message_under_a_sequence_that_was_received_is_shown_behind_a_gap() -> None:
    inbox = Inbox(WINDOW)
    for seq in range(1, 11):
        inbox.on_message(pushed(seq))
        await message(inbox).ack()
    acks(inbox)
    inbox.on_connection_lost()
    for seq in (5, 6):
        inbox.on_message(pushed(seq))
    for seq in (7, 8):
        inbox.on_message(of_another_log(seq))
    gap, seven, eight = (inbox.take() for _ in range(3))
    assert gap == Gap(CHANNEL, 5, None, "epoch")
    for item, seq in ((seven, 7), (eight, 8)):
        assert isinstance(item, Message)
        assert item.message_id == f"other_{seq}"
        await item.ack()
    assert acks(inbox) == [(CHANNEL, 8)]


def test_another_log_behind_messages_that_are_not_known_any_more_is_told_by_a_gap_too() -> None:
    inbox = Inbox(None)
    for seq in range(1, MAX_RECENT_IDS + 51):
        inbox.on_message(pushed(seq))
    taken(inbox)
    inbox.on_connection_lost()
    for seq in range(1, 53):
        inbox.on_message(of_another_log(seq))
    assert taken(inbox) == [Gap(CHANNEL, 1, None, "epoch"), 51, 52]


def test_a_channel_that_may_not_go_on_where_it_stood_goes_on_from_its_cursor() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_subscribed(CHANNEL, 5, replies.SubscribeReply("E1", 4, 9))
    inbox.on_message(pushed(5))
    assert inbox.on_connection_lost() == [(CHANNEL, 5)]
    inbox.on_message(pushed(3))
    inbox.on_resume_refused(CHANNEL)  # A member has paused the subscription, and resumes it later.
    for seq in (3, 4, 5, 6):
        inbox.on_message(pushed(seq))
    assert taken(inbox) == [5, 6]
    inbox.on_connection_lost()
    assert inbox.resume_start(CHANNEL) == "cursor"


def test_until_it_is_acknowledged_in_the_new_log_the_same_gap_begins_no_other() -> None:
    inbox = Inbox(WINDOW)
    for _ in range(2):
        inbox.on_gap(CHANNEL, gap(41, None, "epoch"))
        inbox.on_message(pushed(1))
        inbox.on_connection_lost()
    assert taken(inbox) == [Gap(CHANNEL, 41, None, "epoch"), 1]


def test_an_equal_gap_in_yet_another_log_begins_anew() -> None:
    inbox = Inbox(WINDOW)
    for epoch in ("E2", "E2", "E3"):
        inbox.on_gap(CHANNEL, gap(41, None, "epoch"), epoch)
        inbox.on_message(pushed(1))
        inbox.on_connection_lost()
    assert taken(inbox) == [Gap(CHANNEL, 41, None, "epoch"), 1, Gap(CHANNEL, 41, None, "epoch"), 1]


@pytest.mark.parametrize("is_pushed_first", [True, False])
def test_a_gap_before_the_place_that_was_asked_for_is_shown_before_its_messages(is_pushed_first: bool) -> None:
    inbox = Inbox(WINDOW)
    inbox.on_message(pushed(30))
    if is_pushed_first:
        inbox.on_gap(CHANNEL, gap(5, 20, "retention"))
    inbox.on_subscribed(CHANNEL, 5, replies.SubscribeReply("E1", 20, 30, replies.Gap(5, 20, "retention")))
    inbox.on_message(pushed(30))
    assert taken(inbox) == [Gap(CHANNEL, 5, 20, "retention"), 30]


def test_a_gap_in_the_answer_and_pushed_before_it_is_one() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_gap(CHANNEL, gap(41, None, "epoch"))
    inbox.on_subscribed(CHANNEL, "cursor", replies.SubscribeReply("E2", 0, 9, replies.Gap(41, None, "epoch")))
    inbox.on_message(pushed(1))
    assert taken(inbox) == [Gap(CHANNEL, 41, None, "epoch"), 1]


def test_a_start_elsewhere_leaves_out_what_waited_and_shows_old_messages_again() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_message(pushed(8))
    inbox.on_subscribed(CHANNEL, "first", replies.SubscribeReply("E1", 0, 8))
    for seq in (7, 8):
        inbox.on_message(pushed(seq))
    assert taken(inbox) == [7, 8]


def test_a_start_at_the_cursor_repeats_nothing() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_message(pushed(8))
    inbox.on_subscribed(CHANNEL, "cursor", replies.SubscribeReply("E1", 7, 8))
    inbox.on_message(pushed(8))
    assert taken(inbox) == [8]
    assert inbox.on_connection_lost() == []


async def test_a_delivery_that_began_elsewhere_goes_on_behind_what_was_acknowledged() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_subscribed(CHANNEL, 5, replies.SubscribeReply("E1", 4, 90))
    inbox.on_message(pushed(5))
    inbox.on_message(pushed(6))
    assert inbox.on_connection_lost() == [(CHANNEL, 5)]
    inbox.on_message(pushed(77))  # From the cursor, where the new connection begins by itself.
    assert inbox.on_resumed(CHANNEL, replies.SubscribeReply("E1", 4, 90))
    await message(inbox).ack()
    for seq in (5, 6, 7):
        inbox.on_message(pushed(seq))
    assert acks(inbox) == [(CHANNEL, 5)]
    assert taken(inbox) == [6, 7]
    assert inbox.on_connection_lost() == [(CHANNEL, 6)]


def test_another_loop_goes_on_in_a_delivery_that_began_elsewhere_and_an_explicit_cursor_ends_that() -> None:
    inbox = Inbox(WINDOW)
    assert inbox.resume_start(CHANNEL) == "cursor"
    inbox.on_subscribed(CHANNEL, 5, replies.SubscribeReply("E1", 4, 90))
    inbox.on_message(pushed(5))
    assert inbox.resume_start(CHANNEL) == 5
    inbox.on_message(pushed(6))  # Of the delivery before, which the server ends when the command arrives.
    assert inbox.on_resumed(CHANNEL, replies.SubscribeReply("E1", 4, 90))
    for seq in (5, 6, 7):
        inbox.on_message(pushed(seq))
    assert taken(inbox) == [5, 6, 7]
    inbox.on_subscribed(CHANNEL, "cursor", replies.SubscribeReply("E1", 2, 90))
    inbox.on_message(pushed(3))
    assert taken(inbox) == [3]
    assert inbox.resume_start(CHANNEL) == "cursor"
    assert inbox.on_connection_lost() == []


def test_whoever_acknowledges_nothing_goes_on_behind_what_arrived() -> None:
    inbox = Inbox(None)
    inbox.on_subscribed(CHANNEL, "first", replies.SubscribeReply("E1", 0, 90))
    inbox.on_message(pushed(5))
    assert inbox.on_connection_lost() == [(CHANNEL, 6)]
    assert inbox.on_connection_lost() == []  # It is told once, however often the connection breaks before the answer.


def test_a_delivery_that_finds_another_log_begins_there_at_its_first_message() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_subscribed(CHANNEL, "first", replies.SubscribeReply("E1", 0, 9))
    inbox.on_message(pushed(9))
    inbox.on_connection_lost()
    assert not inbox.on_resumed(CHANNEL, replies.SubscribeReply("E2", 9, 20))
    inbox.on_message(pushed(20))  # Of the delivery that began at the sequence of the other log.
    assert inbox.on_resumed(CHANNEL, replies.SubscribeReply("E2", 0, 20))
    inbox.on_message(pushed(1))
    assert taken(inbox) == [9, Gap(CHANNEL, 10, None, "epoch"), 1]


def test_a_delivery_that_is_older_than_its_log_hears_from_the_cursor_that_the_log_is_another_one_now() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_subscribed(CHANNEL, "first", replies.SubscribeReply(None, 0, 0))
    inbox.on_message(pushed(9))
    inbox.on_connection_lost()
    assert inbox.on_resumed(CHANNEL, replies.SubscribeReply(None, 0, 9))
    inbox.on_connection_lost()
    inbox.on_gap(CHANNEL, gap(5, None, "epoch"), "E2")
    assert not inbox.on_resumed(CHANNEL, replies.SubscribeReply("E2", 9, 20))
    assert inbox.on_resumed(CHANNEL, replies.SubscribeReply("E2", 0, 20))
    inbox.on_connection_lost()
    inbox.on_gap(CHANNEL, gap(5, None, "epoch"), "E2")  # Nothing was acknowledged in it yet, but it is known.
    assert inbox.on_resumed(CHANNEL, replies.SubscribeReply("E2", 0, 20))
    assert taken(inbox) == [9, Gap(CHANNEL, 10, None, "epoch")]


def test_a_gap_that_the_server_names_when_it_goes_on_is_shown() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_subscribed(CHANNEL, "first", replies.SubscribeReply("E1", 0, 9))
    inbox.on_connection_lost()
    assert inbox.on_resumed(CHANNEL, replies.SubscribeReply("E1", 4, 9, replies.Gap(1, 4, "retention")))
    assert taken(inbox) == [Gap(CHANNEL, 1, 4, "retention")]


def test_without_a_window_a_full_inbox_leaves_the_socket_unread_until_something_is_taken() -> None:
    inbox = Inbox(None)
    for seq in range(1, MAX_BUFFERED + 1):
        assert not inbox.is_full
        inbox.on_message(pushed(seq))
    assert inbox.is_full
    inbox.take()
    assert not inbox.is_full


async def test_with_a_window_the_server_waits_and_that_can_be_seen() -> None:
    inbox = Inbox(2)
    inbox.on_message(pushed(1))
    assert not inbox.stalled()
    inbox.on_message(pushed(2))
    assert inbox.stalled() == (CHANNEL, 1)
    assert inbox.stalled(["another"]) is None
    await message(inbox).ack()
    assert inbox.stalled([CHANNEL]) is None


class Feed:
    """A server that feeds one channel from its cursor, under a window, with frames on their way in both directions."""

    def __init__(self, window: int) -> None:
        self.inbox, self.window = Inbox(window), window
        self.newest = self.cursor = self.sent = 0
        self.owed: deque[int] = deque()
        self.down: deque[int | replies.SubscribeReply] = deque()
        self.up: deque[int | None] = deque()
        """Acks, and None for a `subscribe`."""
        self.subscribing: list[str] = []
        self.refused: list[int] = []
        self.restarts = 0
        self.seen: list[int] = []
        self.unacked: list[Message] = []

    def publish(self) -> None:
        self.newest += 1

    def feed(self) -> None:
        if self.sent < self.newest and len(self.owed) < self.window:
            self.sent += 1
            self.owed.append(self.sent)
            self.down.append(self.sent)

    def begin(self) -> None:
        """Delivery begins anew behind the cursor."""
        self.sent = self.cursor
        self.owed.clear()

    def serve(self) -> None:
        """The server takes in a frame of the client."""
        if not self.up:
            return
        seq = self.up.popleft()
        if seq is None:
            self.begin()
            self.down.append(replies.SubscribeReply("E1", self.cursor, self.newest))
        elif seq > self.sent:
            self.refused.append(seq)
        else:
            self.cursor = max(self.cursor, seq)
            while self.owed and self.owed[0] <= seq:
                self.owed.popleft()

    def hear(self) -> None:
        """The client takes in a frame of the server."""
        if not self.down:
            return
        frame = self.down.popleft()
        if isinstance(frame, int):
            self.inbox.on_message(pushed(frame))
        else:
            self.subscribing.pop()
            self.inbox.on_subscribed(CHANNEL, "cursor", frame)

    def take(self) -> None:
        item = self.inbox.take()
        if isinstance(item, Message):
            self.seen.append(item.seq or 0)
            self.unacked.append(item)

    def ack(self) -> None:
        if self.unacked:
            asyncio.run(self.unacked.pop(0).ack())

    def ack_last(self) -> None:
        if self.unacked:
            asyncio.run(self.unacked.pop().ack())

    def acks(self) -> None:
        self.up.extend(seq for _, seq in acks(self.inbox, self.subscribing))

    def subscribe(self) -> None:
        """The program begins another loop over the channel."""
        self.acks()
        self.subscribing.append(CHANNEL)
        self.up.append(None)

    def restart(self) -> None:
        """A member pauses the subscription and resumes it: the client is not notified."""
        self.restarts += 1
        self.begin()

    def cut(self) -> None:
        self.inbox.on_connection_lost()
        self.begin()
        self.down.clear()
        self.up.clear()
        self.up.extend(None for _ in self.subscribing)

    def arrive(self) -> None:
        """A message is published, and comes."""
        for step in (self.publish, self.feed, self.hear):
            step()

    def handle(self) -> None:
        """The program deals with a message."""
        for step in (self.take, self.ack, self.acks):
            step()

    def settle(self) -> None:
        """Everything arrives, and the program acknowledges everything."""
        for _ in range(4 * self.newest + 200):
            for step in (self.feed, self.acks, self.serve, self.hear, self.take, self.ack):
                step()


STEPS: dict[str, Callable[[Feed], None]] = {
    "arrive": Feed.arrive,
    "handle": Feed.handle,
    "publish": Feed.publish,
    "feed": Feed.feed,
    "serve": Feed.serve,
    "hear": Feed.hear,
    "take": Feed.take,
    "ack": Feed.ack,
    "ack the last": Feed.ack_last,
    "send acks": Feed.acks,
    "subscribe": Feed.subscribe,
    "restart": Feed.restart,
    "cut": Feed.cut,
}


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=80))
@example(["arrive", "arrive", "subscribe", "serve", "handle", "handle", "serve", "serve"])
@example(["arrive", "arrive", "restart", "handle", "handle", "serve", "serve"])
def test_every_message_is_seen_once_in_order_and_the_cursor_follows_the_acks(steps: list[str]) -> None:
    feed = Feed(window=2)
    for step in steps:
        STEPS[step](feed)
    feed.settle()
    assert feed.seen == list(range(1, feed.newest + 1))
    assert feed.cursor == feed.newest
    assert not feed.refused or feed.restarts


def test_a_loop_that_begins_behind_a_full_window_sends_no_ack_until_the_server_has_restarted_the_delivery() -> None:
    feed = Feed(WINDOW)
    for _ in range(2 * WINDOW):
        feed.publish()
        feed.feed()
    for _ in range(WINDOW):
        feed.hear()
    feed.subscribe()
    feed.serve()
    for _ in range(WINDOW):
        feed.take()
        feed.ack()
    feed.acks()
    feed.serve()
    assert feed.refused == []
    feed.settle()
    assert (feed.seen, feed.cursor) == ([*range(1, 2 * WINDOW + 1)], 2 * WINDOW)
