"""What the NATS servers report of themselves: version, JetStream, and how far each is behind the leader of the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from artcafe.errors import OurFault
from artcafe.fabric.nats.client import IncomingMessage
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.observe.logs import log
from artcafe.rules.subjects import Subject

NANOSECONDS: Final = 1e9

_JETSTREAM: Final = Subject("$SYS.REQ.SERVER.PING.JSZ")
_STATISTICS: Final = Subject("$SYS.REQ.SERVER.PING")

Document = dict[str, Any]


class NatsServer(msgspec.Struct, frozen=True, kw_only=True):
    """A NATS server. It answers now, or the leader of the cluster knows it: then only its name and the leader's view are known.

    `is_current`, `lag` (operations behind) and `contact_s` (seconds since the leader heard it) are the leader's view of a
    follower; None for the leader, for a single server, and while no leader answers.
    """

    name: str
    answers: bool
    host: str | None = None
    version: str | None = None
    started_at: datetime | None = None
    connections: int | None = None
    jetstream: bool | None = None
    streams: int | None = None
    messages: int | None = None
    stored_bytes: int | None = None
    is_leader: bool | None = None
    is_current: bool | None = None
    lag: int | None = None
    contact_s: float | None = None


class NatsState(NamedTuple):
    """The NATS servers. `cluster` and `leader` are None for a single server, or if they are unknown; `size` counts servers of the
    cluster that are down, too."""

    cluster: str | None
    size: int | None
    leader: str | None
    servers: list[NatsServer]


async def nats_state(system: NatsConnection, *, within_s: float) -> NatsState | None:
    """Return the servers that answer within this time, and those that the leader knows. None without an answer."""
    async with asyncio.TaskGroup() as group:
        jetstream = group.create_task(_asked(system, _JETSTREAM, within_s, _members_of))
        statistics = group.create_task(_asked(system, _STATISTICS, within_s, _active_servers))
    return state_of(jetstream.result(), statistics.result())


async def _asked(
    system: NatsConnection, subject: Subject, within_s: float, expected: Callable[[Document], int | None]
) -> list[Document]:
    """Return the answers of all servers. The wait ends with as many as one of them expects."""
    found: list[Document] = []

    def is_enough(reply: IncomingMessage) -> bool:
        found.append(msgspec.json.decode(reply.data))
        most = expected(found[-1]) if "error" not in found[-1] else None
        return most is not None and len(found) >= most

    try:
        await system.request_all(subject, b"{}", within_s=within_s, is_enough=is_enough)
    except OurFault as exc:
        log.debug("server_states.not_asked", error=repr(exc))
    return [each for each in found if "error" not in each]


def _active_servers(answer: Document) -> int | None:
    """Return the number of servers that one of them knows to run."""
    active: int | None = answer["statsz"].get("active_servers")
    return active


def _members_of(answer: Document) -> int | None:
    """Return the size of JetStream's meta group: 1 for a single server, None while it is unknown."""
    group = answer["data"].get("meta_cluster")
    if group is None:
        return None if "cluster" in answer["server"] else 1
    return int(group.get("cluster_size", 0)) or None


def state_of(jetstream: list[Document], statistics: list[Document]) -> NatsState | None:
    """Return the state from the answers to `JSZ` and `STATSZ` (nats-server, `server/monitor.go` and `server/events.go`)."""
    if not jetstream and not statistics:
        return None
    by_name = {each["server"]["name"]: each for each in (*statistics, *jetstream)}
    stored = {each["server"]["name"]: each["data"] for each in jetstream}
    counted = {each["server"]["name"]: each["statsz"] for each in statistics}
    groups = [group for data in stored.values() if (group := data.get("meta_cluster")) is not None]
    leader = next((group["leader"] for group in groups if group.get("leader")), None)
    # A follower does not know how far the others are; its view of them is not that.
    view = {each["name"]: each for each in (stored.get(leader, {}).get("meta_cluster", {}).get("replicas", []))}
    clusters = [name for each in by_name.values() if (name := each["server"].get("cluster"))]
    size = max((int(group.get("cluster_size", 0)) for group in groups), default=0) or (None if clusters else len(by_name))
    servers = [
        _server(name, by_name.get(name), stored.get(name), counted.get(name), view.get(name), leader)
        for name in sorted({*by_name, *view})
    ]
    return NatsState(clusters[0] if clusters else None, size, leader, servers)


def _server(
    name: str,
    answer: Document | None,
    stored: Document | None,
    counted: Document | None,
    seen: Document | None,
    leader: str | None,
) -> NatsServer:
    about: Document = {} if answer is None else answer["server"]
    jetstream = stored if stored is not None and not stored.get("disabled") else None
    return NatsServer(
        name=name,
        answers=answer is not None,
        host=about.get("host"),
        version=about.get("ver"),
        started_at=None if counted is None else msgspec.convert(counted["start"], datetime, strict=False),
        connections=None if counted is None else counted.get("connections", 0),
        jetstream=None if answer is None else bool(about.get("jetstream")),
        streams=None if jetstream is None else jetstream.get("streams", 0),
        messages=None if jetstream is None else jetstream.get("messages", 0),
        stored_bytes=None if jetstream is None else jetstream.get("storage", 0),
        is_leader=None if leader is None else name == leader,
        is_current=None if seen is None else _is_current(seen, answers=answer is not None),
        lag=None if seen is None else seen.get("lag", 0),  # Left out where it is 0.
        contact_s=None if seen is None else seen.get("active", 0) / NANOSECONDS,
    )


def _is_current(seen: Document, *, answers: bool) -> bool | None:
    """Return the leader's view. It calls a server current until it notices, after 10 s and more, that the server is gone: without
    an answer that is unknown."""
    if not seen.get("current") or seen.get("offline"):
        return False
    return True if answers else None
