"""The SDK against the platform, over a working connection."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import msgspec
import pytest

from artcafe.errors import BadCredentials, ChannelNotFound, Invalid, KeyReused, Revoked, TooLarge
from artcafe.sdk.agent import Agent
from artcafe.sdk.inbox import MAX_BUFFERED
from artcafe.sdk.iteration import Messages
from artcafe.sdk.messages import Message
from artcafe.wire.frames import MAX_FRAME_BYTES
from tests.casts import recast
from tests.platform import Cast, Platform


@pytest.fixture(scope="module")
def home(platform: Platform) -> Cast:
    return asyncio.run(platform.tenant_with())


async def take(messages: Messages[Message], count: int, *, ack: bool = True) -> list[Message]:
    """Return the next messages."""
    found: list[Message] = []
    async with asyncio.timeout(20):
        async for message in messages:
            found.append(message)
            if ack:
                await message.ack()
            if len(found) == count:
                break
    return found


def data_of(messages: list[Message]) -> list[object]:
    return [message.data for message in messages]


# --- publishing ----------------------------------------------------------------------------------------------------------


async def test_message_arrives_as_it_was_published(home: Cast) -> None:
    cast = await recast(home)
    async with cast.agent() as agent:
        receipt = await agent.publish(cast.channels[0], {"größe": [1, None, 2.5]}, headers={"trace": "7f3a"}, reply_to="here")
        (message,) = await take(agent.messages(), 1)
    assert (message.channel_id, message.seq, message.message_id) == (cast.channels[0], receipt.seq, receipt.message_id)
    assert (message.data, message.headers, message.reply_to) == ({"größe": [1, None, 2.5]}, {"trace": "7f3a"}, "here")
    assert message.sender_id == cast.agents[0]
    assert abs(datetime.now(UTC) - message.time) < timedelta(minutes=1)


async def test_json_text_is_delivered_unchanged(home: Cast) -> None:
    cast = await recast(home)
    async with cast.agent() as agent:
        await agent.publish(cast.channels[0], msgspec.Raw(b'{"pi":3.1400,\n "pi":3}'))
        (message,) = await take(agent.messages(), 1)
    assert message.raw == b'{"pi":3.1400,\n "pi":3}'


async def test_agent_accepts_the_gateway_address_instead_of_the_rest_address(platform: Platform, home: Cast) -> None:
    cast = await recast(home)
    for url in (platform.url, platform.gateway_url, platform.gateway_url.removesuffix("/v1/connect")):
        async with Agent(url, tenant=cast.tenant, agent=cast.agents[0], key=cast.keys[0]) as agent:
            assert (await agent.publish(cast.channels[0], 1)).duplicate is False


async def test_missing_arguments_are_read_from_the_environment(
    platform: Platform, home: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast = await recast(home)
    with pytest.raises(Invalid, match="ARTCAFE_TENANT"):
        Agent()
    given = {"URL": platform.url, "TENANT": cast.tenant, "AGENT": cast.agents[0], "KEY": str(cast.keys[0])}
    for name, value in given.items():
        monkeypatch.setenv(f"ARTCAFE_{name}", value)
    async with Agent() as agent:
        await agent.publish(cast.channels[0], 1)


async def test_one_key_stores_one_message_and_refuses_other_content(home: Cast) -> None:
    cast = await recast(home)
    async with cast.agent() as agent:
        first = await agent.publish(cast.channels[0], 1, key="order-42")
        again = await agent.publish(cast.channels[0], 1, key="order-42")
        assert (again.seq, again.message_id, again.duplicate) == (first.seq, first.message_id, True)
        with pytest.raises(KeyReused):
            await agent.publish(cast.channels[0], 2, key="order-42")
        assert not (await agent.publish(cast.channels[0], 1)).duplicate


async def test_publishes_of_many_tasks_are_stored_in_the_order_of_their_calls(home: Cast) -> None:
    cast = await recast(home)
    async with cast.agent() as agent:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            for number in range(600):
                group.create_task(agent.publish(cast.channels[0], number))
        assert data_of(await take(agent.messages(), 600)) == list(range(600))


async def test_history_is_read_page_by_page_without_receiving_anything(home: Cast) -> None:
    cast = await recast(home)
    (channel,) = cast.channels
    async with cast.agent() as agent:
        receipts = [await agent.publish(channel, number, headers={"n": str(number)}, reply_to="here") for number in range(5)]
        page = await agent.history(channel, after=0, limit=3)
        assert ([each.data for each in page.messages], page.gap, page.has_more) == ([0, 1, 2], None, True)
        rest = await agent.history(channel, after=page.messages[-1].seq)
        assert ([each.data for each in rest.messages], rest.has_more) == ([3, 4], False)
        back = await agent.history(channel, before=receipts[2].seq)
        assert [each.seq for each in back.messages] == [receipts[1].seq, receipts[0].seq]
        first = back.messages[-1]
        assert [each.data for each in (await agent.history(channel, after=first.time)).messages] == [*range(5)]
        assert (first.sender_id, first.headers, first.reply_to, bytes(first.raw)) == (cast.agents[0], {"n": "0"}, "here", b"0")
        assert data_of(await take(agent.messages(), 5)) == [*range(5)]
        with pytest.raises(ChannelNotFound):
            await agent.history("chn_nowhere")
        with pytest.raises(Invalid, match="after"):
            await agent.history(channel, after="yesterday")


async def test_refused_publish_names_the_reason_and_affects_no_other(home: Cast) -> None:
    cast = await recast(home)
    async with cast.agent() as agent:
        with pytest.raises(ChannelNotFound, match="no channel"):
            await agent.publish("chn_nowhere", 1)
        with pytest.raises(TooLarge):
            await agent.publish(cast.channels[0], "x" * MAX_FRAME_BYTES)
        with pytest.raises(Invalid, match="data: is not JSON"):
            await agent.publish(cast.channels[0], msgspec.Raw(b'{"id":2}}'))
        with pytest.raises(TypeError):
            await agent.publish(cast.channels[0], object())
        with pytest.raises(ValueError, match="at most 540"):
            await agent.publish(cast.channels[0], 1, timeout_s=600)
        await agent.publish(cast.channels[0], "x" * (MAX_FRAME_BYTES - 300))


@pytest.mark.parametrize(
    ("invalid", "field"),
    [
        ({"tenant": "\ud800"}, "tenant_id"),
        ({"agent": "\ud800"}, "agent_id"),
        ({"agent": 5}, "agent_id"),
        ({"max_unacked": 0}, "max_unacked"),
        ({"max_unacked": "64"}, "max_unacked"),
        ({"agent": "x" * 70_000}, "the challenge command"),
    ],
)
def test_invalid_login_argument_is_refused_before_anything_is_sent(home: Cast, invalid: dict[str, Any], field: str) -> None:
    given: dict[str, Any] = {"tenant": home.tenant, "agent": home.agents[0], "key": home.keys[0]}
    with pytest.raises((Invalid, TooLarge), match=field):
        Agent(home.url, **(given | invalid))


async def test_invalid_argument_raises_in_its_own_call_only(home: Cast) -> None:
    cast = await recast(home)
    (channel,) = cast.channels
    invalid_values: list[tuple[Any, type[Exception]]] = [("\ud800", Invalid), ("x" * 70_000, TooLarge), (object(), TypeError)]
    async with cast.agent() as agent, asyncio.timeout(20), asyncio.TaskGroup() as group:
        publishing = [group.create_task(agent.publish(channel, number)) for number in range(50)]
        for invalid, expected in invalid_values:
            for call in (
                agent.set_status(invalid),
                agent.subscribe(invalid),
                agent.subscribe(channel, invalid),
                agent.history(invalid),
                agent.history(channel, after=invalid),
                agent.publish(invalid, 1),
                agent.publish(channel, invalid),
                agent.publish(channel, 1, key=invalid),
                agent.publish(channel, 1, headers={"a": invalid}),
                agent.publish(channel, 1, reply_to=invalid),
                anext(agent.messages(invalid)),
            ):
                with pytest.raises(expected):
                    await call
        with pytest.raises(Invalid, match="key"):
            await agent.publish(channel, 1, key="")
        for number, receipt in enumerate([await each for each in publishing]):
            assert receipt.seq is not None, number
        assert data_of(await take(agent.messages(), 50)) == [*range(50)]


# --- receiving -----------------------------------------------------------------------------------------------------------


async def test_loop_over_a_channel_subscribes_and_can_begin_at_the_first_message(home: Cast) -> None:
    cast = await recast(home, channels=2, subscribed=False)
    async with cast.agent() as agent:
        await agent.publish(cast.channels[0], "before")
        subscribed = await agent.subscribe(cast.channels[1])
        assert (subscribed.channel, subscribed.last) == (cast.channels[1], 0)
        assert data_of(await take(agent.messages(cast.channels[0], start="first"), 1)) == ["before"]
        await agent.publish(cast.channels[1], "after")
        assert data_of(await take(agent.messages(cast.channels[1]), 1)) == ["after"]
        with pytest.raises(ChannelNotFound):
            await take(agent.messages("chn_nowhere"), 1)


async def test_start_may_be_a_sequence_or_the_end(home: Cast) -> None:
    cast = await recast(home)
    async with cast.agent() as agent:
        receipts = [await agent.publish(cast.channels[0], number) for number in range(5)]
        await take(agent.messages(), 5)
        assert data_of(await take(agent.messages(cast.channels[0], start=receipts[3].seq or 0), 2)) == [3, 4]
        subscribed = await agent.subscribe(cast.channels[0], "new")
        assert (subscribed.cursor, subscribed.last) == (receipts[4].seq, receipts[4].seq)
        await agent.publish(cast.channels[0], 5)
        assert data_of(await take(agent.messages(), 1)) == [5]


async def test_acknowledged_messages_are_not_delivered_to_the_next_connection_and_others_are(home: Cast) -> None:
    cast = await recast(home)
    async with cast.agent() as agent:
        for number in range(4):
            await agent.publish(cast.channels[0], number)
        first, second, *_ = await take(agent.messages(), 4, ack=False)
        await second.ack()
        await first.ack()
    async with cast.agent() as agent:
        assert data_of(await take(agent.messages(), 2)) == [2, 3]


async def test_auto_ack_acknowledges_a_message_when_the_next_is_requested(home: Cast) -> None:
    cast = await recast(home)
    async with cast.agent() as agent:
        for number in range(3):
            await agent.publish(cast.channels[0], number)
        await take(agent.messages(auto_ack=True), 3, ack=False)
    async with cast.agent() as agent:
        assert data_of(await take(agent.messages(), 1)) == [2]


class LogQueue(logging.Handler):
    """Queues the text of every record."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.put_nowait(record.getMessage())


