"""Functions of a program that handle messages: acknowledging, failures, typed data, and closing."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass
from typing import Any

import msgspec
import pydantic
import pytest
from websockets.asyncio.server import ServerConnection

from artcafe import Agent, Failure, Message, StateEvent, TypedMessage
from artcafe.errors import ChannelNotFound, PayloadMismatch, Revoked, Unavailable
from artcafe.sdk.keys import load_signer
from tests.casts import recast
from tests.platform import Cast, Platform
from tests.sdk.scripted import CHANNEL, agent_at, gateway, hear, let_in, message, say

BOUND_S = 60


@pytest.fixture(scope="module")
def home(platform_on_a_file: Platform) -> Cast:
    return asyncio.run(platform_on_a_file.tenant_with())


@pytest.fixture
async def cast(home: Cast) -> Cast:
    return await recast(home)


async def queue_of(cast: Cast, **options: Any) -> str:
    """Return a queue that the cast's agent is subscribed to, as it is to its dead letters."""
    async with cast.rest() as rest:
        queue = await rest.tenant(cast.tenant).channels.create("orders", type="queue", back_off=[0], **options)
        for channel in (queue.id, queue.dead_letter or ""):
            await rest.tenant(cast.tenant).subscriptions.create(channel, cast.agents[0])
    return queue.id


async def left_over(cast: Cast) -> list[object]:
    """Return the unacknowledged messages of the first channel, and acknowledge them."""
    async with cast.agent() as agent:
        await agent.publish(cast.channels[0], "end")
        found: list[object] = []
        async for each in agent.messages(cast.channels[0], auto_ack=True):
            if each.data == "end":
                return found
            found.append(each.data)
    return found


async def test_messages_are_acknowledged_when_the_function_returns_and_handled_in_order(cast: Cast) -> None:
    agent, seen, done = cast.agent(), list[object](), asyncio.Event()

    @agent.on(cast.channels[0])
    async def handle(message: Message) -> None:
        await asyncio.sleep(0)
        seen.append(message.data)
        if message.data == 19:
            done.set()

    async with asyncio.timeout(BOUND_S):
        async with agent:
            for number in range(20):
                await agent.publish(cast.channels[0], number)
            await done.wait()
        assert seen == [*range(20)]
        assert await left_over(cast) == []


async def test_up_to_concurrency_messages_are_handled_at_once_and_closing_waits_for_them(cast: Cast) -> None:
    agent, running, finished = cast.agent(), asyncio.Semaphore(0), list[object]()
    allowed = asyncio.Event()

    @agent.on(cast.channels[0], concurrency=3)
    async def handle(message: Message) -> None:
        running.release()
        await allowed.wait()
        finished.append(message.data)

    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
        await agent.start()
        for number in range(5):
            await agent.publish(cast.channels[0], number)
        for _ in range(3):
            await running.acquire()
        assert running.locked()
        closing = group.create_task(agent.close())
        await asyncio.sleep(0)
        allowed.set()
        await closing
        assert sorted(map(str, finished)) == ["0", "1", "2"]
        assert await left_over(cast) == [3, 4]


async def test_failing_message_is_tried_again_in_order_and_then_given_to_the_function_for_failures(cast: Cast) -> None:
    agent, seen, failures = cast.agent(), list[object](), list[Failure]()
    done = asyncio.Event()

    @agent.on(cast.channels[0], attempts=3)
    def handle(message: Message) -> None:
        seen.append(message.data)
        if message.data == "poison" or (message.data == "flaky" and seen.count("flaky") == 1):
            raise ValueError(message.data)
        if message.data == "last":
            done.set()

    @agent.on_failure
    async def give_up(failure: Failure) -> None:
        failures.append(failure)
        if len(failures) == 1:
            raise KeyError("the store of failures is away")

    async with asyncio.timeout(BOUND_S):
        async with agent:
            for data in ("flaky", "poison", "last"):
                await agent.publish(cast.channels[0], data)
            await done.wait()
        assert seen == ["flaky"] * 2 + ["poison"] * 4 + ["last"]
        assert [(each.message.data, repr(each.error), each.attempts) for each in failures] == [
            ("poison", "ValueError('poison')", 3),
            ("poison", "ValueError('poison')", 4),
        ]
        assert await left_over(cast) == []


async def test_message_whose_function_always_raises_is_never_lost_and_stops_no_other_channel(home: Cast) -> None:
    cast = await recast(home, channels=2)
    agent, tries, other = cast.agent(), asyncio.Semaphore(0), asyncio.Event()

    @agent.on(cast.channels[0])
    def fail(message: Message) -> None:
        tries.release()
        raise ValueError(message.data)

    agent.on(cast.channels[1])(lambda _: other.set())
    async with asyncio.timeout(BOUND_S):
        async with agent:
            for number in range(2):
                await agent.publish(cast.channels[0], number)
            for _ in range(3):
                await tries.acquire()
            await agent.publish(cast.channels[1], "unaffected")
            await other.wait()
        assert await left_over(cast) == [0, 1]


