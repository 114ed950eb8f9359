from __future__ import annotations

import asyncio
import json

import pytest
from click.testing import CliRunner

from artcafe.cli.commands import artcafe
from artcafe.errors import TenantSuspended
from artcafe.sdk.keys import load_signer
from artcafe.sdk.rest import Rest
from tests.gateway.raw import dialled
from tests.platform import Platform

SOON_S = 5.0
"""Until every server knows."""


def run(platform: Platform, command: str, tenant: str, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(artcafe, [command, tenant, "--data-dir", str(platform.data), *options])
    return result.exit_code, result.output


def test_a_tenant_is_suspended_and_resumed_while_its_server_runs(platform: Platform) -> None:
    cast = asyncio.run(platform.tenant_with(agents=1, channels=0))

    async def token() -> str:
        async with Rest(cast.url) as rest:
            return (await rest.login(cast.tenant, cast.agents[0], load_signer(cast.keys[0]))).access_token

    async def is_let_in() -> bool:
        try:
            await token()
        except TenantSuspended:
            return False
        return True

    async def day() -> None:
        access_token = await token()
        async with dialled(platform.gateway_url) as raw:
            await raw.ask("connect", access_token=access_token)
            code, printed = await asyncio.to_thread(run, platform, "suspend", cast.tenant)
            assert (code, "is suspended; every server knows within 5 seconds" in printed) == (0, True), printed
            assert await raw.closed() == 4506, "within the 5 s that it waits"
        with pytest.raises(TenantSuspended):
            await token()
        async with cast.rest() as owner:
            assert (await owner.tenant(cast.tenant)).role == "owner"
            with pytest.raises(TenantSuspended):
                await owner.create_channel(cast.tenant, "News")
        code, printed = await asyncio.to_thread(run, platform, "resume", cast.tenant, "--json")
        assert (code, json.loads(printed)) == (0, {"id": cast.tenant, "status": "active"})
        async with asyncio.timeout(SOON_S):
            while not await is_let_in():  # noqa: ASYNC110 (a row tells nobody)
                await asyncio.sleep(0.1)

    asyncio.run(day())


def test_a_tenant_that_is_not_there_is_not_suspended(platform: Platform) -> None:
    code, printed = run(platform, "suspend", "ten_none")
    assert (code, "no tenant 'ten_none'" in printed) == (3, True)
