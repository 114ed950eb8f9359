"""Whether every NATS server has each of its streams completely, so that another server may be stopped."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from artcafe.fabric.nats.client import IncomingMessage
from artcafe.fabric.nats.cluster import REPLICAS
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.nats.stream_reports import TIMEOUT_S, StreamReports, read_stream_reports
from artcafe.model import Seq
from artcafe.rules.subjects import Subject

GRACE_S: Final = 1.0
"""A copy is behind if it lacks a message that another has had for this long. Copies are some milliseconds behind at any time."""

_HEALTH: Final = Subject("$SYS.REQ.SERVER.PING.HEALTHZ")

StreamKey = tuple[str, str]
"""The public key of an account, and the name of a stream."""


class ServerCopies(msgspec.Struct, frozen=True, kw_only=True):
    """The copies of a server. `streams`, those it has, is None if it does not answer. `behind`: its copies that are missing or
    lack messages. `problem`: what it reports of its own health, None if that is good."""

    name: str
    streams: int | None
    behind: int
    problem: str | None

    @property
    def is_complete(self) -> bool:
        return self.streams is not None and not self.behind and self.problem is None


class StreamCopies(msgspec.Struct, frozen=True, kw_only=True):
    """The servers of a cluster, or a single server. `few_copies`: streams with fewer copies than the cluster has servers for."""

    is_complete: bool
    streams: int
    few_copies: int
    servers: list[ServerCopies]


async def check_copies(system: NatsConnection) -> StreamCopies:
    """Ask all servers for their copies twice, `GRACE_S` apart, and for their health. Raise `Unavailable` or `NatsConnectionLost`.

    The health alone does not show it: a server that has just returned with an empty disk calls itself healthy for a moment,
    before it has heard of its streams (nats-server 2.15.1).
    """
    before = await read_stream_reports(system, leaders_only=False)
    await asyncio.sleep(GRACE_S)
    after = await read_stream_reports(system, leaders_only=False)
    names = before.known | after.known
    problems = await _problems(system, len(names))
    ends, members = _ends(before), _members(before, after)
    held = {name: _copies(after, name) for name in after.by_server}
    behind = _behind(ends, members, held)
    servers = [
        ServerCopies(
            name=name,
            streams=len(held[name]) if name in held else None,
            behind=behind[name],
            problem=problems.get(name, "no answer"),
        )
        for name in sorted(names)
    ]
    return StreamCopies(
        is_complete=before.is_complete and after.is_complete and all(each.is_complete for each in servers),
        streams=len(members),
        few_copies=sum(len(each) < min(REPLICAS, len(names)) for each in members.values()),
        servers=servers,
    )


def _copies(reports: StreamReports, server: str) -> dict[StreamKey, Seq]:
    """Return the last sequence of each stream of a server."""
    accounts = reports.by_server.get(server, [])
    return {(each.id, stream.name): stream.state.last_seq for each in accounts for stream in each.stream_detail}


def _ends(reports: StreamReports) -> dict[StreamKey, Seq]:
    """Return the highest sequence that any server has, for each stream."""
    return _highest(_copies(reports, name) for name in reports.by_server)


def _highest(copies: Iterable[Mapping[StreamKey, Seq]]) -> dict[StreamKey, Seq]:
    found = dict[StreamKey, Seq]()
    for each in copies:
        for key, seq in each.items():
            found[key] = max(seq, found.get(key, 0))
    return found


def _members(*reports: StreamReports) -> dict[StreamKey, set[str]]:
    """Return the names of the servers that have a copy or should have one, for each stream."""
    found = defaultdict[StreamKey, set[str]](set)
    for each in reports:
        for server, accounts in each.by_server.items():
            for account in accounts:
                for stream in account.stream_detail:
                    found[account.id, stream.name].update([server], stream.peers())
    return found


def _behind(
    ends: Mapping[StreamKey, Seq], members: Mapping[StreamKey, set[str]], held: Mapping[str, Mapping[StreamKey, Seq]]
) -> defaultdict[str, int]:
    """Return the number of copies of each server that lack messages. A stream that was deleted or rewritten since `ends` is
    compared with what it is now."""
    now, found = _highest(held.values()), defaultdict[str, int](int)
    for key in ends.keys() & now.keys():
        for server in members[key]:
            found[server] += held.get(server, {}).get(key, -1) < min(ends[key], now[key])
    return found


async def _problems(system: NatsConnection, servers: int) -> dict[str, str | None]:
    """Return what each server that answers reports of its health: None if that is good."""
    found = dict[str, str | None]()

    def is_enough(got: IncomingMessage) -> bool:
        answer: dict[str, Any] = msgspec.json.decode(got.data)
        health = answer.get("data", {})
        found[answer["server"]["name"]] = None if health.get("status") == "ok" else health.get("error", "no health")
        return len(found) >= servers

    await system.request_all(_HEALTH, b"{}", within_s=TIMEOUT_S, is_enough=is_enough)
    return found