async def test_queue_gets_a_failed_message_back_and_moves_it_to_its_dead_letters(cast: Cast) -> None:
    queue = await queue_of(cast, max_deliveries=2)
    agent, deliveries, done = cast.agent(), list[Any](), asyncio.Event()

    @agent.on(queue)
    def handle(message: Message) -> None:
        deliveries.append((message.data, message.deliveries))
        if message.data == "poison" or message.deliveries == 1:
            raise ValueError("not this time")

    @agent.on(await dead_of(cast, queue))
    def bury(message: Message) -> None:
        deliveries.append(("dead", message.data))
        done.set()

    async with asyncio.timeout(BOUND_S), agent:
        await agent.publish(queue, "flaky")
        await agent.publish(queue, "poison")
        await done.wait()
    expected = [(data, number) for data in ("flaky", "poison") for number in (1, 2)]
    assert sorted(deliveries, key=str) == sorted([*expected, ("dead", "poison")], key=str)


async def dead_of(cast: Cast, queue: str) -> str:
    async with cast.rest() as rest:
        return (await rest.tenant(cast.tenant).channels.get(queue)).dead_letter or ""


async def test_direct_messages_have_a_function_of_their_own(home: Cast) -> None:
    cast = await recast(home, agents=2, channels=0)
    planner, worker = cast.agent(0), cast.agent(1)
    answered: asyncio.Queue[object] = asyncio.Queue()

    @worker.on_direct
    async def work(message: Message) -> None:
        await message.reply(message.data + 1)

    @planner.on_direct(concurrency=2)
    async def collect(message: Message) -> None:
        answered.put_nowait((message.data, message.is_direct, message.caused_by is not None))

    async with asyncio.timeout(BOUND_S), planner, worker:
        await planner.send(cast.agents[1], 1)
        assert await answered.get() == (2, True, True)


async def test_start_raises_when_a_function_cannot_subscribe_and_run_raises_for_one_registered_later(cast: Cast) -> None:
    agent = cast.agent()
    agent.on("no-such-channel")(print)
    async with asyncio.timeout(BOUND_S):
        with pytest.raises(ChannelNotFound):
            await agent.start()
        later = cast.agent()
        async with later:
            later.on("no-such-channel")(print)
            with pytest.raises(ChannelNotFound):
                await later.run()


async def test_functions_are_checked_and_replaced_when_they_are_registered(cast: Cast) -> None:
    agent, seen = cast.agent(), asyncio.Queue[object]()
    with pytest.raises(ValueError, match="name the channels"):
        agent.on()(print)
    with pytest.raises(ValueError, match="at least 1"):
        agent.on("news", concurrency=0)(print)

    async def generator(message: Message) -> Any:
        yield message

    with pytest.raises(TypeError, match="generator"):
        agent.on("news")(generator)
    with pytest.raises(TypeError, match="cannot be read"):
        agent.on("news", type=asyncio.Event)(print)
    agent.on("news", "weather")(print)
    with pytest.raises(ValueError, match="news already"):
        agent.on("news")(print)
    agent = cast.agent()
    agent.on(cast.channels[0])(lambda message: seen.put_nowait(("old", message.data)))
    async with asyncio.timeout(BOUND_S), agent:
        await agent.publish(cast.channels[0], 1)
        assert await seen.get() == ("old", 1)
        agent.on(cast.channels[0])(lambda message: seen.put_nowait(("new", message.data)))
        await agent.publish(cast.channels[0], 2)
        assert (await seen.get())[1] == 2  # type: ignore[index]  # a pair
        await agent.publish(cast.channels[0], 3)
        assert await seen.get() == ("new", 3)


async def test_run_starts_the_agent_and_sigterm_ends_it_after_the_message_that_is_being_handled(cast: Cast) -> None:
    agent, before = cast.agent(), signal.getsignal(signal.SIGTERM)

    @agent.on(cast.channels[0])
    async def handle(message: Message) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        while agent._ended.is_set() is False:  # noqa: ASYNC110 - the signal arrives between two steps
            await asyncio.sleep(0.01)

    async with asyncio.timeout(BOUND_S), cast.agent() as other:
        await other.publish(cast.channels[0], "work")
        await agent.run()
        assert (agent.state, signal.getsignal(signal.SIGTERM)) == ("closed", before)
        assert await left_over(cast) == []


async def test_run_is_cancelled_and_the_message_that_was_being_handled_is_delivered_again(cast: Cast) -> None:
    agent, begun = cast.agent(), asyncio.Event()

    @agent.on(cast.channels[0])
    async def handle(message: Message) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group, cast.agent() as other:
        running = group.create_task(agent.run(signals=False))
        await other.publish(cast.channels[0], "work")
        await begun.wait()
        running.cancel()
        await asyncio.wait([running])
        assert await left_over(cast) == ["work"]


# --- typed data ----------------------------------------------------------------------------------------------------------


class Order(msgspec.Struct):
    number: int


@dataclass
class OrderData:
    number: int


