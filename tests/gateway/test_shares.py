"""An agent above its share: its commands are all done, in order, and others do not wait for them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from artcafe.model import AgentId, AgentPrincipal, TenantId
from artcafe.services.shares import MAX_COMMANDS_PER_TURN
from tests.gateway.gateway_app import GatewayApp, gateway_app
from tests.gateway.raw_client import RawClient

SOCKETS = 4
EACH = 10 * MAX_COMMANDS_PER_TURN


def others_are_active(it: GatewayApp) -> None:
    """Make a second tenant active, which bounds the shares for some seconds."""
    share = it.services.shares.of(AgentPrincipal(agent_id=AgentId("agt_other"), tenant_id=TenantId("ten_other"), epoch=0))
    share.begin()


async def replies_to(raw: RawClient, count: int) -> list[int]:
    """Return the ids of the next `count` replies, and fail for an error."""
    ids = []
    for _ in range(count):
        frame = await raw.next()
        assert "error" not in frame, frame
        ids.append(frame["id"])
    return ids


async def test_publishes_above_the_share_are_all_stored_in_order_on_each_socket(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, AsyncExitStack() as stack:
        quiet = await it.services.channels.create(it.owner, name="quiet")
        sockets = [await stack.enter_async_context(it.connected()) for _ in range(SOCKETS)]
        for raw in sockets:
            await raw.ask("unsubscribe", channel=it.channel.id)
        others_are_active(it)
        said = [[await raw.say("publish", channel=quiet.id, data=number) for number in range(EACH)] for raw in sockets]
        for raw, ids in zip(sockets, said, strict=True):
            assert await replies_to(raw, EACH) == ids
        assert not it.services.shares.supervisor.failures


async def test_all_commands_keep_their_order_above_the_share(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        quiet = await it.services.channels.create(it.owner, name="quiet")
        await it.caught_up()
        others_are_active(it)
        expected = []
        for number in range(8):
            expected += [await raw.say("publish", channel=quiet.id, data=number) for _ in range(MAX_COMMANDS_PER_TURN)]
            expected.append(await raw.say("history", channel=quiet.id, limit=200))
            expected.append(await raw.say("status", status=f"at {number}"))
            await raw.ack(it.channel.id, 0)
        assert sorted(await replies_to(raw, len(expected))) == expected


async def test_socket_closed_while_its_commands_wait_leaves_nothing(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as gone, it.connected() as raw:
        others_are_active(it)
        for number in range(EACH):
            await gone.say("publish", channel=it.channel.id, data=number)
        gone.socket.transport.abort()
        await raw.ask("unsubscribe", channel=it.channel.id)
        assert "seq" in await raw.ask("publish", channel=it.channel.id, data=0)
        assert not any(each._read_blocks for each in it.gateway.connections())
