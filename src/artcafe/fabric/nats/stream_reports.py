"""What the NATS servers report of their streams: all accounts in a few requests instead of one for each stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from artcafe.fabric.nats.client import IncomingMessage
from artcafe.fabric.nats.connection import NatsConnection, unreachable
from artcafe.model import Seq
from artcafe.rules.subjects import Subject

ACCOUNTS_AT_ONCE: Final = 256
"""Accounts in one answer, at about 1.2 KB each."""
TIMEOUT_S: Final = 2.0

_JETSTREAM: Final = Subject("$SYS.REQ.SERVER.PING.JSZ")


class StreamConfig(msgspec.Struct):
    metadata: dict[str, str] = {}


class StreamState(msgspec.Struct):
    last_seq: Seq


class Peer(msgspec.Struct):
    name: str


class StreamCluster(msgspec.Struct):
    """`replicas`: the other servers with a copy."""

    replicas: list[Peer] = []


class StreamReport(msgspec.Struct):
    """A stream as a server has it. `cluster` is a `StreamCluster`, decoded only where it is needed; empty for a single server."""

    name: str
    config: StreamConfig
    state: StreamState
    cluster: msgspec.Raw = msgspec.Raw(b"{}")

    def peers(self) -> list[str]:
        """Return the names of the other servers with a copy."""
        return [each.name for each in _cluster.decode(self.cluster).replicas]


class AccountReport(msgspec.Struct):
    """An account, by name and public key, with its streams."""

    name: str
    id: str
    stream_detail: list[StreamReport] = []


class _Server(msgspec.Struct):
    name: str


class _MetaGroup(msgspec.Struct, frozen=True):
    cluster_size: int = 1
    replicas: list[Peer] = []


class _Details(msgspec.Struct):
    account_details: list[AccountReport] = []
    meta_cluster: _MetaGroup = _MetaGroup()
    disabled: bool = False


class _Answer(msgspec.Struct):
    """The answer of `JSZ` (nats-server, `server/monitor.go`)."""

    server: _Server
    data: _Details | None = None


_answer = msgspec.json.Decoder(_Answer)
_cluster = msgspec.json.Decoder(StreamCluster)


@dataclass(slots=True)
class StreamReports:
    """The reports of the servers that answered. `known`: the names of all servers that one of these has heard of.

    `is_complete`: whether every server of the cluster has answered each request.
    """

    by_server: dict[str, list[AccountReport]]
    known: set[str]
    is_complete: bool


class _Page(NamedTuple):
    server: str
    details: _Details


async def read_stream_reports(system: NatsConnection, *, leaders_only: bool) -> StreamReports:
    """Ask the NATS servers for their streams; with `leaders_only`, each for those that it leads.

    Raise `Unavailable` or `NatsConnectionLost`.
    """
    found, servers, offset = StreamReports({}, set(), is_complete=True), 0, 0
    while True:
        pages = await _read_page(system, offset, servers, leaders_only=leaders_only)
        if not pages:
            raise unreachable()
        servers = len(pages)
        for server, details in pages:
            found.by_server.setdefault(server, []).extend(details.account_details)
            found.known.update([server], (each.name for each in details.meta_cluster.replicas))
        found.is_complete &= servers >= max(each.details.meta_cluster.cluster_size for each in pages)
        if all(len(each.details.account_details) < ACCOUNTS_AT_ONCE for each in pages):
            return found
        offset += ACCOUNTS_AT_ONCE


async def _read_page(system: NatsConnection, offset: int, servers: int, *, leaders_only: bool) -> list[_Page]:
    """Return a part of the accounts of each NATS server. Wait for this number of servers, or, if it is 0, for those of the
    cluster, but not longer than `TIMEOUT_S`: one of them may be down."""
    found: list[_Page] = []

    def is_enough(got: IncomingMessage) -> bool:
        answer = _answer.decode(got.data)
        if answer.data is not None and not answer.data.disabled:
            found.append(_Page(answer.server.name, answer.data))
        return bool(found) and len(found) >= (servers or found[-1].details.meta_cluster.cluster_size)

    options = {"accounts": True, "streams": True, "config": True, "stream_leader_only": leaders_only}
    query = msgspec.json.encode({**options, "limit": ACCOUNTS_AT_ONCE, "offset": offset})
    await system.request_all(_JETSTREAM, query, within_s=TIMEOUT_S, is_enough=is_enough)
    return found
