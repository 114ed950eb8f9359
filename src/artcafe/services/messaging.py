"""Publishing: access, validation, the envelope and the idempotency key, shared by REST and the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from artcafe.errors import (
    AgentNotFound,
    ArtcafeError,
    Invalid,
    LoopStopped,
    NotFound,
    ScheduledLimit,
    Unavailable,
)
from artcafe.fabric.channel_kinds import KINDS
from artcafe.fabric.fabric import Fabric
from artcafe.model import Access, AgentPrincipal, Channel, ChannelId, Permission, Principal
from artcafe.observe import metrics
from artcafe.observe.clock import Clock
from artcafe.observe.tracing import Tracing
from artcafe.rules import access, ids, inboxes, message_times, subjects, times
from artcafe.rules.plans import Limit
from artcafe.rules.publish_checks import check_partition, check_publish
from artcafe.rules.usage import Metric
from artcafe.services.audiences import Audiences
from artcafe.services.causes import Cause
from artcafe.services.loop_guard import Admission, LoopGuard
from artcafe.services.rate_limits import RateLimits
from artcafe.services.record_cache import RecordCache
from artcafe.services.scheduler import Scheduler
from artcafe.services.usage_counters import UsageCounters
from artcafe.wire import envelopes, frames, replies, trace_context
from artcafe.wire.envelopes import ChainLink


class Submitted(NamedTuple):
    """A queued message: the id of its channel or inbox, and the future of its outcome."""

    channel: ChannelId
    outcome: asyncio.Future[replies.PublishReply]


class PublishAttempt(NamedTuple):
    """A publish to a channel, by a principal that may publish there, until the message is queued or refused."""

    principal: Principal
    channel: Channel
    publish: frames.Publish
    admission: Admission | None
    """Of an answer: its place in its chain, or the refusal. None for other messages, and if it was not admitted yet."""


class Messaging:
    """Publishes messages to channels."""

    def __init__(
        self,
        record_cache: RecordCache,
        fabric: Fabric,
        clock: Clock,
        usage: UsageCounters,
        rate_limits: RateLimits,
        loop_guard: LoopGuard,
        scheduler: Scheduler,
        audiences: Audiences,
        tracing: Tracing | None = None,
    ) -> None:
        self._record_cache, self._fabric, self._clock, self._usage = record_cache, fabric, clock, usage
        self.audiences = audiences
        self._rate_limits, self._loop_guard, self._tracing = rate_limits, loop_guard, tracing
        self._scheduler = scheduler

    async def publish(self, principal: Principal, channel_id: str, publish: frames.Publish) -> replies.PublishReply:
        """Store a message, and return its position once it is flushed to disk. A live channel's message is only sent.

        Raises `ChannelNotFound`, `Forbidden`, `Invalid`, `TooLarge`, `LimitExceeded`, `RateExceeded`, `CauseNotFound`,
        `LoopStopped`, `QuotaFull`, `NotStored`, `KeyReused` (not stored), or `OutcomeUnknown`. May be repeated with the same key.
        """
        try:
            submitted = await self.submit(principal, channel_id, publish)
        except ArtcafeError as exc:
            metrics.count_refused_publish(exc, principal.tenant_id)
            raise
        reply = await submitted.outcome
        audience = await self.audiences.wait(principal.tenant_id, submitted.channel)
        return replies.PublishReply(reply.seq, reply.message_id, reply.duplicate, *audience)

    async def admit(self, principal: Principal, answers: Sequence[frames.Publish]) -> Sequence[Admission]:
        """Count answers to messages in their chains, all at once. Publish each with its admission, or refund that."""
        try:
            limits = await self._record_cache.limits(principal.tenant_id)
        except ArtcafeError as exc:
            return [exc] * len(answers)
        return await self._loop_guard.admit(principal, [each.caused_by for each in answers if each.caused_by], limits)

    def refund(self, principal: Principal, admission: Admission | None) -> None:
        """Take an admitted message back, which is not published."""
        if isinstance(admission, ChainLink):
            self._loop_guard.refund(principal.tenant_id, admission)

    async def submit(
        self, principal: Principal, channel_id: str, publish: frames.Publish, admission: Admission | None = None
    ) -> Submitted:
        """Queue a message for the channel with this id or handle. Messages are stored in the order of these calls.

        A message that answers another one is admitted here, unless its `admission` is given.
        """
        try:
            access.check(principal, access.Action.PUBLISH)
            channel = await self._record_cache.destination(principal, channel_id)
            await self._record_cache.check_managed(principal, channel, Permission.PUBLISH, access.Action.PUBLISH_MANAGED)
        except ArtcafeError:
            self.refund(principal, admission)
            raise
        return Submitted(channel.id, await self._submit(PublishAttempt(principal, channel, publish, admission)))

    async def _submit(self, attempt: PublishAttempt) -> asyncio.Future[replies.PublishReply]:
        """Queue a message, and return the future of its outcome."""
        principal, channel, _, admission = attempt
        try:
            limits = await self._record_cache.limits(principal.tenant_id)
            check_publish(attempt.publish, limits.message_bytes)
            check_partition(channel, attempt.publish)
            attempt = await self._with_reply_to(attempt)
            _check_receipt(channel, attempt.publish)
            await self._rate_limits.spend(principal.tenant_id, Limit.MESSAGES_A_MINUTE)
            if attempt.publish.expires_at is not None or attempt.publish.deliver_at is not None:
                attempt = _with_times(attempt)
                problem = await self._problem_with_times(attempt)
                if problem is not None:
                    return await self._refuse_times(attempt, problem)
        except ArtcafeError:
            self.refund(principal, admission)
            raise
        self.audiences.peek(principal.tenant_id, channel.id)  # read while the message is being stored
        if attempt.publish.caused_by is None:
            return await self._send(attempt)
        if admission is None:
            (admission,) = await self._loop_guard.admit(principal, [attempt.publish.caused_by], limits)
        if not isinstance(admission, ChainLink):
            return await self._refuse_answer(attempt, admission)
        return await self._submit_answer(attempt, admission)

    def submit_nowait(
        self, principal: Principal, channel_id: str, publish: frames.Publish, link: ChainLink | None = None
    ) -> asyncio.Future[replies.PublishReply] | None:
        """Queue a message without waiting. Return None, with nothing done, if `submit` must be used.

        That is if the channel or the sender is not cached, the channel is managed or without a log, no message is reserved
        (`services.rate_limits`), or the message has times, requests a receipt, names an inbox in `reply_to`, or answers another
        one without a `link`.
        """
        if (publish.caused_by is not None and link is None) or _needs_lookup(publish):
            return None
        tenant_id = principal.tenant_id
        channel = self._record_cache.peek_destination(tenant_id, channel_id)
        tenant_fabric, limits = self._fabric.peek(tenant_id), self._record_cache.peek_limits(tenant_id)
        if channel is None or tenant_fabric is None or limits is None:
            return None
        if channel.access is not Access.OPEN or not KINDS[channel.type].has_log:
            return None
        handle: str | None = None
        if isinstance(principal, AgentPrincipal):
            agent = self._record_cache.peek_agent(tenant_id, principal.agent_id)
            if agent is None:
                return None
            handle = agent.handle
        access.check(principal, access.Action.PUBLISH)
        rate = self._rate_limits.peek_messages(tenant_id)
        if rate is None or (rate.tokens <= 0 and not self._rate_limits.can_lend(rate)):
            return None
        check_publish(publish, limits.message_bytes)
        check_partition(channel, publish)
        message_id, envelope, dedupe_id = self._prepare(principal, handle, channel, publish, link)
        if rate.tokens > rate.low:
            rate.tokens -= 1
        else:
            self._rate_limits.spend_low(rate)
        stored = tenant_fabric.writer.submit(subjects.stored(channel.id), envelope, message_id, dedupe_id, principal.sender)
        if link is not None:
            self._loop_guard.watch(tenant_id, link, stored)
        if self._tracing is not None:
            _trace(self._tracing, principal, channel, publish, message_id, stored)
        return stored

    async def _with_reply_to(self, attempt: PublishAttempt) -> PublishAttempt:
        """Return the attempt with the id of the inbox that its `reply_to` names, if it names one: a handle may be another agent's
        when the answer comes. Raises `Invalid`."""
        publish = attempt.publish
        if publish.reply_to is None or not inboxes.names_agent(publish.reply_to):
            return attempt
        try:
            owner = await self._record_cache.agent(attempt.principal.tenant_id, inboxes.agent_in(publish.reply_to))
        except AgentNotFound as exc:
            raise Invalid("reply_to", "names no agent of this tenant; give its id or handle, such as @researcher") from exc
        return attempt._replace(publish=msgspec.structs.replace(publish, reply_to=inboxes.inbox_of(owner.id)))

    async def _submit_answer(self, attempt: PublishAttempt, link: ChainLink) -> asyncio.Future[replies.PublishReply]:
        """Queue an admitted answer to a message."""
        try:
            outcome = await self._send(attempt, link)
        except (NotFound, Unavailable):  # nothing was sent
            self.refund(attempt.principal, link)
            raise
        self._loop_guard.watch(attempt.principal.tenant_id, link, outcome)
        return outcome

    async def _problem_with_times(self, attempt: PublishAttempt) -> Invalid | ScheduledLimit | None:
        """Return why a message with times cannot be accepted now, or None. Prepares the delivery of a scheduled one."""
        publish = attempt.publish
        problem = message_times.problem_of(publish, self._clock())
        if problem is not None or publish.deliver_at is None:
            return problem
        try:
            await self._scheduler.prepare(attempt.principal.tenant_id, times.from_text(publish.deliver_at))
        except ScheduledLimit as exc:
            return exc
        return None

    async def _refuse_times(
        self, attempt: PublishAttempt, problem: Invalid | ScheduledLimit
    ) -> asyncio.Future[replies.PublishReply]:
        """Raise the problem with a message's times. Return the outcome if this is the repeat of an accepted message."""
        repeat = await self._find_repeat(attempt)
        if repeat is None:
            raise problem
        self.refund(attempt.principal, attempt.admission)
        return repeat

    async def _refuse_answer(self, attempt: PublishAttempt, refusal: ArtcafeError) -> asyncio.Future[replies.PublishReply]:
        """Raise the refusal of an answer. Return the outcome if its chain is stopped, and it repeats a stored message."""
        if isinstance(refusal, LoopStopped):
            repeat = await self._find_repeat(attempt)
            if repeat is not None:
                return repeat
            await self._loop_guard.record_stop(attempt.principal, attempt.channel.id, refusal)
        raise refusal

    async def _send(self, attempt: PublishAttempt, link: ChainLink | None = None) -> asyncio.Future[replies.PublishReply]:
        """Queue a message's envelope, or send it if the channel has no log. Raises `ChannelNotFound` or `AgentNotFound` if the
        destination was deleted while the message waited for something."""
        principal, channel, publish, _ = attempt
        message_id, envelope, dedupe_id = self._prepare(principal, await self._handle_of(principal), channel, publish, link)
        await self._record_cache.destination(principal, channel.id)
        kind, tenant_fabric = KINDS[channel.type], self._fabric.tenant(principal.tenant_id)
        if publish.deliver_at is None:
            outcome = await kind.submit(tenant_fabric, channel.id, envelope, message_id, dedupe_id, principal.sender)
        else:
            subject = subjects.scheduled(channel.id, message_id)
            outcome = tenant_fabric.writer.submit(subject, envelope, message_id, dedupe_id, principal.sender, has_seq=False)
        if not kind.has_log:  # the meter counts those in the log
            self._usage.count(principal.tenant_id, Metric.MESSAGES_LIVE, agent=principal.sender, channel=channel.id)
        if self._tracing is not None:
            _trace(self._tracing, principal, channel, publish, message_id, outcome)
        return outcome

    async def _find_repeat(self, attempt: PublishAttempt) -> asyncio.Future[replies.PublishReply] | None:
        """Return the outcome of a stored message with the same key, or None. Raises `NotStored` without an answer of NATS."""
        principal, channel, publish, _ = attempt
        message_id, envelope, dedupe_id = self._prepare(principal, await self._handle_of(principal), channel, publish)
        if dedupe_id is None or not KINDS[channel.type].has_log:
            return None
        writer = self._fabric.tenant(principal.tenant_id).writer
        subject, has_seq = subjects.stored(channel.id), publish.deliver_at is None
        return await writer.find_repeat(subject, envelope, message_id, dedupe_id, has_seq=has_seq)

    async def _handle_of(self, principal: Principal) -> str | None:
        """Return an agent's handle; None for a person."""
        if not isinstance(principal, AgentPrincipal):
            return None
        agent = await self._record_cache.find_agent(principal.tenant_id, principal.agent_id)
        return None if agent is None else agent.handle

    def _prepare(
        self,
        principal: Principal,
        handle: str | None,
        channel: Channel,
        publish: frames.Publish,
        link: ChainLink | None = None,
    ) -> tuple[str, bytes, str | None]:
        """Return a new message id, the envelope, and the deduplication id; None without a key."""
        # The id of a scheduled message contains the time when it is due: its subject needs that time, and a search by id finds
        # the message in the log (`services.causes`).
        at = publish.deliver_at
        message_id = ids.new_id("msg") if at is None else ids.id_at("msg", times.from_text(at))
        time = times.to_text(self._clock())
        sender = principal.sender
        envelope = envelopes.envelope(publish, message_id=message_id, sender=sender, time=time, link=link, sender_handle=handle)
        if link is not None:
            answer = Cause(message_id, channel.id, sender, link.hops, link.chain)
            self._loop_guard.causes.remember(principal.tenant_id, answer)
        key = publish.key
        return message_id, envelope, None if key is None else subjects.dedupe_id(channel.id, sender, key)


