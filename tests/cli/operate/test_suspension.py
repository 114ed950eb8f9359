from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from artcafe.cli.commands import artcafe
from artcafe.data_dir import read_secret
from artcafe.errors import TenantSuspended
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.process import recorded
from artcafe.fabric.fabric import Fabric
from artcafe.model import TenantChange, TenantId
from artcafe.rules.secrets import derive
from artcafe.sdk.client import Client
from artcafe.sdk.keys import load_signer
from artcafe.sdk.records import AuditEntry
from tests.gateway.raw_client import open_client
from tests.platform import Platform, running

SOON_S = BOUND_S = 20.0
"""Maximum time until every server applies a change."""


def summary_of(entry: AuditEntry) -> tuple[str, str, str, str | None]:
    return entry.action, entry.actor, entry.outcome, entry.target


def audit_of_platform(platform: Platform) -> list[tuple[str, str, str, str | None]]:
    """Return the platform's audit, oldest first."""
    result = CliRunner().invoke(artcafe, ["platform", "audit", "export", "--data-dir", str(platform.data), "--json"])
    assert result.exit_code == 0, result.output
    return [summary_of(msgspec.json.decode(line, type=AuditEntry)) for line in result.stdout.splitlines()]


def nats_url(platform: Platform) -> str:
    known = recorded(platform.data / "nats" / "nats.conf")
    assert known is not None
    return f"nats://127.0.0.1:{known[1]}"


def run(platform: Platform, command: str, tenant: str, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(artcafe, [command, tenant, "--data-dir", str(platform.data), *options])
    return result.exit_code, result.output


def test_suspend_and_resume_take_effect_on_a_running_server(platform: Platform) -> None:
    cast = asyncio.run(platform.tenant_with(agents=1, channels=0))

    async def token() -> str:
        async with Client(cast.url) as rest:
            return (await rest.login(cast.tenant, cast.agents[0], load_signer(cast.keys[0]))).access_token

    async def is_let_in() -> bool:
        try:
            await token()
        except TenantSuspended:
            return False
        return True

    async def day() -> None:
        access_token = await token()
        async with open_client(platform.gateway_url) as raw:
            await raw.ask("connect", access_token=access_token)
            code, printed = await asyncio.to_thread(run, platform, "suspend", cast.tenant)
            assert (code, "is suspended, and every server was notified" in printed) == (0, True), printed
            assert await raw.closed() == 4506, "the socket closes within the 5 s of the wait"
        with pytest.raises(TenantSuspended):
            await token()
        async with cast.rest() as owner:
            assert (await owner.tenant(cast.tenant).get()).role == "owner"
            with pytest.raises(TenantSuspended):
                await owner.tenant(cast.tenant).channels.create("News")
        code, printed = await asyncio.to_thread(run, platform, "resume", cast.tenant, "--json")
        assert (code, json.loads(printed)) == (0, {"id": cast.tenant, "status": "active"})
        async with asyncio.timeout(SOON_S):
            while not await is_let_in():  # noqa: ASYNC110 (a row has no notifications)
                await asyncio.sleep(0.1)

    asyncio.run(day())


def test_suspension_is_recorded_in_the_audits_of_tenant_and_platform(platform: Platform) -> None:
    cast = asyncio.run(platform.tenant_with(agents=0, channels=0))
    assert run(platform, "suspend", cast.tenant)[0] == 0
    assert run(platform, "resume", cast.tenant)[0] == 0

    async def of_tenant() -> list[tuple[str, str, str, str | None]]:
        async with cast.rest() as owner:
            return [summary_of(each) async for each in owner.tenant(cast.tenant).audit.list(oldest_first=True)]

    mine = [each for each in asyncio.run(of_tenant()) if each[1] == "operator"]
    assert mine == [
        ("tenant.suspend", "operator", "intended", cast.tenant),
        ("tenant.suspend", "operator", "done", cast.tenant),
        ("tenant.resume", "operator", "intended", cast.tenant),
        ("tenant.resume", "operator", "done", cast.tenant),
    ]
    assert [each for each in audit_of_platform(platform) if each[3] == cast.tenant] == mine


def test_suspension_is_announced_to_every_server(platform: Platform) -> None:
    cast = asyncio.run(platform.tenant_with(agents=0, channels=0))
    secret = read_secret(platform.secret)

    async def announced_tenant() -> TenantId:
        fabric = Fabric([nats_url(platform)], Accounts(derive(secret, "nats"), "prod"))
        announced: asyncio.Queue[TenantChange] = asyncio.Queue()
        fabric.announcements.listen(announced.put_nowait)
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
            group.create_task(fabric.run())
            while announced.empty():  # Repeat until the subscription is active.
                await asyncio.to_thread(run, platform, "suspend", cast.tenant)
            fabric.close()
        return announced.get_nowait().tenant_id

    assert asyncio.run(announced_tenant()) == cast.tenant


def test_suspend_changes_nothing_when_nats_is_unreachable(tmp_path: Path) -> None:
    with running(tmp_path) as platform:
        cast = asyncio.run(platform.tenant_with(agents=0, channels=0))
        dead = CliRunner(env={"ARTCAFE_NATS_URLS": "nats://127.0.0.1:9"}).invoke(
            artcafe, ["suspend", cast.tenant, "--data-dir", str(platform.data)]
        )
        assert (dead.exit_code, "NATS at nats://127.0.0.1:9" in dead.output) == (4, True), dead.output
        assert ("nothing was changed" in dead.output, "DYNAMODB" in dead.output) == (True, False)

        async def is_active() -> bool:
            async with cast.rest() as owner:
                return bool((await owner.tenant(cast.tenant).channels.create("News")).id)

        assert asyncio.run(is_active())


def test_suspend_works_on_a_stopped_server_and_refuses_a_folder_without_nats(tmp_path: Path) -> None:
    with running(tmp_path / "server") as platform:
        cast = asyncio.run(platform.tenant_with(agents=0, channels=0))
        assert platform.stop() == 0
        code, printed = run(platform, "suspend", cast.tenant, "--json")
        assert (code, json.loads(printed)) == (0, {"id": cast.tenant, "status": "suspended"})
        assert ("tenant.suspend", "operator", "done", cast.tenant) in audit_of_platform(platform)
        shutil.rmtree(platform.data / "nats")
        code, printed = run(platform, "resume", cast.tenant)
        assert (code, "ARTCAFE_NATS_URLS" in printed) == (3, True), printed


def test_suspend_of_an_unknown_tenant_is_refused(platform: Platform) -> None:
    code, printed = run(platform, "suspend", "ten_none")
    assert (code, "no tenant 'ten_none'" in printed) == (3, True)
