"""Which message a task handles, and the form in which the SDK names it."""

from __future__ import annotations

import asyncio
from contextvars import copy_context

import pytest
from msgspec import Raw

from artcafe.sdk import handling
from artcafe.sdk.handling import cause_of, handled_in
from artcafe.sdk.messages import Message
from artcafe.wire import frames, replies

TENANT = "ten_1"


def message(id: str, seq: int | None = 1) -> Message:
    pushed = replies.Message(channel="chn_1", seq=seq, prev=None, message_id=id, sender="agt_1", time="now", data=Raw(b"1"))
    return Message(pushed, 0, 0, lambda _message, _is_cumulative: None)


@pytest.fixture(autouse=True)
def no_message_is_handled() -> None:
    assert handled_in(TENANT) is None


def test_message_is_handled_until_its_loop_ends_it() -> None:
    def run() -> None:
        loop, other, one = object(), object(), message("one")
        handling.begin(one, TENANT, loop)
        handling.end(other)
        assert handled_in(TENANT) is one
        handling.end(loop)
        handling.end(loop)
        assert handled_in(TENANT) is None

    copy_context().run(run)


def test_message_of_another_tenant_is_no_cause() -> None:
    def run() -> None:
        handling.begin(message("one"), TENANT, object())
        assert handled_in("ten_2") is None

    copy_context().run(run)


@pytest.mark.parametrize("ends_outer_first", [False, True])
def test_inner_loop_comes_first_and_the_outer_one_again_after_it(ends_outer_first: bool) -> None:
    def run() -> None:
        outer, inner, one, two = object(), object(), message("one"), message("two")
        handling.begin(one, TENANT, outer)
        handling.begin(two, TENANT, inner)
        assert handled_in(TENANT) is two
        if ends_outer_first:
            handling.end(outer)
            assert handled_in(TENANT) is two
        handling.end(inner)
        assert handled_in(TENANT) is (None if ends_outer_first else one)

    copy_context().run(run)


def test_next_message_of_a_loop_replaces_the_one_before() -> None:
    def run() -> None:
        loop = object()
        handling.begin(message("one"), TENANT, loop)
        handling.begin(message("two"), TENANT, loop)
        handling.end(loop)
        assert handled_in(TENANT) is None

    copy_context().run(run)


async def test_task_keeps_the_message_it_was_started_with_when_the_loop_goes_on() -> None:
    loop, go_on = object(), asyncio.Event()
    found: list[Message | None] = []

    async def work() -> None:
        await go_on.wait()
        found.append(handled_in(TENANT))

    messages = [message("one"), message("two")]
    async with asyncio.TaskGroup() as group:
        for each in messages:
            handling.begin(each, TENANT, loop)
            group.create_task(work())
        handling.end(loop)
        go_on.set()
    assert found == messages


def test_stored_message_is_named_by_its_place_and_a_live_one_by_its_id() -> None:
    assert cause_of(message("msg_1", 42)) == frames.Cause("chn_1", 42, "msg_1")
    assert cause_of(message("msg_1", None)) == "msg_1"
    assert cause_of("msg_2") == "msg_2"