def _needs_lookup(publish: frames.Publish) -> bool:
    """Return whether a publish has a rare field that cannot be checked without waiting."""
    if publish.reply_to is not None and inboxes.names_agent(publish.reply_to):  # an inbox, which must exist
        return True
    return publish.expires_at is not None or publish.deliver_at is not None or publish.receipt is not None


def _trace(
    tracing: Tracing,
    principal: Principal,
    channel: Channel,
    publish: frames.Publish,
    message_id: str,
    stored: asyncio.Future[replies.PublishReply],
) -> None:
    """Record the span of a publish in the same turn, before the writer takes it into a group."""
    agent_id = principal.agent_id if isinstance(principal, AgentPrincipal) else None
    tracing.record_publish(
        principal.tenant_id, channel.id, message_id, agent_id, trace_context.parent_of(publish.headers), stored
    )


def _with_times(attempt: PublishAttempt) -> PublishAttempt:
    """Return the attempt with its times in their normal form. Raises `Invalid`, also if the channel stores nothing."""
    channel, publish = attempt.channel, attempt.publish
    if not KINDS[channel.type].has_log:
        field = "deliver_at" if publish.expires_at is None else "expires_at"
        raise Invalid(field, f"has no meaning in a {channel.type.value} channel, which stores nothing; nothing was sent")
    return attempt._replace(publish=message_times.normal(publish))


def _check_receipt(channel: Channel, publish: frames.Publish) -> None:
    """Raise `Invalid` for a receipt of a live or scheduled message."""
    if publish.receipt is None:
        return
    if not KINDS[channel.type].has_log:
        raise Invalid("receipt", f"needs a channel that stores its messages; this one is {channel.type.value}")
    if publish.deliver_at is not None:
        raise Invalid("receipt", "cannot be combined with deliver_at: the message has no recipients before")
