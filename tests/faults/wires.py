"""A NATS cluster on relays that can be held, between its servers and before ours: partitions without root."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from artcafe.fabric.nats.configuration import Node
from tests.fleet import NatsServers
from tests.relay import Relay, relayed

NOWHERE: Final = 1
"""Every node calls this port its own, so that no other learns of a way around the relays."""


class Wires:
    """The relays of a cluster: one for each ordered pair of nodes, and one from each of our servers to each node."""

    def __init__(self, nats: NatsServers) -> None:
        self._nats = nats
        self._routes: dict[tuple[str, str], Relay] = {}
        self._clients: dict[tuple[int, str], Relay] = {}

    @asynccontextmanager
    async def open(self, servers: int) -> AsyncIterator[Wires]:
        """Opens all relays, and has each node reach the others over its own."""
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
        """For a server's `--nats-urls`."""
        return ",".join(self._clients[server, node.name].url for node in self._nats.nodes)

    def part(self, one: str, other: str) -> None:
        """No byte passes between two nodes."""
        self._routes[one, other].hold()
        self._routes[other, one].hold()

    def mute(self, one: str, other: str) -> None:
        """What one node sends does not reach the other."""
        self._routes[one, other].hold(answers=False)
        self._routes[other, one].hold(requests=False)

    def isolate(self, name: str) -> None:
        """No byte passes between a node and the other two."""
        for other in self._others(name):
            self.part(name, other.name)

    def unplug(self, name: str) -> None:
        """No byte passes between a node and anybody else."""
        self.isolate(name)
        self._hold(relay for (_, node), relay in self._clients.items() if node == name)

    def cut_off(self, server: int) -> None:
        """No byte passes between one of our servers and NATS."""
        self._hold(relay for (number, _), relay in self._clients.items() if number == server)

    @staticmethod
    def _hold(relays: Iterable[Relay]) -> None:
        for relay in relays:
            relay.hold()

    def heal(self) -> None:
        """Everything passes again, what was held first."""
        for relay in (*self._routes.values(), *self._clients.values()):
            relay.release()
