"""What the NATS servers report of JetStream: the size of the cluster, from which the number of replicas follows, and its use."""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple

import msgspec

from artcafe.errors import LogRefused, OurFault
from artcafe.fabric.nats.connection import NatsConnection, unreachable
from artcafe.observe.logs import log
from artcafe.rules.subjects import Subject

REPLICAS: Final = 3
"""Three replicas survive the loss of one (contract, sentence 11). More would slow every publish, for rarer failures."""
RETRY_S: Final = 0.2

_JETSTREAM: Final = Subject("$SYS.REQ.SERVER.PING.JSZ")


async def replica_count(system: NatsConnection, *, within_s: float) -> int:
    """Return the number of replicas for a log: three in a cluster of at least three servers, else one.

    A server of the cluster that is down now counts too, since it comes back. Raise `Unavailable` without an answer in time.
    """
    try:
        async with asyncio.timeout(within_s):
            while True:
                try:
                    return REPLICAS if await _size(system) >= REPLICAS else 1
                except (OurFault, TimeoutError) as exc:
                    log.debug("cluster.not_known", error=repr(exc))
                    await asyncio.sleep(RETRY_S)
    except TimeoutError:
        raise unreachable() from None


async def _size(system: NatsConnection) -> int:
    """Return the size of JetStream's meta group, 1 for a single server. Raise as `NatsConnection.request`, and `LogRefused`."""
    answer: dict[str, Any] = msgspec.json.decode((await system.request(_JETSTREAM, b"{}")).data)
    group, error = answer.get("data", {}).get("meta_cluster", {}), answer.get("error", {})
    if "data" in answer and "cluster" not in answer["server"]:
        return 1
    # Before a leader is elected, each server counts only the servers it has met.
    if "leader" not in group:
        raise LogRefused(error.get("code", 0), error.get("description", "its servers have not found each other yet"))
    return int(group["cluster_size"])


class JetStreamUse(NamedTuple):
    """What the servers that answered store, each copy counted. `streams` has one for each log, however many copies it has."""

    servers: int
    streams: int
    messages: int
    stored_bytes: int


async def jetstream_use(system: NatsConnection, *, within_s: float) -> JetStreamUse:
    """Return the use of the servers that answer within this time. Raise `Unavailable` or `NatsConnectionLost`.

    A server counts the streams that it has a copy of, so that their number is exact for one server and for a cluster of three,
    and otherwise the highest of one server.
    """
    replies = [msgspec.json.decode(each.data) for each in await system.request_all(_JETSTREAM, b"{}", within_s=within_s)]
    found: list[dict[str, Any]] = [each["data"] for each in replies if "data" in each and not each["data"].get("disabled")]
    return JetStreamUse(
        servers=len(found),
        streams=max((each.get("streams", 0) for each in found), default=0),
        messages=sum(each.get("messages", 0) for each in found),
        stored_bytes=sum(each.get("storage", 0) for each in found),
    )
