"""Where a server's connections come from: listening sockets of its own, or a supervisor that accepts for several processes."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from artcafe.config import Address, Settings
from artcafe.data_dir import DataDir
from artcafe.gateway.listener import Gateway
from artcafe.listeners import ListenerSettings
from artcafe.resources import Addresses, Adopt, addresses_of, cannot_listen
from artcafe.rest.server import RestServer
from artcafe.services.readiness import Checks


class ConnectionSource(Protocol):
    """How connections reach this server."""

    @property
    def checks(self) -> Checks:
        """Checks of the parts on which the source depends, for `/health/ready`."""
        ...

    @property
    def process(self) -> tuple[int, int]:
        """The number of this process in its group, from 1 on, and the size of the group."""
        ...

    async def open(self, gateway: Gateway) -> Addresses:
        """Begin to accept connections, and return the addresses of both listeners. Raises `StartRefused`."""
        ...

    async def serve(self, gateway: Gateway, rest: RestServer) -> None:
        """Pass connections to REST and the gateway until REST has ended."""

    def announce(self, addresses: Addresses) -> None:
        """Write this server's addresses to the data folder, for commands that know only the folder."""


@dataclass(frozen=True, slots=True)
class OwnListeners:
    """Two listening sockets of this process."""

    settings: Settings
    front: ListenerSettings
    listener: socket.socket
    """REST's."""
    folder: DataDir
    metrics_url: str | None = None

    @property
    def checks(self) -> Checks:
        return {}

    @property
    def process(self) -> tuple[int, int]:
        return 1, 1

    async def open(self, gateway: Gateway) -> Addresses:
        settings, front = self.settings, self.front
        port = await _open_gateway(gateway, settings.gateway_listen, front.tls)
        return addresses_of(settings, front, int(self.listener.getsockname()[1]), port, self.metrics_url)

    async def serve(self, gateway: Gateway, rest: RestServer) -> None:
        await rest.serve(sockets=[self.listener])

    def announce(self, addresses: Addresses) -> None:
        self.folder.write_server_info(addresses.url, addresses.gateway_url, self.settings.issuer, addresses.metrics_url)


class Handover(Protocol):
    """Connections that another process accepts."""

    async def run(self, rest: Adopt, gateway: Adopt) -> None:
        """Pass each connection to its listener, until cancelled or the other process has ended."""


@dataclass(frozen=True, slots=True)
class HandedConnections:
    """The parts that a server process gets from its supervisor instead of opening them."""

    front: ListenerSettings
    addresses: Addresses
    nats_urls: Sequence[str]
    """Changed in place when the supervisor's nats-server moves to another port, because another program has taken its own."""
    is_embedded: bool
    handover: Handover
    checks: Checks
    process: tuple[int, int]
    denied: Sequence[str] = ()
    """The permissions on the tables that the supervisor was denied."""

    async def open(self, gateway: Gateway) -> Addresses:
        return self.addresses

    async def serve(self, gateway: Gateway, rest: RestServer) -> None:
        tls = self.front.tls
        async with asyncio.TaskGroup() as group:
            receiving = group.create_task(self.handover.run(rest.adopt, partial(gateway.adopt, tls=tls)))
            await rest.serve(sockets=[])
            receiving.cancel()

    def announce(self, addresses: Addresses) -> None:
        """The supervisor does it, once every process serves."""


async def _open_gateway(gateway: Gateway, address: Address, tls: ssl.SSLContext | None) -> int:
    """Listen for agents, and return the port. Raises `StartRefused`."""
    try:
        return await gateway.listen(*address, tls=tls)
    except OSError as exc:
        raise cannot_listen(address, "--gateway-listen", exc) from exc
