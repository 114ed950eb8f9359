"""Received and acknowledged messages, compared with a list as the log."""

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
    """Take all buffered items, messages as their sequences."""
    found: list[int | Gap] = []
    while (item := inbox.take(channels)) is not None:
        found.append((item.seq or 0) if isinstance(item, Message) else item)
    return found


def message(inbox: Inbox) -> Message:
    item = inbox.take()
    assert isinstance(item, Message)
    return item


async def test_message_has_the_pushed_fields() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_message(pushed(7))
    found = message(inbox)
    assert (found.channel, found.seq, found.prev, found.message_id, found.sender) == (CHANNEL, 7, 6, "msg_7", "agt_1")
    assert (found.time.isoformat(), found.headers, found.reply_to) == ("2026-11-22T16:50:57.123000+00:00", {}, None)
    assert (found.raw, found.data) == (b'{"number": 7}', {"number": 7})
    assert json.loads(found.json)["from"] == "agt_1"
    assert "number" not in repr(found)


def test_messages_of_all_channels_are_taken_in_order_of_arrival() -> None:
    inbox = Inbox(WINDOW)
    for seq, channel in ((1, "a"), (2, "b"), (3, "a"), (4, "c")):
        inbox.on_message(pushed(seq, channel))
    assert taken(inbox) == [1, 2, 3, 4]


def test_taking_from_given_channels_leaves_the_others() -> None:
    inbox = Inbox(WINDOW)
    for seq, channel in ((1, "a"), (2, "b"), (3, "a"), (4, "c")):
        inbox.on_message(pushed(seq, channel))
    assert taken(inbox, "b", "c", "unheard of") == [2, 4]
    assert taken(inbox) == [1, 3]


async def test_acks_are_sent_together_one_for_each_channel() -> None:
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


async def test_acks_in_any_order_are_sent_up_to_the_first_unacknowledged_message() -> None:
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


async def test_cumulative_ack_covers_earlier_messages_and_never_moves_back() -> None:
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


async def test_acks_are_flushed_once_each_was_sent_on_any_connection() -> None:
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


async def test_repeats_after_a_reconnect_are_not_yielded_and_their_acks_are_sent_again() -> None:
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


async def test_acks_cover_only_messages_sent_on_this_connection() -> None:
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


def test_gap_is_buffered_in_place_of_the_messages_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    inbox = Inbox(WINDOW)
    inbox.on_message(pushed(1))
    with caplog.at_level(logging.WARNING, "artcafe"):
        inbox.on_gap(CHANNEL, gap(2, 5, "retention"))
    inbox.on_message(pushed(6))
    assert taken(inbox) == [1, Gap(CHANNEL, 2, 5, "retention"), 6]
    assert "chn_1 will not come: 2 to 5 (retention)" in caplog.text


def test_new_log_is_logged_as_a_gap_without_an_end(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "artcafe"):
        Inbox(WINDOW).on_gap(CHANNEL, gap(41, None, "epoch"))
    assert "the log of chn_1 was replaced (epoch): messages of the old log from 41 on, if any" in caplog.text


def test_repeated_gap_is_not_yielded_again() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_gap(CHANNEL, gap(1, 5, "retention"))
    inbox.on_connection_lost()
    inbox.on_gap(CHANNEL, gap(1, 5, "retention"))
    assert taken(inbox) == [Gap(CHANNEL, 1, 5, "retention")]


async def test_new_log_makes_low_sequences_new_and_old_acks_void() -> None:
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


async def test_another_message_with_a_received_sequence_is_yielded_behind_a_gap() -> None:
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


def test_other_log_is_reported_by_a_gap_even_if_old_ids_are_forgotten() -> None:
    inbox = Inbox(None)
    for seq in range(1, MAX_RECENT_IDS + 51):
        inbox.on_message(pushed(seq))
    taken(inbox)
    inbox.on_connection_lost()
    for seq in range(1, 53):
        inbox.on_message(of_another_log(seq))
    assert taken(inbox) == [Gap(CHANNEL, 1, None, "epoch"), 51, 52]


