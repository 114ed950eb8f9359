"""Usage as an admin reads it: over kills, restarts and several processes."""

from __future__ import annotations

from pathlib import Path

from artcafe.sdk.client import Client
from artcafe.sdk.usage_records import UsageBound, UsageItem
from tests.flows.test_end_to_end import take
from tests.flows.test_live_channels import live_channel
from tests.platform import Cast, running

CALLS = 8


async def item(cast: Cast, metric: str) -> UsageItem:
    async with cast.rest() as rest:
        (found,) = (await rest.tenant(cast.tenant).usage.get(metric=metric)).items
    return found


async def call(cast: Cast) -> None:
    """Make some requests on the tenant, each on a connection of its own, so that several processes serve them."""
    for _ in range(CALLS):
        async with Client(cast.url, cast.token) as rest:
            await rest.tenant(cast.tenant).get()


async def test_everything_counted_by_a_stopped_server_is_read_from_the_next_one(tmp_path: Path) -> None:
    with running(tmp_path) as own:
        cast = await own.tenant_with(agents=2)
        channel = await live_channel(cast)
        async with cast.agent(0) as first, cast.agent(1) as second:
            for agent in (first, second):
                await agent.subscribe(channel)
            for number in range(10):
                await first.publish(cast.channels[0], number)
                await first.publish(channel, number)
            for agent in (first, second):
                await take(agent, 20)
        assert own.stop() == 0
        own.start()
        assert (await item(cast, "messages_live")).value == 10
        assert (await item(cast, "deliveries")).value == 40
        requests = (await item(cast, "requests")).value
        assert requests is not None
        assert requests >= 22, "publishes, and two subscribes"
        assert (await item(cast, "peak_connections")).value == 2
        stored = await item(cast, "messages_stored")
        assert (stored.value, stored.exact) == (10, True)
        async with cast.rest() as rest:
            by_channel = (await rest.tenant(cast.tenant).usage.get(metric="deliveries", by="channel")).items
            assert {each.channel: each.value for each in by_channel} == {cast.channels[0]: 20, channel: 20}
            assert (await rest.tenant(cast.tenant).usage.recount()).equal


async def test_killed_server_loses_at_most_its_last_minute_and_usage_says_so(tmp_path: Path) -> None:
    with running(tmp_path) as own:
        cast = await own.tenant_with(agents=0, channels=0)
        await call(cast)
        own.kill()
        own.start()
        await call(cast)
        assert own.stop() == 0
        own.start()
        found = await item(cast, "api_calls")
        assert found.value is not None
        assert CALLS <= found.value <= 2 * CALLS
        assert not found.exact
        assert found.bound == UsageBound(servers=2, seconds=60), "the killed server, and the running one"


async def test_several_processes_add_up(tmp_path: Path) -> None:
    with running(tmp_path, ["--processes", "2"]) as own:
        cast = await own.tenant_with(agents=0, channels=0)
        await call(cast)
        assert own.stop() == 0
        own.start()
        assert (await item(cast, "api_calls")).value == CALLS
