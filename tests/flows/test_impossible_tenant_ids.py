"""No input stops the server: text that cannot be a tenant's id, over REST and at the gateway, from a person and an agent."""

from __future__ import annotations

from urllib.parse import quote

import httpx2

from artcafe.sdk.client import Client
from artcafe.sdk.keys import load_signer
from tests.gateway.raw_client import open_client
from tests.platform import Cast, Platform

IMPOSSIBLE = ["", None, "x" * 2049, "ten_\u202e", "ten_\x00"]


async def token_of_agent(cast: Cast) -> str:
    async with Client(cast.url) as rest:
        return (await rest.login(cast.tenant, cast.agents[0], load_signer(cast.keys[0]))).access_token


async def connect(platform: Platform, token: str, tenant_id: str | None) -> int:
    async with open_client(platform.gateway_url) as raw:
        await raw.say("connect", access_token=token, **({} if tenant_id is None else {"tenant_id": tenant_id}))
        return await raw.closed()


async def is_audited(cast: Cast, token: str) -> bool:
    """Return whether an attempt with this token on the tenant is written to its audit, after everything counted before it."""
    async with httpx2.AsyncClient(base_url=cast.url) as web:
        await web.get(f"/v1/tenants/{cast.tenant}", headers={"Authorization": f"Bearer {token}"})
        mine = {"Authorization": f"Bearer {cast.token}"}
        for _ in range(500):
            page = (await web.get(f"/v1/tenants/{cast.tenant}/audit", headers=mine)).json()
            if "tenant.trespass" in {each["action"] for each in page["items"]}:
                return True
    return False


async def test_text_that_cannot_be_a_tenant_id_stops_nothing(platform: Platform) -> None:
    cast, other = await platform.tenant_with(channels=0), await platform.tenant_with(channels=0)
    stranger, agent = platform.token("stranger@example.com"), await token_of_agent(cast)
    for tenant_id in IMPOSSIBLE:
        async with httpx2.AsyncClient(base_url=cast.url) as web:
            for token in (stranger, agent):
                answer = await web.get(f"/v1/tenants/{quote(tenant_id or '')}", headers={"Authorization": f"Bearer {token}"})
                assert answer.status_code == 404
        assert await connect(platform, stranger, tenant_id) in (4500, 4501)
    assert await is_audited(other, agent)
    assert platform.process is not None
    assert platform.process.poll() is None
