"""Limits of requests to agents, and floods: of requests, of subscribe commands, and of an agent's inbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from artcafe.rules.inboxes import inbox_of
from artcafe.rules.usage import Metric
from artcafe.wire import frames
from tests.gateway.gateway_app import GatewayApp, gateway_app
from tests.gateway.raw_client import RawClient
from tests.gateway.test_usage import total

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayApp]:
    """Yield the server shared by the tests that set no limit of the tenant."""
    async with gateway_app(tmp_path_factory.mktemp("server")) as made:
        yield made


async def ask(it: GatewayApp, asker: RawClient, data: object = 1) -> int:
    """Send a request to the agent, and return its id."""
    return await asker.say("request", agent=it.agent.id, data=data, timeout_s=30)


async def refusal(it: GatewayApp, asker: RawClient, data: object = 1) -> dict[str, Any]:
    """Send a request that is refused, and return the error."""
    id, frame = await ask(it, asker, data), await answer_to(asker)
    assert frame["id"] == id
    error: dict[str, Any] = frame["error"]
    return error


async def answer_to(asker: RawClient) -> dict[str, Any]:
    """Return the next answer; pushes about the limits may come before it."""
    while "limits" in (frame := await asker.next()):
        pass
    return frame


async def pushed(answerer: RawClient) -> str:
    """Return the id of the next request of a socket that answers."""
    frame = answerer.pushes.pop(0) if answerer.pushes else await answerer.next()
    return str(frame["request"]["request_id"])


async def test_data_of_a_request_is_freed_once_the_agent_has_it(server: GatewayApp) -> None:
    it = server
    async with it.connected() as answerer:
        body = frames.Request(it.agent.id, msgspec.Raw(b'"work"'), timeout_s=30)
        pending, answered = await it.services.requests.ask(it.principal, body)
        request_id = await pushed(answerer)
        assert pending.body is None
        await answerer.ask("reply", request_id=request_id, data="done")
        assert bytes(await answered) == b'"done"'


@pytest.mark.promise("q16")
@pytest.mark.parametrize(
    ("bound", "whose"), [("MAX_PENDING_OF_TENANT", "this tenant"), ("MAX_PENDING", "this server")], ids=["tenant", "server"]
)
async def test_pending_requests_of_a_tenant_and_of_the_server_are_limited(
    server: GatewayApp, monkeypatch: pytest.MonkeyPatch, bound: str, whose: str
) -> None:
    it = server
    monkeypatch.setattr(f"artcafe.services.requests.{bound}", 2)
    async with it.connected(max_requests=0) as asker, it.connected() as answerer:
        waiting = [await ask(it, asker) for _ in range(2)]
        refused = await refusal(it, asker)
        assert (refused["code"], refused["temporary"]) == ("too_many_pending", True)
        assert whose in refused["message"]
        for id in waiting:
            await answerer.ask("reply", request_id=await pushed(answerer), data="done")
            assert (await asker.next())["id"] == id
        again = await ask(it, asker)
        await answerer.ask("reply", request_id=await pushed(answerer), data="done")
        assert (await asker.next())["id"] == again


@pytest.mark.promise("q17", "q19")
async def test_request_counts_as_one_message_of_the_minute_whatever_its_answers_and_is_not_metered(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected(max_requests=0) as asker, it.connected() as answerer:
        await it.set_limits(messages_a_minute=2)
        for _ in range(2):
            id = await asker.say("request", agent=it.agent.id, data=1, max_replies=5)
            request_id = await pushed(answerer)
            for part in range(5):
                await answerer.ask("reply", request_id=request_id, data=part, more=part < 4)
            answers = [await answer_to(asker) for _ in range(5)]
            assert [(each["id"], each["request"]["data"]) for each in answers] == [(id, part) for part in range(5)]
        refused = await refusal(it, asker)
        assert (refused["code"], refused["limit"]["name"]) == ("too_fast", "messages_a_minute")
        assert await answerer.is_quiet()
        assert not await total(it, Metric.MESSAGES_STORED)


@pytest.mark.promise("q18")
async def test_data_of_a_request_has_the_limit_of_a_message(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected(max_requests=0) as asker, it.connected() as answerer:
        await it.set_limits(message_bytes=10)
        refused = await refusal(it, asker, "x" * 9)
        assert (refused["code"], refused["limit"]["name"], refused["limit"]["used"]) == ("limit_reached", "message_bytes", 11)
        await ask(it, asker, "x" * 8)
        await answerer.ask("reply", request_id=await pushed(answerer), data="done")
        assert (await asker.next())["request"]["data"] == "done"


async def test_flood_of_subscribe_commands_makes_one_subscription_and_leaves_the_socket_working(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        for number in range(1000):
            await raw.send(id=100 + number, subscribe={"channel": it.channel.id})
        answers = [await raw.next() for _ in range(1000)]
        assert {"subscribe" in each for each in answers} == {True}
        seq = (await raw.ask("publish", channel=it.channel.id, data="after it"))["seq"]
        assert (await raw.message())["seq"] == seq
        assert await raw.is_quiet()
        rows = await it.services.subscriptions.list_of_agent(it.owner, it.agent.id)
    assert [row.channel_id for row in rows.items] == [it.channel.id]


async def test_flood_of_an_inbox_waits_behind_the_receivers_window_and_ends_at_the_limit_of_the_minute(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as flooder, it.connected(max_unacked=1) as receiver:
        await it.set_limits(messages_a_minute=20)
        inbox = inbox_of(it.agent.id)
        codes = [(await flooder.ask("publish", channel=inbox, data=number)).get("code") for number in range(25)]
        assert codes == [*[None] * 20, *["too_fast"] * 5]
        first = await receiver.message()
        assert first["data"] == 0
        await receiver.ack(inbox, first["seq"])
        assert (await receiver.message())["data"] == 1
        assert await receiver.is_quiet(), "the others wait for an ack"
