"""The outcomes of messages of queues: who holds each, who has acknowledged it, or why it is a dead letter.

A message of a queue has one state for all subscribers, and nothing is stored for receipts. The servers know the holders of
messages and the agents of recent acks. The consumer's ack floor, the marks of dead letters and the end marks of queues with
`key_ordered`, all in NATS, show the ends (decision records 64 and 68).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from artcafe.fabric.end_mark_search import EndMarkSearch, SearchedQueue
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.log_lookups import read_in
from artcafe.fabric.marks import find_mark, find_marks
from artcafe.fabric.outcome_exchange import KnownOutcome, OutcomeQuestion
from artcafe.fabric.queue_consumer import QueueConsumer, QueueProgress
from artcafe.fabric.tenant_fabric import TenantFabric
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import AgentId, ChannelId, Epoch, Seq, TenantId
from artcafe.observe.clock import Clock
from artcafe.rules import subjects
from artcafe.services.delivery_states import DeliveryState
from artcafe.wire.envelopes import DeadLetterReason, parse_envelope

MARKS_AT_ONCE: Final = 1000
"""Marks in one request to NATS."""

WantedMessages = Mapping[ChannelId, Mapping[Seq, datetime | None]]
"""Messages by channel and sequence, and when each expires."""
ReadQueues = Callable[[TenantId, OutcomeQuestion], Sequence[KnownOutcome]]
"""Return the outcomes of messages that this server knows."""


class MessageOutcome(NamedTuple):
    """The state of a message of a queue, the agent that holds it or has acknowledged it, if that is known, and the reason of a
    dead letter."""

    state: DeliveryState
    agent: AgentId | None = None
    reason: str | None = None


PENDING: Final = MessageOutcome(DeliveryState.PENDING)
EXPIRED: Final = MessageOutcome(DeliveryState.EXPIRED)
UNKNOWN: Final = MessageOutcome(DeliveryState.UNKNOWN)
ACKED: Final = MessageOutcome(DeliveryState.ACKED)


def _nothing(_: TenantId, __: OutcomeQuestion) -> Sequence[KnownOutcome]:
    return ()


class QueueOutcomes:
    """Looks up the outcomes of messages."""

    def __init__(self, fabric: Fabric, clock: Clock) -> None:
        self._fabric, self._clock = fabric, clock
        self._read: ReadQueues = _nothing
        self._end_marks = EndMarkSearch()
        fabric.on_open(self._on_open)

    def set_queues(self, read: ReadQueues) -> None:
        """Read the queues of this server by `read`, for its own receipts and for the other servers'."""
        self._read = read

    def _on_open(self, tenant_fabric: TenantFabric) -> None:
        tenant_id = tenant_fabric.tenant_id
        tenant_fabric.outcomes.read = lambda question: self._read(tenant_id, question)

    async def look(
        self, tenant_id: TenantId, epoch: Epoch | None, wanted: WantedMessages
    ) -> dict[tuple[ChannelId, Seq], MessageOutcome]:
        """Return the outcome of each message of the log of this epoch. Raises `Unavailable` and `LogRefused`.

        An ack or a dead letter is shown only if it is certain. The consumers are read before the servers are asked: an ack that
        comes in between is found with its agent.
        """
        tenant_fabric = self._fabric.tenant(tenant_id)
        log, now = await tenant_fabric.connected_log(), self._clock()
        progress = {channel_id: await QueueConsumer(log, channel_id).progress() for channel_id in wanted}
        question = OutcomeQuestion(epoch, {channel_id: list(seqs) for channel_id, seqs in wanted.items()})
        there, is_complete = await tenant_fabric.outcomes.ask(question, self._fabric.announcements.peers())
        known = _by_message([*there, *self._read(tenant_id, question)])
        found: dict[tuple[ChannelId, Seq], MessageOutcome] = {}
        for channel_id, seqs in wanted.items():
            certain = await self._certain_outcomes(
                log, SearchedQueue(tenant_id, epoch, channel_id), seqs, known, progress[channel_id]
            )
            for seq, expires_at in seqs.items():
                has_expired = expires_at is not None and expires_at <= now
                found[channel_id, seq] = certain.get(seq) or _waiting(
                    seq, progress[channel_id], has_expired=has_expired, is_complete=is_complete
                )
        return found

    async def _certain_outcomes(
        self,
        log: TenantLog,
        queue: SearchedQueue,
        seqs: Collection[Seq],
        known: Mapping[tuple[ChannelId, Seq], MessageOutcome],
        progress: QueueProgress,
    ) -> dict[Seq, MessageOutcome]:
        """Return the messages of a queue with a certain outcome: dead letters, those known to a server, and acknowledged ones."""
        of_servers = {seq: outcome for seq in seqs if (outcome := known.get((queue.channel_id, seq))) is not None}
        dead = await _dead(log, queue.channel_id, [seq for seq in seqs if not _is_held(of_servers.get(seq))])
        found = of_servers | dead
        delivered = [seq for seq in seqs if progress.floor < seq <= progress.delivered and seq not in found]
        found |= dict.fromkeys(await self._end_marks.ended(log, queue, delivered), ACKED)
        for seq in seqs:
            if seq <= progress.floor and seq not in found:
                found[seq] = await _below_floor(log, queue.channel_id, seq)
        return found