def test_channel_that_cannot_resume_continues_from_its_cursor() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_subscribed(CHANNEL, 5, replies.SubscribeReply("E1", 4, 9))
    inbox.on_message(pushed(5))
    assert inbox.on_connection_lost() == [(CHANNEL, 5)]
    inbox.on_message(pushed(3))
    inbox.on_resume_refused(CHANNEL)  # A member has paused the subscription and resumes it later.
    for seq in (3, 4, 5, 6):
        inbox.on_message(pushed(seq))
    assert taken(inbox) == [5, 6]
    inbox.on_connection_lost()
    assert inbox.resume_start(CHANNEL) == "cursor"


def test_same_gap_starts_no_other_log_until_an_ack_in_the_new_log() -> None:
    inbox = Inbox(WINDOW)
    for _ in range(2):
        inbox.on_gap(CHANNEL, gap(41, None, "epoch"))
        inbox.on_message(pushed(1))
        inbox.on_connection_lost()
    assert taken(inbox) == [Gap(CHANNEL, 41, None, "epoch"), 1]


def test_equal_gap_of_a_third_log_restarts_the_channel() -> None:
    inbox = Inbox(WINDOW)
    for epoch in ("E2", "E2", "E3"):
        inbox.on_gap(CHANNEL, gap(41, None, "epoch"), epoch)
        inbox.on_message(pushed(1))
        inbox.on_connection_lost()
    assert taken(inbox) == [Gap(CHANNEL, 41, None, "epoch"), 1, Gap(CHANNEL, 41, None, "epoch"), 1]


@pytest.mark.parametrize("is_pushed_first", [True, False])
def test_gap_before_the_requested_start_is_yielded_before_the_messages(is_pushed_first: bool) -> None:
    inbox = Inbox(WINDOW)
    inbox.on_message(pushed(30))
    if is_pushed_first:
        inbox.on_gap(CHANNEL, gap(5, 20, "retention"))
    inbox.on_subscribed(CHANNEL, 5, replies.SubscribeReply("E1", 20, 30, replies.Gap(5, 20, "retention")))
    inbox.on_message(pushed(30))
    assert taken(inbox) == [Gap(CHANNEL, 5, 20, "retention"), 30]


def test_gap_in_the_reply_and_pushed_before_it_is_yielded_once() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_gap(CHANNEL, gap(41, None, "epoch"))
    inbox.on_subscribed(CHANNEL, "cursor", replies.SubscribeReply("E2", 0, 9, replies.Gap(41, None, "epoch")))
    inbox.on_message(pushed(1))
    assert taken(inbox) == [Gap(CHANNEL, 41, None, "epoch"), 1]


def test_explicit_start_discards_the_buffer_and_yields_old_messages_again() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_message(pushed(8))
    inbox.on_subscribed(CHANNEL, "first", replies.SubscribeReply("E1", 0, 8))
    for seq in (7, 8):
        inbox.on_message(pushed(seq))
    assert taken(inbox) == [7, 8]


def test_start_at_the_cursor_yields_no_repeats() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_message(pushed(8))
    inbox.on_subscribed(CHANNEL, "cursor", replies.SubscribeReply("E1", 7, 8))
    inbox.on_message(pushed(8))
    assert taken(inbox) == [8]
    assert inbox.on_connection_lost() == []


async def test_delivery_from_an_explicit_start_resumes_behind_the_last_ack() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_subscribed(CHANNEL, 5, replies.SubscribeReply("E1", 4, 90))
    inbox.on_message(pushed(5))
    inbox.on_message(pushed(6))
    assert inbox.on_connection_lost() == [(CHANNEL, 5)]
    inbox.on_message(pushed(77))  # From the cursor: the new connection starts there by itself.
    assert inbox.on_resumed(CHANNEL, replies.SubscribeReply("E1", 4, 90))
    await message(inbox).ack()
    for seq in (5, 6, 7):
        inbox.on_message(pushed(seq))
    assert acks(inbox) == [(CHANNEL, 5)]
    assert taken(inbox) == [6, 7]
    assert inbox.on_connection_lost() == [(CHANNEL, 6)]


