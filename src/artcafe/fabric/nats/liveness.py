"""Detection of NATS servers that do not answer: a few pings to each server, instead of one loop for each connection to it."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from artcafe.fabric.nats.client import FastClient
from artcafe.supervision import Supervisor

PING_S: Final = 5.0
"""A server that hangs (paused, cut off) is left within 15 s: up to one interval until the first ping, and two more."""
MAX_UNANSWERED: Final = 2
EACH_S: Final = 60.0
"""How often each idle connection is pinged: one connection may be lost alone, as by a firewall that has forgotten it."""


class Liveness:
    """Pings the NATS servers of any number of connections, and reports a connection as lost if its server does not answer.

    In each interval, it pings the connections that wait for an answer, and at least one of the idle ones to each server. As soon
    as one did not answer in an interval, all connections to its server are pinged. When it does not answer a second time, it is
    lost, and so are the others that have not answered.
    """

    def __init__(self, ping_s: float = PING_S) -> None:
        self._ping_s = ping_s
        self._clients: dict[FastClient, None] = {}
        """The connected clients; those that were pinged for being idle are moved to the end."""
        self._timer: asyncio.TimerHandle | None = None
        self.supervisor = Supervisor("nats_liveness")

    def add(self, client: FastClient) -> None:
        """Watch a connected client until `discard`."""
        self._clients[client] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._ping_s, self._tick)

    def discard(self, client: FastClient) -> None:
        """Watch a client no more. May be repeated."""
        self._clients.pop(client, None)
        if not self._clients and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._ping_s, self._tick)
        by_server = defaultdict[tuple[str, int], list[FastClient]](list)
        for client in self._clients:
            by_server[client.remote].append(client)
        for clients in by_server.values():
            with self.supervisor.contain():
                self._check(clients)

    def _check(self, clients: Sequence[FastClient]) -> None:
        """Ping the clients of one server that are due, and report the lost ones."""
        is_silent = any(each.unanswered for each in clients)
        is_lost = any(each.unanswered >= MAX_UNANSWERED for each in clients)
        due = math.ceil(len(clients) * self._ping_s / EACH_S)
        for number, client in enumerate(clients):
            if is_lost and client.unanswered:
                client.on_lost()
            elif is_silent or client.is_expecting or number < due:
                client.ping()
            if number < due:
                self._clients[client] = self._clients.pop(client)