def _by_message(known: Iterable[KnownOutcome]) -> dict[tuple[ChannelId, Seq], MessageOutcome]:
    """Return the outcome of each message known to a server. A held one has lost its ack, if there was one."""
    found: dict[tuple[ChannelId, Seq], MessageOutcome] = {}
    for each in sorted(known, key=lambda one: not one.is_acked):
        state = DeliveryState.ACKED if each.is_acked else DeliveryState.DELIVERED
        found[each.channel, each.seq] = MessageOutcome(state, each.agent)
    return found


def _is_held(outcome: MessageOutcome | None) -> bool:
    return outcome is not None and outcome.state is DeliveryState.DELIVERED


def _waiting(seq: Seq, progress: QueueProgress, *, has_expired: bool, is_complete: bool) -> MessageOutcome:
    """Return the outcome of a message without a known holder or a certain end.

    One that was delivered before it expired may have been acknowledged; without its mark that is uncertain.
    """
    if seq > progress.delivered:
        return EXPIRED if has_expired else PENDING
    return PENDING if is_complete else UNKNOWN


async def _dead(log: TenantLog, channel: ChannelId, seqs: list[Seq]) -> dict[Seq, MessageOutcome]:
    """Return the dead letters among the messages, as far as a replica knows."""
    found: dict[Seq, MessageOutcome] = {}
    for start in range(0, len(seqs), MARKS_AT_ONCE):
        wanted = [subjects.dead_mark(channel, seq) for seq in seqs[start : start + MARKS_AT_ONCE]]
        for subject, mark in (await find_marks(log, wanted)).items():
            seq = subjects.marked_seq(subject)
            found[seq] = await _letter(log, channel, seq, mark.seq)
    return found


async def _letter(log: TenantLog, channel: ChannelId, seq: Seq, mark: Seq) -> MessageOutcome:
    """Return the outcome of a message with a mark. Its letter is stored just before that, until retention removes it."""
    envelope = await log.read(mark - 1)
    letter = None if envelope is None else parse_envelope(envelope).dead_letter
    reason = letter.reason if letter is not None and (letter.channel, letter.seq) == (channel, seq) else None
    state = DeliveryState.EXPIRED if reason == DeadLetterReason.EXPIRED else DeliveryState.DEAD_LETTERED
    return MessageOutcome(state, None, reason)


async def _below_floor(log: TenantLog, channel: ChannelId, seq: Seq) -> MessageOutcome:
    """Return the outcome of a message that has ended: it was acknowledged, unless it has a mark or was removed by retention.

    The leader is asked, in this order: the mark of a message that is still stored is stored too.
    """
    mark = await find_mark(log, subjects.dead_mark(channel, seq))
    if mark is not None:
        return await _letter(log, channel, seq, mark.seq)
    return UNKNOWN if await read_in(log, channel, seq) is None else ACKED
