"""The ends of all tenants' logs, asked from NATS in a few requests instead of one for each tenant."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from artcafe.fabric.log_state import NO_LOG, LogEnd
from artcafe.fabric.nats.client import IncomingMessage
from artcafe.fabric.nats.connection import NatsConnection, unreachable
from artcafe.fabric.tenant_log import EPOCH, STREAM
from artcafe.model import Epoch, Seq
from artcafe.rules.subjects import Subject

ACCOUNTS_AT_ONCE: Final = 256
"""Accounts in one answer, at about 1.2 KB each."""
TIMEOUT_S: Final = 2.0

_JETSTREAM: Final = Subject("$SYS.REQ.SERVER.PING.JSZ")


class _Config(msgspec.Struct):
    metadata: dict[str, str] = {}


class _State(msgspec.Struct):
    last_seq: Seq


class _Stream(msgspec.Struct):
    name: str
    config: _Config
    state: _State


class _Account(msgspec.Struct):
    name: str
    id: str
    stream_detail: list[_Stream] = []


class _Group(msgspec.Struct, frozen=True):
    cluster_size: int = 1


class _Details(msgspec.Struct):
    account_details: list[_Account] = []
    meta_cluster: _Group = _Group()
    disabled: bool = False


class _Answer(msgspec.Struct):
    """The answer of `JSZ` (nats-server, `server/monitor.go`)."""

    data: _Details | None = None


_answer = msgspec.json.Decoder(_Answer)


class LogEnds(NamedTuple):
    """The ends of all tenants' logs, each as the log's leader has it."""

    by_key: dict[str, LogEnd]
    """By the key of the tenant's account."""
    names: dict[str, str]
    """The names of these accounts, by key."""
    is_complete: bool
    """Whether every NATS server has answered, so that other tenants have no log."""

    def of(self, account_key: str) -> LogEnd | None:
        """Return the end of a tenant's log; None if it is not known now."""
        return self.by_key.get(account_key, NO_LOG if self.is_complete else None)


async def read_log_ends(system: NatsConnection) -> LogEnds:
    """Ask the NATS servers for the ends of all logs. Leave out a log without a leader.

    Raise `Unavailable` or `NatsConnectionLost`.
    """
    by_key, names, is_complete, servers, offset = dict[str, LogEnd](), dict[str, str](), True, 0, 0
    while True:
        answers = await _page(system, offset, servers)
        if not answers:
            raise unreachable()
        servers = len(answers)
        is_complete = is_complete and servers >= max(each.meta_cluster.cluster_size for each in answers)
        for account in [account for each in answers for account in each.account_details]:
            for stream in account.stream_detail:
                if stream.name == STREAM:
                    names[account.id] = account.name
                    by_key[account.id] = LogEnd(Epoch(stream.config.metadata.get(EPOCH, "")), stream.state.last_seq)
        if all(len(each.account_details) < ACCOUNTS_AT_ONCE for each in answers):
            return LogEnds(by_key, names, is_complete)
        offset += ACCOUNTS_AT_ONCE


async def _page(system: NatsConnection, offset: int, servers: int) -> list[_Details]:
    """Return a part of the accounts of each NATS server. Wait for this number of servers, or, if it is 0, for those of the
    cluster, but not longer than `TIMEOUT_S`: one of them may be down."""
    found: list[_Details] = []

    def is_enough(got: IncomingMessage) -> bool:
        answer = _answer.decode(got.data).data
        if answer is not None and not answer.disabled:
            found.append(answer)
        return bool(found) and len(found) >= (servers or found[-1].meta_cluster.cluster_size)

    options = {"accounts": True, "streams": True, "config": True, "stream_leader_only": True}
    query = msgspec.json.encode({**options, "limit": ACCOUNTS_AT_ONCE, "offset": offset})
    await system.request_all(_JETSTREAM, query, within_s=TIMEOUT_S, is_enough=is_enough)
    return found
