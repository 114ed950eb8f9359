"""Registering and deleting NATS accounts, as requests of the system account."""

from __future__ import annotations

from typing import Final

import msgspec

from artcafe.errors import LogRefused, NatsConnectionLost, NoResponder
from artcafe.fabric.nats.connection import NatsConnection, unreachable
from artcafe.rules.subjects import Subject

_UPDATE: Final = Subject("$SYS.REQ.CLAIMS.UPDATE")
_DELETE: Final = Subject("$SYS.REQ.CLAIMS.DELETE")


async def register_account(system: NatsConnection, jwt: str) -> None:
    """Send an account's JWT to NATS, for every node to store. Raise `Unavailable`, or `LogRefused` with NATS's reason."""
    await _request(system, _UPDATE, jwt)


async def delete_account(system: NatsConnection, jwt: str) -> None:
    """Delete the account named in a deletion JWT. Raise `Unavailable`, or `LogRefused` with NATS's reason."""
    await _request(system, _DELETE, jwt)


async def _request(system: NatsConnection, subject: Subject, jwt: str) -> None:
    try:
        answer = msgspec.json.decode((await system.request(subject, jwt.encode())).data)
    except (TimeoutError, NoResponder, NatsConnectionLost) as exc:
        raise unreachable() from exc
    if "error" in answer:
        raise LogRefused(answer["error"].get("code", 0), answer["error"].get("description", ""))