async def test_server_waits_for_acks_and_the_sdk_logs_it(home: Cast) -> None:
    cast = await recast(home)
    log, log_queue = logging.getLogger("artcafe"), LogQueue()
    log.addHandler(log_queue)
    try:
        async with cast.agent(max_unacked=4) as agent:
            for number in range(9):
                await agent.publish(cast.channels[0], number)
            messages = agent.messages()
            held = await take(messages, 4, ack=False)
            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                fifth = group.create_task(take(messages, 1))
                expected = f"4 messages of {cast.channels[0]} are unacknowledged, the oldest is {held[0].seq},"
                assert expected in await log_queue.texts.get()
                await held[-1].ack(cumulative=True)
            assert data_of(await fifth) == [4]
            assert data_of(await take(messages, 4)) == [5, 6, 7, 8]
    finally:
        log.removeHandler(log_queue)


async def test_without_a_window_a_slow_program_still_gets_answers_to_its_publishes(home: Cast) -> None:
    cast = await recast(home, channels=2)
    many = MAX_BUFFERED + 500
    async with cast.agent(max_unacked=None) as agent:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            for number in range(many):
                group.create_task(agent.publish(cast.channels[0], number))
        seen = []
        async with asyncio.timeout(20):
            async for message in agent.messages(cast.channels[0]):
                seen.append(message.data)
                if len(seen) % 100 == 1:
                    await agent.publish(cast.channels[1], message.data)
                if len(seen) == many:
                    break
        assert seen == list(range(many))


