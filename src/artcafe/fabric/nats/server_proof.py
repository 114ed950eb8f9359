"""Proof that a plain connection on this machine ends at our nats-server, before anything is sent over it.

A local user can listen on the port of a nats-server that has ended, and would be taken for it. TLS on every connection would
prevent that, and double what a live message costs (decision record 25). So TLS is for one connection alone, the system account's;
over it nats-server is asked whether it is the other end of the plain connection.
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
    """The other end of a new connection may be another program than our nats-server; nothing was sent to it."""


class ServerProof:
    """Compares a connection's ends with what nats-server says of it over a connection that its certificate has proven."""

    def __init__(self, system: NatsConnection) -> None:
        """`system` is a connection of TLS into the system account."""
        self._system = system

    async def ready(self) -> None:
        """Wait until nats-server can be asked. Raises `Unavailable` after 1 s."""
        await self._system.wait_up(ANSWER_S)

    async def check(self, ends: Endpoints) -> None:
        """Raise `Unproven` unless nats-server has this connection now.

        Both halves are needed. A connection from our port is known to nats-server only if it is ours, since no two connections of
        a machine have the same two ends; but from our port to *another* port there may be one more, which is somebody else's.
        """
        there = f"{ends.remote[0]}:{ends.remote[1]}"
        try:
            here = self._system.ends().remote
            body = msgspec.json.encode({"cid": ends.client_id})
            answer = msgspec.json.decode((await self._system.request(CONNECTIONS, body, timeout_s=ANSWER_S)).data)
        except (OurFault, TimeoutError) as exc:
            raise Unproven(f"nats-server did not say whether {there} is its own: {str(exc) or 'no answer'}") from exc
        known = answer.get("data", {}).get("connections") or []
        if ends.remote != here or [(each["ip"], each["port"]) for each in known] != [ends.local]:
            raise Unproven(f"what listens at {there} is not our nats-server")
