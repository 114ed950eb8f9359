"""How many NATS servers keep the streams together, and so how many copies a stream has."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from artcafe.errors import LogRefused, OurFault
from artcafe.fabric.nats.connection import NatsConnection, unreachable
from artcafe.observe.logs import log
from artcafe.rules.subjects import Subject

REPLICAS: Final = 3
"""With three, one may be lost (contract, sentence 11); each further one would cost every publish and survive what is rarer."""
RETRY_S: Final = 0.2

_JETSTREAM: Final = Subject("$SYS.REQ.SERVER.PING.JSZ")


async def replica_count(system: NatsConnection, *, within_s: float) -> int:
    """How many copies a log gets here: three in a cluster that has room for them, else one.

    A server of the cluster that is away now counts too: it comes back. Raises `Unavailable` where none says so in the time.
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
    """The servers of JetStream's own group, 1 for a server alone. Raises as `NatsConnection.request`, and `LogRefused`."""
    answer: dict[str, Any] = msgspec.json.decode((await system.request(_JETSTREAM, b"{}")).data)
    group, error = answer.get("data", {}).get("meta_cluster", {}), answer.get("error", {})
    if "data" in answer and "cluster" not in answer["server"]:
        return 1
    # Before they have a leader, each server counts whom it has met.
    if "leader" not in group:
        raise LogRefused(error.get("code", 0), error.get("description", "its servers have not found each other yet"))
    return int(group["cluster_size"])
