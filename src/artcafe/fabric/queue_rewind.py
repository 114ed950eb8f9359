"""Queue consumers that are ahead of their log.

A log that has lost its newest messages, by a restore or a damaged disk, gives their sequences to other messages. A consumer that
has delivered the lost ones would skip those. It is rewound before the first of them is stored, because nothing shows the loss
afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from artcafe.errors import LogRefused
from artcafe.fabric.log_state import LogState
from artcafe.fabric.nats.connection import NatsConnection, unreachable
from artcafe.fabric.nats.jetstream import JetStream
from artcafe.fabric.tenant_log import STREAM, TenantLog
from artcafe.model import Cursor, Seq
from artcafe.observe.logs import log
from artcafe.rules import subjects

LAG_S: Final = 0.5
"""How long the leader of a log may apply a message later than a replica that leads a consumer, before that counts as a loss."""


async def prepare_log(tenant_log: TenantLog) -> None:
    """Create the log if it does not exist, and rewind the consumers that are ahead of it. Call it before the first write on each
    connection to NATS. May be repeated, also concurrently. Raise `Unavailable` or `LogRefused`.

    A cluster is not checked: it loses the end of a log only with a majority of its disks, or by a restore, which rewinds by
    itself; and it may take seconds for the list while a node is down.
    """
    state = await tenant_log.ensure()
    if tenant_log.replicas == 1 and state.consumers:
        jetstream = JetStream(tenant_log.connection)
        for info in await _ahead(jetstream, state.last_seq):
            lost = await confirm_loss(tenant_log, state, info)
            if lost is not None:
                await rewind(jetstream, info["name"], lost.last_seq)
    tenant_log.is_prepared = True


async def rewind_all(connection: NatsConnection, last_seq: Seq, moved: Mapping[str, Seq]) -> None:
    """Rewind the consumers that are ahead of a restored log. Its epoch is new already. Raise `Unavailable` or `LogRefused`.

    A snapshot has the consumers as they were when all messages had been read, so they may have passed the last of these, and have
    ended messages whose dead letters are not in it. `moved` has the oldest such message by the name of its consumer.
    """
    jetstream = JetStream(connection)
    for info in await _queue_consumers(jetstream):
        name = info["name"]
        if is_ahead(info, last_seq) or moved.get(name, last_seq + 1) <= last_seq:
            await _make_again(jetstream, info, min(last_seq, moved.get(name, last_seq + 1) - 1))


async def _ahead(jetstream: JetStream, last_seq: Seq) -> list[dict[str, Any]]:
    """Return the information on each queue consumer that is ahead of a log ending at `last_seq`."""
    return [info for info in await _queue_consumers(jetstream) if is_ahead(info, last_seq)]


async def _queue_consumers(jetstream: JetStream) -> list[dict[str, Any]]:
    """Return the information on each queue consumer."""
    found: list[dict[str, Any]] = []
    offset = 0
    while True:
        answer = await jetstream.request(f"CONSUMER.LIST.{STREAM}", {"offset": offset})
        page = answer.get("consumers") or []
        found += [info for info in page if subjects.is_queue_consumer(info["name"])]
        offset += len(page)
        if not page or offset >= answer["total"]:
            return found


def is_ahead(info: dict[str, Any], last_seq: Seq) -> bool:
    """Return whether a consumer has delivered more than a log ending at `last_seq` has."""
    return bool(info["delivered"]["stream_seq"] > last_seq)


async def confirm_loss(tenant_log: TenantLog, known: LogState, info: dict[str, Any]) -> LogState | None:
    """Return the state of a log that lost messages which a consumer has delivered, under an epoch other than the `known` one.
    Return None if the log has them. Raise `Unavailable`, also if the log's leader may have been cut off.
    """
    delivered: Seq = info["delivered"]["stream_seq"]
    if tenant_log.replicas > 1:
        await asyncio.sleep(LAG_S)
    state = await tenant_log.state_for(Cursor(epoch=known.epoch, seq=delivered))
    return None if state is None or state.epoch == known.epoch else state


async def rewind(jetstream: JetStream, name: str, last_seq: Seq) -> dict[str, Any]:
    """Make a consumer again that is ahead of a log ending at `last_seq`, and return its information. It delivers the messages
    above its ack floor and above `last_seq`, some of them again. Raise `Unavailable`, also if another server does the same."""
    try:
        info = await jetstream.request(f"CONSUMER.INFO.{STREAM}.{name}", {})
        if not is_ahead(info, last_seq):
            return info  # another server was first
        return await _make_again(jetstream, info, last_seq)
    except LogRefused as exc:
        raise unreachable() from exc


async def _make_again(jetstream: JetStream, info: dict[str, Any], most: Seq) -> dict[str, Any]:
    """Make a consumer again that delivers the messages above its ack floor, or above `most` if that is lower. Return its
    information. Raise `Unavailable` or `LogRefused`."""
    name, floor = info["name"], min(info["ack_floor"]["stream_seq"], most)
    log.warning("queue.rewound", consumer=name, delivered=info["delivered"]["stream_seq"], to=floor)
    await jetstream.request(f"CONSUMER.DELETE.{STREAM}.{name}", {})
    start = {"deliver_policy": "by_start_sequence", "opt_start_seq": floor + 1}
    body = {"stream_name": STREAM, "config": {**info["config"], **start}, "action": ""}
    return await jetstream.request(f"CONSUMER.CREATE.{STREAM}.{name}.{info['config']['filter_subject']}", body)
