from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import Raw

from artcafe.errors import ChannelNotFound, Forbidden, KeyReused
from artcafe.model import Role, TenantId
from artcafe.wire.envelopes import parse_envelope
from artcafe.wire.frames import Publish
from tests.gateway.gateway_app import GatewayApp, gateway_app
from tests.services.service_env import with_role


def message(it: GatewayApp, data: bytes = b"1", key: str | None = None) -> Publish:
    return Publish(it.channel.id, Raw(data), key)


@pytest.mark.promise("3b")
async def test_members_and_agents_publish_with_their_own_sender_and_idempotency_keys(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        member = await it.services.messaging.publish(it.owner, it.channel.id, message(it, key="k"))
        agent = await it.services.messaging.publish(it.principal, it.channel.id, message(it, b"2", key="k"))
        again = await it.services.messaging.publish(it.principal, it.channel.id, message(it, b"2", key="k"))

        assert (member.seq, agent.seq, agent.duplicate) == (1, 2, False)
        assert (again.seq, again.message_id, again.duplicate) == (2, agent.message_id, True)
        with pytest.raises(KeyReused):
            await it.services.messaging.publish(it.owner, it.channel.id, message(it, b"2", key="k"))
        stored = await it.services.fabric.tenant(it.owner.tenant_id).log.after(it.channel.id, 0)
        envelopes = [parse_envelope(each.envelope) for each in stored]
        assert [each.sender for each in envelopes] == ["usr:alice", it.agent.id]
        assert [each.message_id for each in envelopes] == [member.message_id, agent.message_id]


async def test_forbidden_publish_or_unknown_channel_stores_nothing(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        stranger = it.principal.__class__(agent_id=it.agent.id, tenant_id=TenantId("ten_other"), epoch=0)
        for principal, channel, error in (
            (with_role(it.owner, Role.VIEWER), it.channel.id, Forbidden),
            (stranger, it.channel.id, ChannelNotFound),
            (it.owner, "chn_none", ChannelNotFound),
            (it.owner, "*", ChannelNotFound),
        ):
            with pytest.raises(error):
                await it.services.messaging.publish(principal, channel, message(it))

        assert await it.services.fabric.tenant(it.owner.tenant_id).log.state() is None


async def test_publish_to_a_cached_channel_neither_waits_nor_reads_a_table(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        assert it.services.messaging.submit_nowait(it.principal, it.channel.id, message(it)) is None
        await it.services.messaging.publish(it.principal, it.channel.id, message(it))
        await it.tables.close()

        waiting = [it.services.messaging.submit_nowait(it.principal, it.channel.id, message(it, b"%d" % n)) for n in range(100)]
        assert [(await each).seq for each in waiting if each is not None] == list(range(2, 102))