class OrderModel(pydantic.BaseModel):
    number: int


@pytest.mark.parametrize("kind", [Order, OrderData, OrderModel])
async def test_data_is_validated_and_a_mismatch_goes_to_the_function_for_failures(cast: Cast, kind: type[Any]) -> None:
    agent, got, failures = cast.agent(), asyncio.Queue[object](), list[Failure]()

    @agent.on(cast.channels[0], type=kind)
    def handle(message: TypedMessage[Any]) -> None:
        got.put_nowait(message.data)

    agent.on_failure(failures.append)
    async with asyncio.timeout(BOUND_S):
        async with agent:
            for data in ({"number": "seven"}, {"number": 7}):
                await agent.publish(cast.channels[0], data)
            assert await got.get() == kind(number=7)
        (failure,) = failures
        assert isinstance(failure.error, PayloadMismatch)
        assert (failure.message.data, failure.attempts, "number" in str(failure.error)) == ({"number": "seven"}, 0, True)
        assert await left_over(cast) == []


async def test_loop_raises_a_mismatch_continues_after_it_and_uses_the_function_for_failures(cast: Cast) -> None:
    async with asyncio.timeout(BOUND_S), cast.agent() as agent:
        orders = agent.messages(cast.channels[0], type=Order)
        for data in (1, {"number": 7}, None, {"number": 8}):
            await agent.publish(cast.channels[0], data)
        with pytest.raises(PayloadMismatch) as mismatch:
            await anext(orders)
        assert isinstance(mismatch.value.received, Message)
        await mismatch.value.received.ack()
        first = await anext(orders)
        assert first.data == Order(7)
        await first.ack()
        failures = list[Failure]()
        agent.on_failure(failures.append)
        second = await anext(orders)
        assert (second.data, [each.message.data for each in failures]) == (Order(8), [None])
        await second.ack()
    assert await left_over(cast) == []


async def test_mismatch_in_a_queue_goes_to_its_dead_letters_from_functions_and_loops(cast: Cast) -> None:
    queue = await queue_of(cast)
    dead = await dead_of(cast, queue)
    agent, got = cast.agent(), asyncio.Queue[object]()
    async with asyncio.timeout(BOUND_S), agent:
        letters = agent.messages(dead, auto_ack=True)
        orders = agent.messages(queue, type=Order, auto_ack=True)
        await agent.publish(queue, "by the loop")
        await agent.publish(queue, {"number": 1})
        assert (await anext(orders)).data.number == 1
        letter = await anext(letters)
        assert (letter.data, letter.dead_letter and letter.dead_letter.reason) == ("by the loop", "rejected")
        agent.on(queue, type=Order)(lambda message: got.put_nowait(message.data.number))
        await agent.publish(queue, "by the function")
        await agent.publish(queue, {"number": 2})
        assert await got.get() in {1, 2}  # The loop had not requested the next message yet.
        assert (await anext(letters)).data == "by the function"


# --- state ---------------------------------------------------------------------------------------------------------------


async def test_program_is_notified_of_each_change_of_the_connection(home: Cast) -> None:
    events: asyncio.Queue[StateEvent] = asyncio.Queue()
    visits = 0

    async def serve(socket: ServerConnection) -> None:
        nonlocal visits
        visits += 1
        await let_in(socket)
        if visits == 1:
            await say(socket, gap={"channel": CHANNEL, "from": 1, "to": 2, "reason": "retention"})
            await say(socket, message=message(3))
            await hear(socket)  # the ack of the message
            await socket.close(1012)
        else:
            await socket.close(4503, "revoked")

    async with asyncio.timeout(BOUND_S), gateway(serve) as url:
        agent: Agent = agent_at(url, load_signer(home.keys[0]))
        assert agent.state == "closed"

        @agent.on_state
        async def fail(event: StateEvent) -> None:
            raise ValueError(event.kind)

        agent.on_state(events.put_nowait)
        await agent.start()
        assert (await events.get()).kind == "connected"
        gap = await events.get()
        assert (gap.kind, gap.gap and gap.gap.last) == ("gap", 2)
        await (await anext(agent.messages())).ack()
        lost = await events.get()
        assert (lost.kind, type(lost.error)) == ("lost", Unavailable)
        assert (await events.get()).kind == "connected"
        revoked = await events.get()
        assert (revoked.kind, type(revoked.error), agent.state) == ("revoked", Revoked, "revoked")
        await agent.close()


async def test_agent_that_is_disabled_is_notified_and_run_raises_it(cast: Cast) -> None:
    agent, events = cast.agent(), asyncio.Queue[StateEvent]()
    agent.on_state(events.put_nowait)
    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group, cast.rest() as rest:
        await agent.start()
        assert agent.state == "connected"

        async def run() -> None:
            with pytest.raises(Revoked):
                await agent.run()

        group.create_task(run())
        await rest.tenant(cast.tenant).agents.update(cast.agents[0], status="disabled")
        assert [(await events.get()).kind, (await events.get()).kind] == ["connected", "revoked"]
    await agent.close()
