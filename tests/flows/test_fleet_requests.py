"""Requests between agents on two servers with one NATS, also while servers and NATS end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from artcafe import Agent, Request
from artcafe.errors import AgentAway, ArtcafeError, RequestLost, RequestTimedOut
from tests.fleet import Fleet, running_fleet
from tests.gateway.raw_client import RawClient, open_client
from tests.platform import Cast, Platform

BOUND_S = 30


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


def at(server: Platform, cast: Cast) -> Cast:
    """Return the tenant's agents with the addresses of this server."""
    return replace(cast, url=server.url)


async def outcome(asking: Awaitable[Any]) -> Any:
    """Return the answer to a request, or its error."""
    try:
        return await asking
    except ArtcafeError as exc:
        return exc


async def once(asking: Callable[[], Awaitable[Any]]) -> Any:
    """Ask until the presence of the other agent has arrived."""
    while isinstance(found := await outcome(asking()), AgentAway):  # noqa: ASYNC110 - the other server's announcement has no event
        await asyncio.sleep(0.02)
    return found


def answering(agent: Agent) -> tuple[asyncio.Event, asyncio.Event]:
    """Let an agent answer, and return the events of a begun and of a cancelled answer to "wait"."""
    begun, ended = asyncio.Event(), asyncio.Event()

    @agent.on_request
    async def answer(request: Request) -> AsyncIterator[Any]:
        yield [request.sender, request.data, dict(request.headers)]
        if request.data == "wait":
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    return begun, ended


@pytest.mark.promise("q9", "q12", "q15")
async def test_requests_between_servers_and_their_faults(fleet: Fleet) -> None:
    """One fleet for the whole story, because each part starts from the state that the one before has left."""
    one, other = fleet.servers
    cast = await fleet.tenant_with(agents=3)
    asker, answerer = at(one, cast).agent(0), at(other, cast).agent(1)
    begun, ended = answering(answerer)
    async with asyncio.timeout(BOUND_S * 3):
        async with asker:
            async with answerer:
                there = cast.agents[1]
                assert await once(lambda: asker.ask(there, {"n": 1}, headers={"trace": "7f3a"})) == [
                    cast.agents[0], {"n": 1}, {"trace": "7f3a"},
                ]  # fmt: skip
                async with asyncio.TaskGroup() as group:
                    asked = [group.create_task(asker.ask(there, number)) for number in range(50)]
                assert [each.result()[1] for each in asked] == list(range(50))

                stream = asker.ask_stream(there, "wait")
                assert (await anext(stream))[1] == "wait"
                await begun.wait()
                await stream.aclose()
                await ended.wait()

                await nats_restarts(fleet, asker, there)
                begun.clear()
                async with asyncio.TaskGroup() as group:
                    waiting = group.create_task(outcome(last_of(asker.ask_stream(there, "wait"))))
                    await begun.wait()
                    await answerer.__aexit__(None, None, None)
                    left = await waiting
                assert isinstance(left, AgentAway)
                assert left.was_delivered is True
            away = await outcome(asker.ask(there, 1))
            assert isinstance(away, AgentAway)
            assert away.was_delivered is False
            await server_of_the_answerer_is_killed(fleet, cast, asker)
        await server_of_the_asker_stops(fleet, cast)


async def last_of(stream: AsyncIterator[Any]) -> Any:
    return [part async for part in stream][-1]


async def nats_restarts(fleet: Fleet, asker: Agent, there: str) -> None:
    """Requests that wait at a restart of NATS get an answer or `timed_out`, and later ones their answers."""
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(outcome(asker.ask(there, number, timeout_s=3))) for number in range(20)]
        fleet.nats.kill("nats-1")
        fleet.nats.start()
    for number, each in enumerate(asked):
        found = each.result()
        assert isinstance(found, ArtcafeError) or found[1] == number
    while not isinstance(await outcome(asker.ask(there, "again", timeout_s=2)), list):  # noqa: ASYNC110 - as in `once`
        await asyncio.sleep(0.05)


async def server_of_the_answerer_is_killed(fleet: Fleet, cast: Cast, asker: Agent) -> None:
    async with raw_agent(fleet.servers[1], cast, 2) as raw:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(once(lambda: asker.ask(cast.agents[2], "wait", timeout_s=4)))
            assert (await raw.next())["request"]["data"] == "wait"
            fleet.servers[1].kill()
            late = await waiting
        assert isinstance(late, RequestTimedOut)
        assert late.was_delivered is None
        away = await outcome(asker.ask(cast.agents[2], "again", timeout_s=4))
        assert isinstance(away, AgentAway), "NATS reports that nobody subscribes for the killed server"
    fleet.servers[1].start()


async def server_of_the_asker_stops(fleet: Fleet, cast: Cast) -> None:
    async with (
        raw_agent(fleet.servers[1], cast, 2) as answerer,
        at(fleet.servers[0], cast).agent(0) as asker,
        asyncio.TaskGroup() as group,
    ):
        waiting = group.create_task(once(lambda: asker.ask(cast.agents[2], "wait")))
        request = (await answerer.next())["request"]
        stopping = group.create_task(asyncio.to_thread(fleet.servers[0].stop))
        assert isinstance(await waiting, RequestLost)
        assert (await answerer.next())["cancel"] == {"request_id": request["request_id"], "reason": "asker_away"}
        await stopping


@asynccontextmanager
async def raw_agent(server: Platform, cast: Cast, number: int) -> AsyncIterator[RawClient]:
    """Connect an agent to a server, without the SDK."""
    async with open_client(server.gateway_url) as raw:
        assert "session_id" in await raw.login(cast.tenant, cast.agents[number], cast.keys[number])
        yield raw
