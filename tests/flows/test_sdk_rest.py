"""The REST client against the platform."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from artcafe.errors import (
    AgentNotFound,
    BadCredentials,
    ChannelNotFound,
    Forbidden,
    Invalid,
    SubscriptionNotFound,
    TenantNotFound,
)
from artcafe.sdk.client import Client
from artcafe.sdk.keys import load_signer
from artcafe.sdk.records import Me
from tests import ssh_keygen
from tests.platform import Cast, Platform


@pytest.fixture(scope="module")
def cast(platform: Platform) -> Cast:
    return asyncio.run(platform.tenant_with(agents=2, channels=2))


async def test_created_objects_are_listed_page_by_page(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("artcafe.sdk.http.PAGE", 1)
    async with cast.rest() as rest:
        assert [tenant.id async for tenant in rest.tenants()] == [cast.tenant]
        assert sorted([agent.id async for agent in rest.tenant(cast.tenant).agents.list()]) == sorted(cast.agents)
        assert sorted([channel.id async for channel in rest.tenant(cast.tenant).channels.list()]) == sorted(cast.channels)
        subscriptions = [each async for each in rest.tenant(cast.tenant).subscriptions.list(cast.channels[0])]
        assert sorted(each.agent_id for each in subscriptions) == sorted(cast.agents)


async def test_answer_contains_the_created_object(cast: Cast) -> None:
    async with cast.rest() as rest:
        found = {agent.id: agent async for agent in rest.tenant(cast.tenant).agents.list()}[cast.agents[0]]
        (tenant,) = [tenant async for tenant in rest.tenants()]
    assert found.public_key == " ".join(ssh_keygen.public_line(cast.keys[0]).split()[:2])
    assert found.fingerprint == ssh_keygen.fingerprint(ssh_keygen.public_line(cast.keys[0]))
    assert (found.status, tenant.role) == ("active", "owner")
    assert found.created_at is not None
    assert found.created_at.tzinfo is not None


async def test_repeated_request_with_its_key_creates_one_object(cast: Cast) -> None:
    async with cast.rest() as rest:
        first, second = [await rest.create_tenant("Twice", key="once") for _ in range(2)]
    assert first.id == second.id


async def test_agent_logs_in_with_its_key_and_acts_as_itself(cast: Cast) -> None:
    async with Client(cast.url) as rest:
        token = await rest.login(cast.tenant, cast.agents[0], load_signer(cast.keys[0]))
        assert (token.token_type, token.expires_in) == ("Bearer", 900)
        first = await rest.tenant(cast.tenant).messages.publish(cast.channels[0], {"by": "rest"}, key="k")
        again = await rest.tenant(cast.tenant).messages.publish(cast.channels[0], {"by": "rest"}, key="k")
        assert (again.seq, again.duplicate) == (first.seq, True)
        cards = [agent async for agent in rest.tenant(cast.tenant).agents.list()]
        assert {card.public_key for card in cards} == {None}
        with pytest.raises(Forbidden):
            await rest.tenant(cast.tenant).channels.create("not for agents")
        with pytest.raises(ChannelNotFound):
            await rest.tenant(cast.tenant).messages.publish("chn_nowhere", 1)
        with pytest.raises(TenantNotFound):
            await rest.tenant("ten_other").messages.publish(cast.channels[0], 1)


async def test_login_with_another_agents_key_is_refused(cast: Cast) -> None:
    async with Client(cast.url) as rest:
        with pytest.raises(BadCredentials):
            await rest.login(cast.tenant, cast.agents[0], load_signer(cast.keys[1]))
        assert rest.token is None


# --- what people do ----------------------------------------------------------------------------------------------------------


async def test_me_returns_the_owner_of_the_token(cast: Cast) -> None:
    async with cast.rest() as rest:
        me = await rest.me()
        assert me.user_id is not None
        assert {each.tenant_id: each.role for each in me.tenants}[cast.tenant] == "owner"
        await rest.login(cast.tenant, cast.agents[0], load_signer(cast.keys[0]))
        assert (await rest.me()) == Me(agent_id=cast.agents[0], tenant_id=cast.tenant, handle="agent-0")


async def test_tenant_is_renamed_and_deleted(cast: Cast) -> None:
    async with cast.rest() as rest:
        tenant = await rest.create_tenant("Short-lived")
        assert (await rest.tenant(tenant.id).update(name="Renamed")).name == "Renamed"
        assert (await rest.tenant(tenant.id).get()).name == "Renamed"
        await rest.tenant(tenant.id).delete()
        with pytest.raises(TenantNotFound):
            await rest.tenant(tenant.id).get()


async def test_update_leaves_fields_without_a_value_unchanged(cast: Cast, tmp_path: Path) -> None:
    line = ssh_keygen.public_line(ssh_keygen.make_key(tmp_path / "key"))
    async with cast.rest() as rest:
        agent = await rest.tenant(cast.tenant).agents.create("a", line, description="d", capabilities=["x"])
        changed = await rest.tenant(cast.tenant).agents.update(agent.id, name="b", capabilities=[])
        assert (changed.name, changed.description, changed.capabilities, changed.status) == ("b", "d", (), "active")
        assert (await rest.tenant(cast.tenant).agents.update(agent.id, status="disabled")).status == "disabled"
        assert agent.id in {each.id async for each in rest.tenant(cast.tenant).agents.list(status="disabled")}
        assert [each async for each in rest.tenant(cast.tenant).agents.list(capability="x")] == []
        await rest.tenant(cast.tenant).agents.delete(agent.id)
        with pytest.raises(AgentNotFound):
            await rest.tenant(cast.tenant).agents.get(agent.id)
        channel = await rest.tenant(cast.tenant).channels.create("c", description="d")
        changed_channel = await rest.tenant(cast.tenant).channels.update(channel.id, access="managed")
        assert (changed_channel.name, changed_channel.description, changed_channel.access) == ("c", "d", "managed")
        await rest.tenant(cast.tenant).channels.delete(channel.id)
        with pytest.raises(ChannelNotFound):
            await rest.tenant(cast.tenant).channels.get(channel.id)


async def test_subscription_is_created_paused_and_deleted(cast: Cast) -> None:
    agent = cast.agents[1]
    async with cast.rest() as rest:
        channel = (await rest.tenant(cast.tenant).channels.create("managed", access="managed")).id
        made = await rest.tenant(cast.tenant).subscriptions.create(channel, agent, permissions=["publish", "receive"])
        assert made.permissions == ("publish", "receive")
        assert (await rest.tenant(cast.tenant).subscriptions.create(channel, agent)).permissions == made.permissions
        assert (await rest.tenant(cast.tenant).subscriptions.update(channel, agent, status="paused")).status == "paused"
        assert (await rest.tenant(cast.tenant).subscriptions.get(channel, agent)).status == "paused"
        assert channel in {each.channel_id async for each in rest.tenant(cast.tenant).subscriptions.list_of_agent(agent)}
        await rest.tenant(cast.tenant).subscriptions.delete(channel, agent)
        with pytest.raises(SubscriptionNotFound):
            await rest.tenant(cast.tenant).subscriptions.get(channel, agent)


async def test_history_is_read_from_a_sequence_or_a_time_up_to_a_limit(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("artcafe.sdk.http.PAGE", 3)
    async with cast.rest() as rest:
        channel = (await rest.tenant(cast.tenant).channels.create("kept")).id
        receipts = [
            await rest.tenant(cast.tenant).messages.publish(channel, number, headers={"n": str(number)}) for number in range(10)
        ]

        async def data(**query: Any) -> list[object]:
            return [each.data async for each in rest.tenant(cast.tenant).messages.list(channel, **query)]

        assert await data() == [*range(9, -1, -1)]
        assert await data(after=0) == [*range(10)]
        assert await data(after=receipts[4].seq, limit=4) == [5, 6, 7, 8]
        assert await data(before=receipts[4].seq, limit=2) == [3, 2]
        (first,) = [each async for each in rest.tenant(cast.tenant).messages.list(channel, after=0, limit=1)]
        assert await data(after=first.time) == [*range(10)]
        assert (first.seq, first.headers, bytes(first.raw)) == (receipts[0].seq, {"n": "0"}, b"0")
        assert first.sender.startswith("usr:")


@pytest.mark.parametrize("id", ["", ".", "..", "../..", "%2e%2e", "/"])
async def test_id_never_names_another_object_in_a_path(cast: Cast, id: str) -> None:
    async with cast.rest() as rest:
        with pytest.raises(AgentNotFound if id else Invalid):
            await rest.tenant(cast.tenant).agents.delete(id)
        with pytest.raises(TenantNotFound if id else Invalid):
            await rest.tenant(id).channels.delete(cast.channels[0])
        assert (await rest.tenant(cast.tenant).get()).id == cast.tenant
