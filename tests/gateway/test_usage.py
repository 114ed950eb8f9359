"""What the gateway counts in a tenant's usage."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from artcafe.model import Channel, ChannelType
from artcafe.rules.pages import PageRequest
from artcafe.rules.usage import Attribution, Metric
from tests.gateway.gateway_app import GatewayApp, gateway_app, until


async def total(it: GatewayApp, metric: Metric) -> int | None:
    """Write the counts, and return a metric of this month."""
    await it.services.usage_counters.flush()
    (item,) = (await it.services.usage.list(it.owner, it.services.usage.query(None, metric, None, None), PageRequest())).items
    return item.value


async def parts(it: GatewayApp, metric: Metric, by: Attribution) -> dict[str, int | None]:
    """Return the parts of a metric of this month that are written."""
    page = await it.services.usage.list(it.owner, it.services.usage.query(None, metric, by, None), PageRequest())
    return {item.key.part.id: item.value for item in page.items if item.key.part is not None}


async def subscribed(it: GatewayApp, type: ChannelType = ChannelType.BROADCAST) -> Channel:
    """Create another channel, with the agent subscribed to it."""
    channel = await it.services.channels.create(it.owner, name="another", type=type)
    await it.services.subscriptions.put(it.owner, channel.id, it.agent.id)
    return channel


@pytest.mark.parametrize("window", [{}, {"max_unacked": 64}, {"max_unacked": 2}], ids=["no window", "wide", "narrow"])
async def test_each_message_is_counted_once_for_each_socket_it_was_sent_to(tmp_path: Path, window: dict[str, int]) -> None:
    async with gateway_app(tmp_path) as it:
        other = await subscribed(it)
        for number in range(3):
            await it.publish(b"%d" % number)  # the backlog
        async with it.connected(**window) as one, it.connected(**window) as two:
            await until(lambda: [len(each.deliveries) for each in it.gateway.connections()] == [2, 2])  # before the first ack
            for raw in (one, two):
                for number in range(3):
                    message = await raw.message()
                    assert message["data"] == number
                    await raw.ack(it.channel.id, message["seq"])
            await it.caught_up()
            for number in range(3, 8):
                await it.publish(b"%d" % number)
                for raw in (one, two):
                    message = await raw.message()
                    await raw.ack(it.channel.id, message["seq"])
            await it.publish(b"8", other)
            for raw in (one, two):
                assert (await raw.message())["channel"] == other.id
            assert await total(it, Metric.DELIVERIES) == 2 * 9
            assert await parts(it, Metric.DELIVERIES, Attribution.CHANNEL) == {it.channel.id: 16, other.id: 2}
            assert await parts(it, Metric.DELIVERIES, Attribution.AGENT) == {it.agent.id: 18}
            await it.publish(b"9", other)
            for raw in (one, two):
                await raw.message()
        await until(lambda: not it.gateway.connections())
        assert await total(it, Metric.DELIVERIES) == 2 * 10, "with the counts of feeds that are closed"
        assert await parts(it, Metric.DELIVERIES, Attribution.AGENT) == {it.agent.id: 20}


async def test_messages_shown_to_people_and_live_messages_are_counted(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        live = await subscribed(it, type=ChannelType.LIVE)
        async with it.connected_person() as person, it.connected() as agent:
            assert await person.ask("watch", channel=live.id) == {"channel": live.id}
            await it.caught_up()
            for number in range(4):
                await it.say(b"%d" % number, live)
            for raw in (agent, person):
                assert await raw.messages(4) == [0, 1, 2, 3]
            assert await total(it, Metric.MESSAGES_LIVE) == 4
            assert await total(it, Metric.DELIVERIES) == 8
            assert await parts(it, Metric.DELIVERIES, Attribution.AGENT) == {it.agent.id: 4, "usr:viewer@example.com": 4}
            assert await parts(it, Metric.MESSAGES_LIVE, Attribution.AGENT) == {it.owner.sender: 4}


async def test_commands_are_counted_but_not_acks_and_logins(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        await it.caught_up()
        for number in range(20):
            assert "seq" in await raw.ask("publish", channel=it.channel.id, data=number)
        assert "code" in await raw.ask("publish", channel="chn_none", data=1)
        assert await raw.ask("status", status="busy") == {"status": "busy"}
        for message in [await raw.message() for _ in range(20)]:
            await raw.ack(it.channel.id, message["seq"])
        assert "messages" in await raw.ask("history", channel=it.channel.id)
        assert await total(it, Metric.REQUESTS) == 23
        assert "session_id" in await raw.ask("connect", access_token=it.token())
        assert await total(it, Metric.REQUESTS) == 24, "a further connect is a command"
        assert await parts(it, Metric.REQUESTS, Attribution.AGENT) == {it.agent.id: 24}


async def test_connection_minutes_and_peak_are_those_of_the_clock(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        start = it.clock()
        it.clock.ahead += start.replace(minute=0, second=10) + timedelta(hours=1) - start  # all in one hour
        await it.services.usage_counters.flush()
        async with it.connected():
            async with it.connected():
                it.clock.ahead += timedelta(minutes=10)
                await it.services.usage_counters.flush()
            await until(lambda: len(it.gateway.connections()) == 1)
            it.clock.ahead += timedelta(minutes=7)
        await until(lambda: not it.gateway.connections())
        assert await total(it, Metric.CONNECTION_MINUTES) == 27
        assert await total(it, Metric.PEAK_CONNECTIONS) == 2
        assert await parts(it, Metric.CONNECTION_MINUTES, Attribution.AGENT) == {it.agent.id: 27}