def test_later_loop_continues_an_explicit_start_until_a_subscribe_at_the_cursor() -> None:
    inbox = Inbox(WINDOW)
    assert inbox.resume_start(CHANNEL) == "cursor"
    inbox.on_subscribed(CHANNEL, 5, replies.SubscribeReply("E1", 4, 90))
    inbox.on_message(pushed(5))
    assert inbox.resume_start(CHANNEL) == 5
    inbox.on_message(pushed(6))  # From the previous delivery: the server ends it when the command arrives.
    assert inbox.on_resumed(CHANNEL, replies.SubscribeReply("E1", 4, 90))
    for seq in (5, 6, 7):
        inbox.on_message(pushed(seq))
    assert taken(inbox) == [5, 6, 7]
    inbox.on_subscribed(CHANNEL, "cursor", replies.SubscribeReply("E1", 2, 90))
    inbox.on_message(pushed(3))
    assert taken(inbox) == [3]
    assert inbox.resume_start(CHANNEL) == "cursor"
    assert inbox.on_connection_lost() == []


def test_program_without_acks_resumes_behind_the_received_messages() -> None:
    inbox = Inbox(None)
    inbox.on_subscribed(CHANNEL, "first", replies.SubscribeReply("E1", 0, 90))
    inbox.on_message(pushed(5))
    assert inbox.on_connection_lost() == [(CHANNEL, 6)]
    assert inbox.on_connection_lost() == []  # Returned once, even if the connection is lost again before the reply.


def test_resume_in_another_log_starts_at_its_first_message() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_subscribed(CHANNEL, "first", replies.SubscribeReply("E1", 0, 9))
    inbox.on_message(pushed(9))
    inbox.on_connection_lost()
    assert not inbox.on_resumed(CHANNEL, replies.SubscribeReply("E2", 9, 20))
    inbox.on_message(pushed(20))  # From the delivery that started at the sequence of the other log.
    assert inbox.on_resumed(CHANNEL, replies.SubscribeReply("E2", 0, 20))
    inbox.on_message(pushed(1))
    assert taken(inbox) == [9, Gap(CHANNEL, 10, None, "epoch"), 1]


def test_channel_older_than_its_log_learns_of_another_log_from_the_cursors_gap() -> None:
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
    inbox.on_gap(CHANNEL, gap(5, None, "epoch"), "E2")  # It has no acks yet, but the client knows its epoch.
    assert inbox.on_resumed(CHANNEL, replies.SubscribeReply("E2", 0, 20))
    assert taken(inbox) == [9, Gap(CHANNEL, 10, None, "epoch")]


def test_gap_in_the_reply_to_a_resume_is_yielded() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_subscribed(CHANNEL, "first", replies.SubscribeReply("E1", 0, 9))
    inbox.on_connection_lost()
    assert inbox.on_resumed(CHANNEL, replies.SubscribeReply("E1", 4, 9, replies.Gap(1, 4, "retention")))
    assert taken(inbox) == [Gap(CHANNEL, 1, 4, "retention")]


def test_full_buffer_without_a_window_leaves_the_socket_unread() -> None:
    inbox = Inbox(None)
    for seq in range(1, MAX_BUFFERED + 1):
        assert not inbox.is_full
        inbox.on_message(pushed(seq))
    assert inbox.is_full
    inbox.take()
    assert not inbox.is_full


async def test_full_window_is_reported_as_stalled() -> None:
    inbox = Inbox(2)
    inbox.on_message(pushed(1))
    assert not inbox.stalled()
    inbox.on_message(pushed(2))
    assert inbox.stalled() == (CHANNEL, 1)
    assert inbox.stalled(["another"]) is None
    await message(inbox).ack()
    assert inbox.stalled([CHANNEL]) is None


