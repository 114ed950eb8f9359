"""The stage of every bench: an `artcafe up` of its own, NATS clients beside it on the same nats-server, and logged-in sockets."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
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
from artcafe.rules.secrets import derive
from artcafe.sdk.keys import load_signer
from bench.report import Options
from bench.wire import Line, connect
from tests.platform import Cast, Platform, running

NATS_S: Final = 10.0
PENDING_BYTES: Final = 64 * 1024 * 1024
"""As the product sets it: at its default of 2 MB nats-py would wait for its socket in between."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A running platform, and the way into its nats-server with its own secret."""

    platform: Platform
    fabric: Fabric
    accounts: Accounts
    nats_url: str

    async def room(self, tenant: str) -> TenantFabric:
        """A tenant's part of NATS, opened in this process as a server would."""
        room = self.fabric.tenant(TenantId(tenant))
        await room.connection.wait_up(NATS_S)
        return room

    @asynccontextmanager
    async def nats_py(self, tenant: str) -> AsyncIterator[Client]:
        """nats-py alone, as a user of the tenant's account."""
        await self.room(tenant)  # NATS knows the account from here on
        user = self.accounts.user(TenantId(tenant))
        client = await nats.connect(
            self.nats_url, user_jwt_cb=user.user_jwt_cb, signature_cb=user.signature_cb, pending_size=PENDING_BYTES
        )
        try:
            yield client
        finally:
            await client.close()

    async def token(self, cast: Cast, agent: int = 0) -> str:
        """An access token of the cast's agent, by its SSH key."""
        async with cast.rest() as rest:
            rest.token = None
            return (await rest.login(cast.tenant, cast.agents[agent], load_signer(cast.keys[agent]))).access_token

    async def line(self, cast: Cast, token: str) -> Line:
        """A socket that is logged in."""
        return await connect(self.platform.gateway_url, cast.tenant, token)


UNBOUNDED: Final = ["--requests-per-s", "0", "--connects-per-s", "0", "--challenges-per-min", "0"]
"""A bench asks oftener than one address may."""


@asynccontextmanager
async def stage(options: Options, python: Path | str = sys.executable) -> AsyncIterator[Stage]:
    """Run `artcafe up`, of the version installed for `python`, on a new folder; end and remove it afterwards."""
    options.folder.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix="artcafe-bench-", dir=options.folder) as folder,
        running(Path(folder), UNBOUNDED, python=python) as platform,
    ):
        conf = json.loads((platform.data / "nats" / "nats.conf").read_text())
        accounts = Accounts(derive(read_secret(platform.data / "secret"), "nats"), "prod")
        url = f"nats://127.0.0.1:{conf['port']}"
        fabric = Fabric([url], accounts)
        async with asyncio.TaskGroup() as group:
            group.create_task(fabric.run())
            try:
                await fabric.wait_up(NATS_S)
                yield Stage(platform, fabric, accounts, url)
            finally:
                fabric.close()
