"""Acks, naks and extensions of pulled queue messages, by their receipts, whichever server they reach.

The server of the pull decides: it alone knows whether the message is still held. If that server has ended, it gives the
message back no more, so the receipt's deadline decides, by this server's clock. NATS redelivers `MARGIN_S` later than that.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

import msgspec

from artcafe.delivery.pull_holds import ACK, EXTEND, REJECT, HoldChange, HoldOutcome, PullHolds
from artcafe.delivery.queue_feed import QueueFeed
from artcafe.errors import ArtcafeError, Invalid, NatsConnectionLost, NoResponder, OurFault, PullNotHeld, Unavailable
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.key_log import store_end
from artcafe.fabric.queue_acks import ACK as ACK_BODY
from artcafe.fabric.queue_acks import PROGRESS, nak_body
from artcafe.fabric.queue_fetch import settle
from artcafe.fabric.work_queue import QueuedMessage
from artcafe.model import AgentId, AgentPrincipal, QueueSettings, Seq, TenantId
from artcafe.observe.clock import Clock
from artcafe.rules import hold_receipts
from artcafe.rules.hold_receipts import HoldReceipt
from artcafe.rules.queues import pause_after
from artcafe.services.record_cache import RecordCache

MAX_DELAY_S: Final = 24 * 3600


class SettleEntry(NamedTuple):
    """One entry of a request about pulled queue messages."""

    kind: str
    channel: str
    seq: Seq
    receipt: str | None
    delay_s: float | None = None


class Settled(NamedTuple):
    """The outcome of an entry; of an extended message the new receipt and deadline."""

    error: ArtcafeError | None = None
    receipt: str | None = None
    held_until: datetime | None = None


class _Request(msgspec.Struct, frozen=True, array_like=True):
    """Changes to be passed on to the server of the pull."""

    tenant_id: TenantId
    agent_id: AgentId
    changes: list[HoldChange]


_requests = msgspec.json.Decoder(_Request)
_outcomes = msgspec.json.Decoder(list[HoldOutcome])
_encode = msgspec.json.Encoder().encode


class SettleServices(Protocol):
    """The services for acks of queue messages."""

    @property
    def fabric(self) -> Fabric: ...

    @property
    def record_cache(self) -> RecordCache: ...

    @property
    def clock(self) -> Clock: ...


class PullSettling:
    """Ends and extends the holds of pulled messages, on this server or another."""

    def __init__(self, services: SettleServices, holds: PullHolds, key: bytes) -> None:
        """`key` seals the receipts: 32 bytes, the same on every server."""
        self._services, self._holds, self._key = services, holds, key
        services.fabric.hold_requests.answer_by(self._answer)

    def receipt(self, principal: AgentPrincipal, feed: QueueFeed, message: QueuedMessage, until: datetime) -> str:
        """Return the receipt of a message held by the agent's pull on this server until then."""
        server, epoch = self._services.fabric.hold_requests.server, feed.queue.epoch
        made = HoldReceipt(server, feed.channel, message.seq, message.deliveries, message.ack_subject, epoch, _ms(until))
        return hold_receipts.seal(self._key, principal.tenant_id, principal.agent_id, made)

    async def settle(self, principal: AgentPrincipal, entries: Sequence[SettleEntry]) -> list[Settled]:
        """Return the outcome of each entry. A wrong one does not stop the others."""
        outcomes: dict[int, Settled] = {}
        by_server: dict[str, list[tuple[int, SettleEntry, HoldReceipt]]] = defaultdict(list)
        for at, entry in enumerate(entries):
            try:
                receipt = self._opened(principal, entry)
            except Invalid as exc:
                outcomes[at] = Settled(exc)
            else:
                by_server[receipt.server].append((at, entry, receipt))
        for server, part in by_server.items():
            changes = [
                HoldChange(entry.kind, receipt.channel, entry.seq, receipt.deliveries, entry.delay_s)
                for _, entry, receipt in part
            ]
            found = await self._settle_at(server, principal, changes)
            for index, (at, entry, receipt) in enumerate(part):
                outcome = found if isinstance(found, OurFault) else found[index] if found is not None else None
                outcomes[at] = await self._settled(principal, entry, receipt, outcome)
        return [outcomes[at] for at in range(len(entries))]

    def _opened(self, principal: AgentPrincipal, entry: SettleEntry) -> HoldReceipt:
        """Return the receipt of an entry. Raises `Invalid`."""
        if entry.receipt is None:
            raise Invalid("receipt", "is required: send that of the pulled message, which must be one of a queue channel")
        receipt = hold_receipts.open(self._key, principal.tenant_id, principal.agent_id, entry.receipt)
        if receipt.seq != entry.seq:
            raise Invalid("receipt", f"is that of message {receipt.seq}")
        if entry.delay_s is not None and not 0 <= entry.delay_s <= MAX_DELAY_S:
            raise Invalid("delay_s", f"must be from 0 to {MAX_DELAY_S}")
        return receipt

    async def _settle_at(
        self, server: str, principal: AgentPrincipal, changes: list[HoldChange]
    ) -> list[HoldOutcome] | OurFault | None:
        """Return the outcomes of the server of the pull; None if it has ended, and an error without an answer."""
        requests, who = self._services.fabric.hold_requests, (principal.tenant_id, principal.agent_id)
        if server == requests.server:
            return await self._holds.settle(*who, changes)
        try:
            return _outcomes.decode(await requests.ask(server, _encode(_Request(*who, changes))))
        except NoResponder:
            return None
        except (TimeoutError, NatsConnectionLost, Unavailable):
            return Unavailable("the server that pulled the message")

    async def _answer(self, body: bytes) -> bytes:
        """Answer another server."""
        request = _requests.decode(body)
        return _encode(await self._holds.settle(request.tenant_id, request.agent_id, request.changes))

    async def _settled(
        self, principal: AgentPrincipal, entry: SettleEntry, receipt: HoldReceipt, outcome: HoldOutcome | OurFault | None
    ) -> Settled:
        if isinstance(outcome, HoldOutcome):
            if outcome.code == PullNotHeld.code:
                return Settled(PullNotHeld(entry.channel, entry.seq))
            if outcome.code is not None:
                return Settled(Unavailable("the message log (NATS)"))
            return self._extended(principal, receipt, outcome.left_s) if entry.kind == EXTEND else Settled()
        if outcome is not None and entry.kind != ACK:
            # The other server may still run, and give the message back by its own clock. An ack is final, and is sent anyway.
            return Settled(Unavailable("the server that pulled the message"))
        try:
            return await self._settle_directly(principal, entry, receipt)
        except OurFault as exc:
            return Settled(exc)

    async def _settle_directly(self, principal: AgentPrincipal, entry: SettleEntry, receipt: HoldReceipt) -> Settled:
        """Send an entry to NATS without the server of the pull, before the message's deadline. Raises `Unavailable`."""
        began = time.monotonic()
        log = await self._services.fabric.tenant(principal.tenant_id).connected_log()
        state = await log.state()
        is_late = self._now_ms() >= receipt.until_ms
        if is_late or state is None or state.epoch != receipt.epoch:
            return Settled(PullNotHeld(entry.channel, entry.seq))
        if entry.kind == REJECT:
            # Only the other server has the message, to move it.
            return Settled(Unavailable("the server that pulled the message"))
        channel = await self._services.record_cache.channel(principal.tenant_id, receipt.channel)
        settings = channel.queue or QueueSettings()
        match entry.kind:
            case "ack":
                if settings.key_ordered:
                    await store_end(log, receipt.channel, [entry.seq])
                body = ACK_BODY
            case "nak":
                body = nak_body(pause_after(settings, receipt.deliveries) if entry.delay_s is None else entry.delay_s)
            case _:
                body = PROGRESS
        await settle(log.connection, receipt.ack_subject, body)
        if entry.kind == ACK:
            self._holds.note_ack(principal.tenant_id, principal.agent_id, receipt.channel, entry.seq, receipt.epoch)
        if entry.kind != EXTEND:
            return Settled()
        return self._extended(principal, receipt, settings.ack_wait_s - (time.monotonic() - began))

    def _extended(self, principal: AgentPrincipal, receipt: HoldReceipt, left_s: float) -> Settled:
        until = self._services.clock() + timedelta(seconds=left_s)
        later = msgspec.structs.replace(receipt, until_ms=_ms(until))
        return Settled(None, hold_receipts.seal(self._key, principal.tenant_id, principal.agent_id, later), until)

    def _now_ms(self) -> int:
        return _ms(self._services.clock())


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)
