"""Proof that a plain connection on this machine ends at our nats-server, before anything is sent over it.

Another local user can listen on the port of a nats-server that has ended, and receive its clients' connections. TLS on every
connection would prevent that, and double the cost of a live message (decision record 25). So only the system account's connection
uses TLS; over it, nats-server confirms that it is the peer of each plain connection.
"""

from __future__ import annotations

import msgspec
from nats.errors import Error as NatsError

from artcafe.errors import OurFault
from artcafe.fabric.nats.client import Endpoints
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.rules.subjects import Subject

CONNECTIONS = Subject("$SYS.REQ.SERVER.PING.CONNZ")
ANSWER_S = 1.0
"""nats-server waits 2 s for the credentials of a new connection (`auth_timeout`)."""


class Unproven(NatsError):
    """A new connection may end at another program than our nats-server. Nothing was sent over it."""


class ServerProof:
    """A comparison of a connection's endpoints with nats-server's own list of connections."""

    def __init__(self, system: NatsConnection) -> None:
        """`system` is a TLS connection in the system account."""
        self._system = system

    async def ready(self) -> None:
        """Wait for the system connection. Raise `Unavailable` after 1 s."""
        await self._system.wait_up(ANSWER_S)

    async def check(self, endpoints: Endpoints) -> None:
        """Raise `Unproven` unless nats-server has this connection now.

        Both comparisons are needed. nats-server knows a connection from our port only if it is ours, since no two connections of
        a machine have the same two endpoints. But our port may also have a connection to *another* port, of another program.
        """
        there = f"{endpoints.remote[0]}:{endpoints.remote[1]}"
        try:
            here = self._system.endpoints().remote
            body = msgspec.json.encode({"cid": endpoints.client_id})
            answer = msgspec.json.decode((await self._system.request(CONNECTIONS, body, timeout_s=ANSWER_S)).data)
        except (OurFault, TimeoutError) as exc:
            raise Unproven(f"nats-server did not confirm the connection to {there}: {str(exc) or 'no answer'}") from exc
        known = answer.get("data", {}).get("connections") or []
        if endpoints.remote != here or [(each["ip"], each["port"]) for each in known] != [endpoints.local]:
            raise Unproven(f"the program that listens at {there} is not our nats-server")
