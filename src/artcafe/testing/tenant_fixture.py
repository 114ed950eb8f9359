"""Makers of a tenant's agents and channels.

They block for some milliseconds, so that tests with and without asyncio use them alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from artcafe import sync
from artcafe.sdk import agent
from artcafe.sdk.blocking import call
from artcafe.sdk.client import Client
from artcafe.sdk.keys import FileSigner, Signer
from artcafe.sdk.records import ChannelInfo
from artcafe.sdk.tenant_client import TenantClient
from artcafe.wire.sshkeys import parse_public_key

T = TypeVar("T")


@dataclass(frozen=True)
class TenantFixture:
    """A tenant on a server for tests. `token` is its owner's."""

    url: str
    id: str
    token: str = field(repr=False)

    @classmethod
    def create(cls, url: str, token: str, name: str) -> Self:
        """Create a tenant of the token's user."""

        async def create() -> str:
            async with Client(url, token) as client:
                return (await client.create_tenant(name)).id

        return cls(url, call(create()), token)

    def client(self) -> Client:
        """Return a client of the owner, to be used in `async with`. Its `tenant(tenant.id)` has what the makers lack."""
        return Client(self.url, self.token)

    def channel(self, name: str, **options: Any) -> ChannelInfo:
        """Create a channel. The options are those of `ChannelCalls.create`."""
        return self._call(lambda tenant: tenant.channels.create(name, **options))

    def agent(self, name: str, *, channels: Sequence[str] = (), **options: Any) -> agent.Agent:
        """Register an agent with a new key, subscribe it to `channels`, and return it, not started.

        The options are those of `artcafe.Agent`. The name becomes its handle.
        """
        return agent.Agent(self.url, tenant=self.id, agent=name, key=self._register(name, channels), **options)

    def sync_agent(self, name: str, *, channels: Sequence[str] = (), **options: Any) -> sync.Agent:
        """Do as `agent` does for a program without asyncio."""
        return sync.Agent(self.url, tenant=self.id, agent=name, key=self._register(name, channels), **options)

    def _register(self, name: str, channels: Sequence[str]) -> Signer:
        private = Ed25519PrivateKey.generate()
        line = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

        async def register(tenant: TenantClient) -> None:
            await tenant.agents.create(name, line, handle=name)
            for channel in channels:
                await tenant.subscriptions.create(channel, name)

        self._call(register)
        return FileSigner(parse_public_key(line), private)

    def _call(self, work: Callable[[TenantClient], Awaitable[T]]) -> T:
        async def run() -> T:
            async with self.client() as client:
                return await work(client.tenant(self.id))

        return call(run())
