"""The environment of every bench: a separate `artcafe up`, NATS clients on the same nats-server, and authenticated sockets."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import nats
from nats.aio.client import Client

from artcafe.data_dir import read_secret
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.tenant_fabric import TenantFabric
from artcafe.model import TenantId
from artcafe.plan_catalogue import SHIPPED
from artcafe.rules.secrets import derive
from artcafe.sdk.keys import load_signer
from bench.raw_client import RawSocket, connect
from bench.report import Options
from tests.platform import Cast, Platform, running

NATS_S: Final = 10.0
PENDING_BYTES: Final = 64 * 1024 * 1024
"""As in the product: at its default of 2 MB nats-py would wait for its socket in between."""


@dataclass(frozen=True, slots=True)
class BenchEnv:
    """A running platform, and access to its nats-server with its own secret."""

    platform: Platform
    fabric: Fabric
    accounts: Accounts
    nats_url: str

    def server_pids(self) -> list[int]:
        """Return the processes of the platform but nats-server: `artcafe up`, and its server processes where it has several."""
        assert self.platform.process is not None
        pid = self.platform.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *(int(each) for each in children if b"process_group" in Path(f"/proc/{each}/cmdline").read_bytes())]

    async def tenant_fabric(self, tenant: str) -> TenantFabric:
        """Open a tenant's part of NATS in this process, as a server does."""
        room = self.fabric.tenant(TenantId(tenant))
        await room.connection.wait_up(NATS_S)
        return room

    @asynccontextmanager
    async def nats_py(self, tenant: str) -> AsyncIterator[Client]:
        """Connect nats-py alone, as a user of the tenant's account."""
        await self.tenant_fabric(tenant)  # NATS knows the account from here on
        user = self.accounts.user(TenantId(tenant))
        client = await nats.connect(
            self.nats_url, user_jwt_cb=user.user_jwt_cb, signature_cb=user.signature_cb, pending_size=PENDING_BYTES
        )
        try:
            yield client
        finally:
            await client.close()

    async def token(self, cast: Cast, agent: int = 0) -> str:
        """Return an access token of an agent, by its SSH key."""
        async with cast.rest() as rest:
            rest.token = None
            return (await rest.login(cast.tenant, cast.agents[agent], load_signer(cast.keys[agent]))).access_token

    async def line(self, cast: Cast, token: str) -> RawSocket:
        """Open an authenticated socket."""
        return await connect(self.platform.gateway_url, cast.tenant, token)


UNBOUNDED: Final = ["--requests-per-s", "0", "--connects-per-s", "0", "--challenges-per-min", "0"]
"""Disables the rate limits: a bench sends more requests than one address may."""


def largest_plan(options: Options) -> list[str]:
    """Return flags that give each tenant the largest plan of those shipped."""
    shipped = files("artcafe").joinpath(SHIPPED).read_text("utf-8")
    plans = options.folder / "plans.toml"
    plans.write_text(shipped.replace('default = "free"', 'default = "business"'))
    return ["--plans-file", str(plans)]


@asynccontextmanager
async def bench_env(
    options: Options, python: Path | str = sys.executable, *, flags: Sequence[str] = ()
) -> AsyncIterator[BenchEnv]:
    """Run `artcafe up`, of the version installed for `python`, on a new folder; end and remove it afterwards."""
    options.folder.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix="artcafe-bench-", dir=options.folder) as folder,
        running(Path(folder), [*UNBOUNDED, *flags], python=python) as platform,
    ):
        conf = json.loads((platform.data / "nats" / "nats.conf").read_text())
        accounts = Accounts(derive(read_secret(platform.data / "secret"), "nats"), "prod")
        url = f"nats://127.0.0.1:{conf['port']}"
        fabric = Fabric([url], accounts)
        async with asyncio.TaskGroup() as group:
            group.create_task(fabric.run())
            try:
                await fabric.wait_up(NATS_S)
                yield BenchEnv(platform, fabric, accounts, url)
            finally:
                fabric.close()