class Feed:
    """A server that delivers one channel from its cursor within a window, with frames in flight in both directions."""

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
        """Restart the delivery after the cursor."""
        self.sent = self.cursor
        self.owed.clear()

    def serve(self) -> None:
        """Handle a frame of the client at the server."""
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
        """Handle a frame of the server at the client."""
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
        """Start another loop over the channel."""
        self.acks()
        self.subscribing.append(CHANNEL)
        self.up.append(None)

    def restart(self) -> None:
        """Pause and resume the subscription, as a member does: the client is not notified."""
        self.restarts += 1
        self.begin()

    def cut(self) -> None:
        self.inbox.on_connection_lost()
        self.begin()
        self.down.clear()
        self.up.clear()
        self.up.extend(None for _ in self.subscribing)

    def arrive(self) -> None:
        """Publish a message, and deliver it."""
        for step in (self.publish, self.feed, self.hear):
            step()

    def handle(self) -> None:
        """Process a message in the program."""
        for step in (self.take, self.ack, self.acks):
            step()

    def settle(self) -> None:
        """Deliver and acknowledge everything."""
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
def test_every_message_is_yielded_once_in_order_and_the_cursor_follows_the_acks(steps: list[str]) -> None:
    feed = Feed(window=2)
    for step in steps:
        STEPS[step](feed)
    feed.settle()
    assert feed.seen == list(range(1, feed.newest + 1))
    assert feed.cursor == feed.newest
    assert not feed.refused or feed.restarts


def test_loop_behind_a_full_window_sends_no_ack_until_its_delivery_has_restarted() -> None:
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


# --- handles -------------------------------------------------------------------------------------------------------------


def named(seq: int, handle: str | None, channel: str = CHANNEL) -> replies.Message:
    return msgspec.structs.replace(pushed(seq, channel), channel_handle=handle, sender_handle="planner")


def test_message_shows_handles_and_ids() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_message(named(1, "news"))
    found = message(inbox)
    assert (found.channel, found.channel_id, found.sender, found.sender_id) == ("news", CHANNEL, "planner", "agt_1")


def test_channel_is_taken_and_acknowledged_by_handle_or_id() -> None:
    inbox = Inbox(WINDOW)
    for seq in (1, 2):
        inbox.on_message(named(seq, "news"))
    assert taken(inbox, "other") == []
    assert inbox.take(["news"]) is not None
    assert taken(inbox, CHANNEL) == [2]


async def test_acks_name_the_id_and_wait_for_a_subscribe_by_handle() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_message(named(1, "news"))
    await message(inbox).ack()
    assert acks(inbox, held=["news"]) == []
    assert acks(inbox) == [(CHANNEL, 1)]


def test_subscribing_by_handle_before_the_first_message_finds_the_channel_later() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_subscribed("news", "cursor", replies.SubscribeReply("e", 0, 0, None, CHANNEL))
    inbox.on_message(pushed(1))  # of a server that pushes no handles
    assert taken(inbox, "news") == [1]
    inbox.on_subscribed("news", "first", replies.SubscribeReply("e", 0, 1, None, CHANNEL))
    assert inbox.resume_start("news") == inbox.resume_start(CHANNEL) == 1
    inbox.on_message(pushed(1))
    assert taken(inbox, CHANNEL) == [1]
    assert inbox.on_connection_lost() == [(CHANNEL, 1)]


def test_channel_with_another_handle_is_the_same_channel() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_message(named(1, "news"))
    inbox.on_message(named(2, "headlines"))
    inbox.on_message(named(1, "news", "chn_2"))  # the old handle is another channel's now
    assert taken(inbox, "headlines") == [1, 2]
    assert taken(inbox, "news") == [1]


def test_gap_names_the_channel_as_its_messages_do() -> None:
    inbox = Inbox(WINDOW)
    inbox.on_message(named(1, "news"))
    inbox.on_gap(CHANNEL, gap(2, 5, "retention"))
    assert taken(inbox) == [1, Gap("news", 2, 5, "retention")]
