"""Commands in flight and their replies, without a socket."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.errors import (
    AgentAway,
    BadFrame,
    ChannelNotFound,
    Invalid,
    NotStored,
    OutcomeUnknown,
    QuotaFull,
    RateExceeded,
    RequestLost,
    Revoked,
)
from artcafe.sdk.outbox import FIRST_ID, Outbox, PendingCommand, Reply
from artcafe.wire import frames, replies

LATER = 1e9


def text_of(body: frames.Body) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(body))


class Publisher:
    """An outbox with numbers as messages, and the outcomes of each."""

    def __init__(self) -> None:
        self.outbox = Outbox(delay_s=lambda failures: 10.0 * failures)
        self.outcomes: dict[int, list[Reply | Exception]] = {}

    def publish(self, number: int, kind: str = "publish") -> PendingCommand:
        outcomes = self.outcomes.setdefault(number, [])
        if kind == "subscribe":
            return self.outbox.add(kind, text_of(frames.Subscribe(str(number))), outcomes.append, channel=str(number))
        return self.outbox.add(kind, text_of(frames.Publish("chn", msgspec.Raw(str(number).encode()))), outcomes.append)

    def sent(self, now: float = 0.0) -> dict[int, int]:
        """Return the numbers sent now, by command id."""
        bodies = {command.id: json.loads(bytes(command.body)) for command in self.outbox.due(now)}
        return {id: int(body["data"] if "data" in body else body["channel"]) for id, body in bodies.items()}

    def answer(self, id: int) -> None:
        self.outbox.on_reply(id, "publish", replies.PublishReply(id, f"msg_{id}", False))


def test_many_commands_are_in_flight_in_the_order_of_their_calls() -> None:
    publisher = Publisher()
    for number in range(5):
        publisher.publish(number)
    assert publisher.sent() == {FIRST_ID + number: number for number in range(5)}
    assert publisher.sent() == {}


def test_reply_finishes_the_command_with_its_id_once() -> None:
    publisher = Publisher()
    publisher.publish(1)
    publisher.publish(2)
    publisher.sent()
    publisher.answer(FIRST_ID + 1)
    publisher.answer(FIRST_ID + 1)
    assert publisher.outcomes == {1: [], 2: [replies.PublishReply(FIRST_ID + 1, f"msg_{FIRST_ID + 1}", False)]}
    assert len(publisher.outbox) == 1


def test_reply_of_another_kind_raises_bad_frame() -> None:
    publisher = Publisher()
    publisher.publish(1)
    publisher.sent()
    with pytest.raises(BadFrame, match="a reply of subscribe to publish"):
        publisher.outbox.on_reply(FIRST_ID, "subscribe", replies.SubscribeReply(None, 0, 0))


def test_final_error_finishes_the_command_and_a_temporary_one_retries_it() -> None:
    publisher = Publisher()
    publisher.publish(1)
    publisher.publish(2)
    publisher.sent()
    gone, full = ChannelNotFound("chn"), QuotaFull()
    publisher.outbox.on_error(FIRST_ID, gone, temporary=False, now=0)
    publisher.outbox.on_error(FIRST_ID + 1, full, temporary=True, now=0)
    assert publisher.outcomes == {1: [gone], 2: []}
    assert publisher.sent(now=9) == {}
    assert publisher.outbox.wait_s(now=9) == 1
    assert publisher.sent(now=10) == {FIRST_ID + 2: 2}


def test_each_refusal_holds_a_command_longer() -> None:
    publisher = Publisher()
    publisher.publish(1)
    for refusals, now in ((1, 0.0), (2, 100.0), (3, 200.0)):
        (id,) = publisher.sent(now)
        publisher.outbox.on_error(id, NotStored(), temporary=True, now=now)
        assert publisher.outbox.wait_s(now) == 10.0 * refusals


def test_held_publish_holds_back_later_publishes_and_no_other_kind() -> None:
    publisher = Publisher()
    publisher.publish(1)
    publisher.sent()
    publisher.outbox.on_error(FIRST_ID, NotStored(), temporary=True, now=0)
    publisher.publish(2)
    publisher.publish(3, kind="subscribe")
    assert list(publisher.sent(now=5).values()) == [3]
    assert list(publisher.sent(now=10).values()) == [1, 2]


def test_commands_without_a_reply_are_sent_again_first_after_a_lost_connection() -> None:
    publisher = Publisher()
    for number in range(3):
        publisher.publish(number)
    publisher.sent()
    publisher.publish(3)
    publisher.answer(FIRST_ID + 1)
    publisher.outbox.on_connection_lost()
    assert publisher.sent() == {FIRST_ID: 0, FIRST_ID + 1: 2, FIRST_ID + 2: 3}


def test_cancelled_wait_raises_the_known_outcome() -> None:
    publisher = Publisher()
    never_sent = publisher.publish(1)
    assert never_sent.timeout_error() is None
    publisher.sent()
    assert isinstance(never_sent.timeout_error(), OutcomeUnknown)
    publisher.outbox.on_error(FIRST_ID, NotStored(), temporary=True, now=0)
    assert isinstance(never_sent.timeout_error(), NotStored)


@pytest.mark.parametrize(("kind", "words"), [("publish", "the message was stored"), ("subscribe", "done the subscribe command")])
def test_outcome_unknown_names_the_kind_of_command(kind: str, words: str) -> None:
    publisher = Publisher()
    ask = publisher.publish(1, kind)
    publisher.sent()
    assert words in str(ask.timeout_error())
    publisher.outbox.on_connection_lost()
    assert words in str(ask.timeout_error())


def test_unknown_outcome_stays_unknown_until_a_reply_arrives() -> None:
    publisher = Publisher()
    ask = publisher.publish(1)
    publisher.sent()
    publisher.outbox.on_connection_lost()
    (id,) = publisher.sent()
    publisher.outbox.on_error(id, QuotaFull(), temporary=True, now=0)
    assert isinstance(ask.timeout_error(), OutcomeUnknown)


@pytest.mark.promise("2a", "2b")
def test_refused_repeat_of_a_publish_with_an_unknown_outcome_leaves_it_unknown() -> None:
    publisher = Publisher()
    publisher.publish(1)
    publisher.publish(2)
    (first, _) = publisher.sent()
    publisher.outbox.on_error(first, refused := Invalid("expires_at", "has passed"), temporary=False, now=0)
    assert publisher.outcomes[1] == [refused]
    publisher.outbox.on_connection_lost()
    (repeat,) = publisher.sent()
    publisher.outbox.on_error(repeat, refused, temporary=False, now=0)
    (unknown,) = publisher.outcomes[2]
    assert isinstance(unknown, OutcomeUnknown)
    assert unknown.__cause__ is refused


@pytest.mark.parametrize("is_sent", [False, True])
def test_cancelled_command_is_neither_sent_again_nor_finished(is_sent: bool) -> None:
    publisher = Publisher()
    ask = publisher.publish(1)
    if is_sent:
        publisher.sent()
    publisher.outbox.cancel(ask)
    publisher.outbox.on_connection_lost()
    publisher.answer(FIRST_ID)
    assert publisher.sent() == {}
    assert publisher.outcomes == {1: []}
    assert len(publisher.outbox) == 0


def test_reply_to_a_cancelled_command_still_takes_effect_and_its_temporary_error_is_not_retried() -> None:
    publisher = Publisher()
    dropped = [publisher.publish(number) for number in range(2)]
    publisher.sent()
    for ask in dropped:
        publisher.outbox.cancel(ask)
    assert len(publisher.outbox) == 0
    publisher.answer(FIRST_ID)
    publisher.outbox.on_error(FIRST_ID + 1, full := QuotaFull(), temporary=True, now=0)
    assert publisher.outcomes == {0: [replies.PublishReply(FIRST_ID, f"msg_{FIRST_ID}", False)], 1: [full]}
    assert publisher.sent(LATER) == {}


def test_a_channel_is_subscribing_from_the_command_to_its_reply() -> None:
    publisher = Publisher()
    for number in range(3):
        publisher.publish(number, kind="subscribe")
    assert publisher.outbox.subscribing == []
    publisher.sent()
    assert publisher.outbox.subscribing == ["0", "1", "2"]
    publisher.outbox.on_reply(FIRST_ID, "subscribe", replies.SubscribeReply(None, 0, 0))
    publisher.outbox.on_error(FIRST_ID + 1, ChannelNotFound("1"), temporary=False, now=0)
    assert publisher.outbox.subscribing == ["2"]
    publisher.outbox.on_connection_lost()
    assert publisher.outbox.subscribing == []


def test_failing_finishes_every_command_with_its_known_outcome() -> None:
    publisher = Publisher()
    publisher.publish(1)
    publisher.sent()
    publisher.publish(2)
    end = Revoked()
    publisher.outbox.fail(end)
    (unknown,) = publisher.outcomes[1]
    assert isinstance(unknown, OutcomeUnknown)
    assert unknown.__cause__ is end
    assert publisher.outcomes[2] == [end]
    assert len(publisher.outbox) == 0


class FakeConnection:
    """A server and a connection that loses, refuses and answers commands. The server stores each number once, as by its key."""

    def __init__(self) -> None:
        self.publisher = Publisher()
        self.stored: list[int] = []
        self.in_flight: dict[int, int] = {}
        self.made = 0
        self.now = 0.0

    def make(self) -> None:
        self.publisher.publish(self.made)
        self.made += 1

    def send(self) -> None:
        self.in_flight |= self.publisher.sent(self.now)

    def store(self, *, is_answered: bool) -> None:
        """Handle the oldest frame at the server; its reply arrives, or is in flight when the connection breaks."""
        if self.in_flight:
            id, number = next(iter(self.in_flight.items()))
            del self.in_flight[id]
            if number not in self.stored:
                self.stored.append(number)
            if is_answered:
                self.publisher.answer(id)

    def refuse_all(self) -> None:
        for id in self.in_flight:
            self.publisher.outbox.on_error(id, NotStored(), temporary=True, now=self.now)
        self.in_flight.clear()

    def cut(self) -> None:
        self.publisher.outbox.on_connection_lost()
        self.in_flight.clear()


STEPS: dict[str, Callable[[FakeConnection], None]] = {
    "make": FakeConnection.make,
    "send": FakeConnection.send,
    "answer": lambda connection: connection.store(is_answered=True),
    "store": lambda connection: connection.store(is_answered=False),
    "refuse": FakeConnection.refuse_all,
    "cut": FakeConnection.cut,
}


@given(st.lists(st.sampled_from(sorted(STEPS))))
def test_each_message_is_stored_once_in_order_and_finished_once(steps: list[str]) -> None:
    connection = FakeConnection()
    for step in steps:
        STEPS[step](connection)
        connection.now += 7
    connection.cut()
    connection.now = LATER
    connection.send()
    while connection.in_flight:
        connection.store(is_answered=True)
    assert connection.stored == list(range(connection.made))
    assert all(len(outcomes) == 1 for outcomes in connection.publisher.outcomes.values())
    assert len(connection.publisher.outbox) == 0


def test_request_is_sent_at_most_once() -> None:
    outcomes: list[Reply | Exception] = []
    parts: list[replies.RequestPush] = []
    outbox = Outbox(delay_s=lambda _: 10.0)

    def add() -> PendingCommand:
        text = text_of(frames.Request("agt", msgspec.Raw(b"1")))
        return outbox.add("request", text, outcomes.append, on_part=parts.append)

    add()
    (sent,) = outbox.due(0.0)
    part = replies.RequestPush(request_id="ask_1", sender="agt", more=True, data=msgspec.Raw(b"1"))
    outbox.on_reply(sent.id, "request", part)
    assert (parts, outcomes) == ([part], [])
    outbox.on_connection_lost()
    assert [type(each) for each in outcomes] == [RequestLost]
    assert outbox.due(LATER) == []

    add()
    (sent,) = outbox.due(0.0)
    outbox.on_error(sent.id, AgentAway("agt"), temporary=True, now=0.0)
    assert [type(each) for each in outcomes] == [RequestLost, AgentAway]
    add()
    (sent,) = outbox.due(0.0)
    outbox.on_error(sent.id, RateExceeded("messages_a_minute", 1, 1, None, 1.0), temporary=True, now=0.0)
    (again,) = outbox.due(LATER)
    assert again is sent, "a refusal by a rate limit says that nothing was sent"
    outbox.cancel(again)
    assert outbox.cancels() == [frames.Cancel(again.id)]
    assert outbox.cancels() == []


def test_first_command_is_sent_before_all_others_and_can_be_cancelled() -> None:
    publisher = Publisher()
    publisher.publish(1)
    publisher.publish(2)
    publisher.sent()
    publisher.outbox.on_connection_lost()
    dropped = publisher.outbox.add("status", text_of(frames.Status("idle")), lambda _: None, first=True)
    publisher.outbox.cancel(dropped)
    publisher.outbox.add("status", text_of(frames.Status("busy")), lambda _: None, first=True)
    kinds = [command.kind for command in publisher.outbox.due(0.0)]
    assert kinds == ["status", "publish", "publish"]


def too_fast(wait_s: float) -> RateExceeded:
    return RateExceeded("messages_a_minute", 10, 10, None, wait_s)


def test_command_refused_by_a_rate_limit_is_repeated_after_the_servers_wait() -> None:
    publisher = Publisher()
    publisher.publish(1)
    publisher.sent()
    publisher.outbox.on_error(FIRST_ID, too_fast(40.0), temporary=True, now=100.0)
    publisher.publish(2)
    assert publisher.sent(149.9) == {}  # 40 s and the delay of a first failure
    assert list(publisher.sent(150.1).values()) == [1, 2]
    publisher.answer(FIRST_ID + 1)
    assert publisher.outcomes[1] == [replies.PublishReply(FIRST_ID + 1, f"msg_{FIRST_ID + 1}", False)]


@pytest.mark.parametrize("wait_s", [60.1, 86_400.0])
def test_command_is_not_held_back_for_longer_than_the_program_allows(wait_s: float) -> None:
    publisher = Publisher()
    publisher.publish(1)
    publisher.sent()
    error = too_fast(wait_s)
    publisher.outbox.on_error(FIRST_ID, error, temporary=True, now=100.0)
    assert publisher.outcomes[1] == [error]


def test_command_is_not_held_back_beyond_its_callers_timeout() -> None:
    publisher, outcomes = Publisher(), list[Reply | Exception]()
    publisher.outbox.add("publish", text_of(frames.Publish("chn", msgspec.Raw(b"1"))), outcomes.append, deadline=120.0)
    publisher.sent()
    error = too_fast(30.0)
    publisher.outbox.on_error(FIRST_ID, error, temporary=True, now=100.0)
    assert outcomes == [error]


def test_program_that_wants_no_wait_gets_the_refusal_at_once() -> None:
    outbox, outcomes = Outbox(max_rate_wait_s=0.0), list[Reply | Exception]()
    outbox.add("publish", text_of(frames.Publish("chn", msgspec.Raw(b"1"))), outcomes.append)
    outbox.due(0.0)
    error = too_fast(0.5)
    outbox.on_error(FIRST_ID, error, temporary=True, now=0.0)
    assert outcomes == [error]
