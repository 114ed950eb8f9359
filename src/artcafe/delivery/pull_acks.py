"""Acks of pulled messages: each entry is checked by itself, and its cursor is written before the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec

from artcafe.delivery.pull_page import newest_seqs, state_for
from artcafe.errors import AckBeyondLog, ArtcafeError, EpochEnded, Invalid, OurFault, SubscriptionNotFound
from artcafe.fabric.channel_kinds import KINDS
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.log_state import LogState
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import AgentPrincipal, Cursor, Seq, Subscription
from artcafe.rules import start_position
from artcafe.rules.start_position import LogLineage
from artcafe.services.cursors import Cursors
from artcafe.services.record_cache import RecordCache
from artcafe.services.retention import Retention
from artcafe.services.subscriptions import Subscriptions


class PulledAck(NamedTuple):
    """An ack of every message of a channel up to `seq`."""

    channel: str
    seq: Seq


class AckServices(Protocol):
    """The services for acks."""

    @property
    def subscriptions(self) -> Subscriptions: ...

    @property
    def record_cache(self) -> RecordCache: ...

    @property
    def cursors(self) -> Cursors: ...

    @property
    def fabric(self) -> Fabric: ...

    @property
    def retention(self) -> Retention: ...


@dataclass(slots=True)
class _Channel:
    """A subscribed channel, its cursor, and the highest sequence allowed in an ack: that of its newest message, or the
    position of the next pull."""

    subscription: Subscription
    cursor: Cursor
    most: Seq

    def was_moved_since(self, moves: Mapping[str, int] | None) -> bool:
        """Return whether the cursor was moved after the pull with these moves. None: the moves of the pull are unknown."""
        return moves is not None and moves.get(self.subscription.channel_id, 0) < self.subscription.cursor.moves


class PullAcks:
    """Acknowledges messages without a connection.

    A server does not know the pulls of others, so the bound of an ack is the channel's newest message.
    """

    def __init__(self, services: AckServices) -> None:
        self._services = services

    async def acknowledge(
        self, principal: AgentPrincipal, acks: Sequence[PulledAck], epoch: str | None, moves: Mapping[str, int] | None = None
    ) -> list[ArtcafeError | None]:
        """Move the cursors of acknowledged messages, and return the error of each ack; None for a written one.

        An ack below the cursor changes nothing, so acks may be repeated. `epoch`: the log's at the pull of the messages; an
        agent must give it after a restore of the log, since sequences of both logs are alike. `moves`: those of the pull, by
        channel id; an ack changes nothing if a request has moved the cursor since. Raises `Unavailable` if nothing was changed.
        """
        log = await self._services.fabric.tenant(principal.tenant_id).connected_log()
        outcomes = await self._channels(principal, list(dict.fromkeys(ack.channel for ack in acks)))
        channels = {name: found for name, found in outcomes.items() if isinstance(found, _Channel)}
        state = await state_for(log, [each.cursor for each in channels.values()])
        if channels:
            await self._find_ends(log, state, channels, acks)
        errors: list[ArtcafeError | None] = []
        to_write: dict[str, Seq] = {}
        for ack in acks:
            channel = outcomes[ack.channel]
            error = _refusal(channel, ack, state, epoch) if isinstance(channel, _Channel) else channel
            errors.append(error)
            if error is None and isinstance(channel, _Channel) and not channel.was_moved_since(moves):
                to_write[ack.channel] = max(ack.seq, to_write.get(ack.channel, 0))
        if state is None:
            return errors  # without a log there is nothing above any cursor
        failed = await self._write(channels, {name: Cursor(epoch=state.epoch, seq=seq) for name, seq in to_write.items()})
        return [error or failed.get(ack.channel) for ack, error in zip(acks, errors, strict=True)]

    async def _channels(self, principal: AgentPrincipal, names: Sequence[str]) -> dict[str, _Channel | ArtcafeError]:
        """Return each subscribed channel, by id or handle, or the error of its acks."""
        ids = [await self._services.record_cache.channel_id(principal.tenant_id, name) for name in names]
        pairs = [(channel_id, principal.agent_id) for channel_id in ids]
        found: dict[str, _Channel | ArtcafeError] = {}
        for name, row in zip(names, await self._services.subscriptions.now(principal.tenant_id, pairs), strict=True):
            found[name] = SubscriptionNotFound(principal.agent_id) if row is None else await self._channel(row)
        return found

    async def _channel(self, row: Subscription) -> _Channel | ArtcafeError:
        try:
            channel = await self._services.record_cache.subscribed(row.tenant_id, row.channel_id)
        except OurFault:
            raise
        except ArtcafeError as exc:  # it is being deleted
            return exc
        kind = KINDS[channel.type]
        if kind.is_shared:
            return Invalid("receipt", "is required for a message of a queue channel: send that of its pull")
        if not kind.has_log:
            return Invalid("channel", "is a live channel, whose messages are not acknowledged")
        return _Channel(row, self._services.cursors.newest(row), 0)

    async def _find_ends(
        self, log: TenantLog, state: LogState | None, channels: Mapping[str, _Channel], acks: Sequence[PulledAck]
    ) -> None:
        """Set the highest sequence of each channel allowed in an ack."""
        if state is None:
            return
        newest = await newest_seqs(log, state, [each.subscription.channel_id for each in channels.values()])
        for each in channels.values():
            each.most = newest.get(each.subscription.channel_id, 0)
        above = [channels[ack.channel] for ack in acks if ack.channel in channels and ack.seq > channels[ack.channel].most]
        for each in above:  # an ack of a gap without later messages, or of what was acknowledged before
            removed_to = await self._services.retention.removed_to(each.subscription.tenant_id, each.subscription.channel_id)
            start, _ = start_position.resolve("cursor", each.cursor, state.lineage, state.last_seq, removed_to)
            each.most = max(each.most, start)

    async def _write(self, channels: Mapping[str, _Channel], cursors: Mapping[str, Cursor]) -> dict[str, ArtcafeError]:
        """Write cursors, and return the errors of the others."""
        failed: dict[str, ArtcafeError] = {}

        async def write(name: str, cursor: Cursor) -> None:
            row = channels[name].subscription
            cursor = msgspec.structs.replace(cursor, moves=row.cursor.moves)
            try:
                await self._services.cursors.write_now(row.tenant_id, row.channel_id, row.agent_id, cursor)
            except OurFault as exc:
                failed[name] = exc

        async with asyncio.TaskGroup() as group:
            for name, cursor in cursors.items():
                group.create_task(write(name, cursor))
        return failed


def _refusal(channel: _Channel, ack: PulledAck, state: LogState | None, epoch: str | None) -> ArtcafeError | None:
    """Return the error of an ack, or None if it may be written."""
    lineage = LogLineage(None) if state is None else state.lineage
    if epoch is not None and epoch != lineage.epoch:
        return EpochEnded()
    if epoch is None and lineage.last_shared_seq(channel.cursor.epoch) is not None:
        return EpochEnded()
    if ack.seq > channel.most:
        return AckBeyondLog(ack.channel, ack.seq, channel.most)
    return None
