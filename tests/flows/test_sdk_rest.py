"""The REST client against the platform."""

from __future__ import annotations

import asyncio

import pytest

from artcafe.errors import BadCredentials, ChannelNotFound, Forbidden, TenantNotFound
from artcafe.sdk.keys import load_signer
from artcafe.sdk.rest import Rest
from tests import ssh_keygen
from tests.platform import Cast, Platform


@pytest.fixture(scope="module")
def cast(platform: Platform) -> Cast:
    return asyncio.run(platform.tenant_with(agents=2, channels=2))


async def test_what_was_made_is_listed_page_after_page(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("artcafe.sdk.rest.PAGE", 1)
    async with cast.rest() as rest:
        assert [tenant.id async for tenant in rest.tenants()] == [cast.tenant]
        assert sorted([agent.id async for agent in rest.agents(cast.tenant)]) == sorted(cast.agents)
        assert sorted([channel.id async for channel in rest.channels(cast.tenant)]) == sorted(cast.channels)
        subscriptions = [each async for each in rest.subscriptions(cast.tenant, cast.channels[0])]
        assert sorted(each.agent_id for each in subscriptions) == sorted(cast.agents)


async def test_an_answer_shows_what_was_made(cast: Cast) -> None:
    async with cast.rest() as rest:
        found = {agent.id: agent async for agent in rest.agents(cast.tenant)}[cast.agents[0]]
        (tenant,) = [tenant async for tenant in rest.tenants()]
    assert found.public_key == " ".join(ssh_keygen.public_line(cast.keys[0]).split()[:2])
    assert found.fingerprint == ssh_keygen.fingerprint(ssh_keygen.public_line(cast.keys[0]))
    assert (found.status, tenant.role) == ("active", "owner")
    assert found.created_at is not None
    assert found.created_at.tzinfo is not None


async def test_a_request_repeated_with_its_key_makes_one_thing(cast: Cast) -> None:
    async with cast.rest() as rest:
        first, second = [await rest.create_tenant("Twice", key="once") for _ in range(2)]
    assert first.id == second.id


async def test_an_agent_logs_in_by_its_key_and_acts_as_itself(cast: Cast) -> None:
    async with Rest(cast.url) as rest:
        token = await rest.login(cast.tenant, cast.agents[0], load_signer(cast.keys[0]))
        assert (token.token_type, token.expires_in) == ("Bearer", 900)
        first = await rest.publish(cast.tenant, cast.channels[0], {"by": "rest"}, key="k")
        again = await rest.publish(cast.tenant, cast.channels[0], {"by": "rest"}, key="k")
        assert (again.seq, again.duplicate) == (first.seq, True)
        cards = [agent async for agent in rest.agents(cast.tenant)]
        assert {card.public_key for card in cards} == {None}
        with pytest.raises(Forbidden):
            await rest.create_channel(cast.tenant, "not for agents")
        with pytest.raises(ChannelNotFound):
            await rest.publish(cast.tenant, "chn_nowhere", 1)
        with pytest.raises(TenantNotFound):
            await rest.publish("ten_other", cast.channels[0], 1)


async def test_a_login_with_another_agents_key_is_refused(cast: Cast) -> None:
    async with Rest(cast.url) as rest:
        with pytest.raises(BadCredentials):
            await rest.login(cast.tenant, cast.agents[0], load_signer(cast.keys[1]))
        assert rest.token is None