async def test_loops_over_different_channels_do_not_take_each_others_messages(home: Cast) -> None:
    cast = await recast(home, channels=2)
    one, two = cast.channels
    async with cast.agent() as agent, asyncio.timeout(20), asyncio.TaskGroup() as group:
        ones, twos = (group.create_task(take(agent.messages(channel), 3)) for channel in (one, two))
        for number in range(3):
            await agent.publish(two, -number)
            await agent.publish(one, number)
        assert data_of(await ones) == [0, 1, 2]
        assert data_of(await twos) == [0, -1, -2]


# --- the life of an agent ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["agent", "key", "tenant"])
async def test_refused_login_raises_when_the_block_is_entered(platform: Platform, home: Cast, wrong: str) -> None:
    cast = await recast(home, agents=2)
    async with home.rest() as rest:
        other = await rest.create_tenant("Other")
    claims = {
        "agent": (cast.tenant, "agt_nobody", cast.keys[0]),
        "key": (cast.tenant, cast.agents[0], cast.keys[1]),
        "tenant": (other.id, cast.agents[0], cast.keys[0]),
    }
    tenant, agent, key = claims[wrong]
    with pytest.raises(BadCredentials):
        async with Agent(platform.url, tenant=tenant, agent=agent, key=key):
            pytest.fail("the login must be refused")


