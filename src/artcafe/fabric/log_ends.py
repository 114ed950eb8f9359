"""The ends of all tenants' logs, asked from NATS in a few requests instead of one for each tenant."""

from __future__ import annotations

from typing import Final

import msgspec

from artcafe.errors import LogRefused
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.tenant_log import STREAM
from artcafe.model import Seq, TenantId
from artcafe.rules.subjects import Subject

ACCOUNTS_AT_ONCE: Final = 256
"""Accounts in one answer, at about 600 bytes each."""
TIMEOUT_S: Final = 10.0

_JETSTREAM: Final = Subject("$SYS.REQ.SERVER.PING.JSZ")


class _State(msgspec.Struct):
    last_seq: Seq


class _Stream(msgspec.Struct):
    name: str
    state: _State | None = None


class _Account(msgspec.Struct):
    name: str
    id: str
    stream_detail: list[_Stream] = []


class _Details(msgspec.Struct):
    account_details: list[_Account] = []


class _Answer(msgspec.Struct):
    """The answer of `JSZ` (nats-server, `server/monitor.go`)."""

    data: _Details | None = None


_answer = msgspec.json.Decoder(_Answer)


async def read_log_ends(system: NatsConnection, accounts: Accounts) -> dict[TenantId, Seq]:
    """Return the last sequence of each tenant's log on the NATS server that answers first: of all logs in a cluster of three.

    Leave out tenants whose id is not the name of their account: ids of an older system with other characters than those of
    `Accounts.account_name`. Raise `Unavailable`, `TimeoutError` or `LogRefused`.
    """
    found: dict[TenantId, Seq] = {}
    offset = 0
    while True:
        query = {"accounts": True, "streams": True, "limit": ACCOUNTS_AT_ONCE, "offset": offset}
        answer = _answer.decode((await system.request(_JETSTREAM, msgspec.json.encode(query), timeout_s=TIMEOUT_S)).data)
        if answer.data is None:
            raise LogRefused(0, "it lists no accounts")
        for account in answer.data.account_details:
            last_seq = max(
                (each.state.last_seq for each in account.stream_detail if each.name == STREAM and each.state), default=0
            )
            tenant_id = TenantId(account.name)
            if last_seq and accounts.account_key(tenant_id) == account.id:
                found[tenant_id] = last_seq
        if len(answer.data.account_details) < ACCOUNTS_AT_ONCE:
            return found
        offset += ACCOUNTS_AT_ONCE
