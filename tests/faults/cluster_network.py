"""A NATS cluster on relays that can hold bytes back, between its nodes and in front of our servers: partitions without root."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from artcafe.fabric.nats.configuration import Node
from tests.fleet import NatsServers
from tests.relay import Relay, relayed

NOWHERE: Final = 1
"""Every node advertises this port, so that no node learns a route around the relays."""


class ClusterNetwork:
    """The relays of a cluster: one for each ordered pair of nodes, and one from each of our servers to each node."""

    def __init__(self, nats: NatsServers) -> None:
        self._nats = nats
        self._routes: dict[tuple[str, str], Relay] = {}
        self._clients: dict[tuple[int, str], Relay] = {}

    @asynccontextmanager
    async def open(self, servers: int) -> AsyncIterator[ClusterNetwork]:
        """Open all relays, and route each node to the others through its own."""
        async with AsyncExitStack() as stack:
            for node in self._nats.nodes:
                for other in self._others(node.name):
                    relay = await stack.enter_async_context(relayed(f"nats://127.0.0.1:{other.route_port}"))
                    self._routes[node.name, other.name] = relay
                for server in range(servers):
                    self._clients[server, node.name] = await stack.enter_async_context(relayed(node.url))
                ports = {other.name: self._routes[node.name, other.name].port for other in self._others(node.name)}
                self._nats.reroute(node, ports, NOWHERE)
            yield self

    def _others(self, name: str) -> list[Node]:
        return [node for node in self._nats.nodes if node.name != name]

    def urls(self, server: int) -> str:
        """Return a server's `--nats-urls`."""
        return ",".join(self._clients[server, node.name].url for node in self._nats.nodes)

    def block(self, one: str, other: str) -> None:
        """Block all bytes between two nodes."""
        self._routes[one, other].hold()
        self._routes[other, one].hold()

    def mute(self, one: str, other: str) -> None:
        """Block bytes from one node to the other."""
        self._routes[one, other].hold(answers=False)
        self._routes[other, one].hold(requests=False)

    def isolate(self, name: str) -> None:
        """Block all bytes between a node and the other two."""
        for other in self._others(name):
            self.block(name, other.name)

    def unplug(self, name: str) -> None:
        """Block all bytes between a node and everyone else."""
        self.isolate(name)
        self._hold(relay for (_, node), relay in self._clients.items() if node == name)

    def cut_off(self, server: int) -> None:
        """Block all bytes between one of our servers and NATS."""
        self._hold(relay for (number, _), relay in self._clients.items() if number == server)

    @staticmethod
    def _hold(relays: Iterable[Relay]) -> None:
        for relay in relays:
            relay.hold()

    def heal(self) -> None:
        """Pass everything again, held bytes first."""
        for relay in (*self._routes.values(), *self._clients.values()):
            relay.release()