async def disable(cast: Cast) -> None:
    async with httpx2.AsyncClient(base_url=cast.url, headers={"Authorization": f"Bearer {cast.token}"}) as http:
        path = f"/v1/tenants/{cast.tenant}/agents/{cast.agents[0]}"
        (await http.patch(path, json={"status": "disabled"})).raise_for_status()


async def test_revoked_agent_raises_in_every_waiting_call_and_afterwards(home: Cast) -> None:
    cast = await recast(home)
    async with cast.agent() as agent:
        waiting = anext(agent.messages())
        await disable(cast)
        async with asyncio.timeout(6):
            with pytest.raises(Revoked):
                await waiting
        with pytest.raises(Revoked):
            await agent.publish(cast.channels[0], 1)
        with pytest.raises(Revoked):
            await anext(agent.messages())


async def test_leaving_waits_for_publishes_and_ends_the_loops_of_other_tasks(home: Cast) -> None:
    cast = await recast(home)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        async with cast.agent() as agent:
            publishing = [group.create_task(agent.publish(cast.channels[0], number)) for number in range(100)]
            looping = group.create_task(collect(agent))
            await asyncio.sleep(0)
        assert {receipt.duplicate for receipt in [await each for each in publishing]} == {False}
        assert len(await looping) <= 100
    with pytest.raises(RuntimeError, match="closed"):
        await agent.publish(cast.channels[0], 1)
    assert [message async for message in agent.messages()] == []


async def collect(agent: Agent) -> list[Message]:
    return [message async for message in agent.messages()]


async def test_exception_of_the_program_is_raised_unchanged(home: Cast) -> None:
    cast = await recast(home)
    with pytest.raises(LookupError, match="mine"):
        async with cast.agent():
            raise LookupError("mine")


async def test_cancelled_program_still_sends_its_acks(home: Cast) -> None:
    cast = await recast(home)
    acked = asyncio.Event()

    async def program() -> None:
        async with cast.agent() as agent:
            await agent.publish(cast.channels[0], "first")
            await take(agent.messages(), 1)
            acked.set()
            await asyncio.Event().wait()

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        running = group.create_task(program())
        await acked.wait()
        running.cancel()
    assert running.cancelled()
    async with cast.agent() as agent:
        await agent.publish(cast.channels[0], "second")
        assert data_of(await take(agent.messages(), 1)) == ["second"]


async def test_agent_works_only_within_its_block(home: Cast) -> None:
    cast = await recast(home)
    agent = cast.agent()
    with pytest.raises(RuntimeError, match="async with"):
        await agent.publish(cast.channels[0], 1)
    with pytest.raises(RuntimeError, match="async with"):
        agent.messages()
    async with agent:
        with pytest.raises(ValueError, match="start needs channels"):
            agent.messages(start="first")
