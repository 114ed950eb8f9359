"""Requests to agents: check them, choose a connection of the agent on any server, and return the answers.

A request is delivered at most once, and never stored. Until its last answer, two servers have it in memory: the sender's
(`PendingRequest`), and the agent's (`services.held_requests`); neither keeps its data once no other server can be asked.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from functools import partial
from typing import Final, TypeVar

import msgspec

from artcafe.errors import (
    AgentAway,
    AgentBusy,
    AgentError,
    AgentLeft,
    ArtcafeError,
    CallerFault,
    OurFault,
    RequestCancelled,
    RequestFault,
    RequestLost,
    RequestTimedOut,
    TooManyPending,
    Unavailable,
)
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.request_exchange import Answer, Ask, CancelReason, Outcome, Refusal, RequestExchange, Withdraw
from artcafe.model import Agent, AgentId, AgentPrincipal, AgentStatus, Principal, TenantId
from artcafe.observe import metrics
from artcafe.observe.clock import Clock
from artcafe.observe.tracing import Tracing
from artcafe.rules import access
from artcafe.rules.plans import Limit
from artcafe.rules.publish_checks import check_data
from artcafe.services.held_requests import DeliveredBody, HeldRequest, HeldRequests, RequestReceiver, check_reply
from artcafe.services.pending_request import OnAnswer, PendingRequest
from artcafe.services.rate_limits import RateLimits
from artcafe.services.record_cache import RecordCache
from artcafe.supervision import Supervisor
from artcafe.wire import frames, trace_context

MAX_PENDING_OF_SENDER: Final = 256
"""Requests of an agent or a person without a last answer, on one server: as many as publishes of the SDK in flight."""
MAX_PENDING_OF_TENANT: Final = 4_096
MAX_PENDING: Final = 16_384
"""On one server: some 20 MB."""

K = TypeVar("K")


class Requests:
    """Sends requests to agents, and passes their answers on."""

    def __init__(
        self, record_cache: RecordCache, fabric: Fabric, clock: Clock, rate_limits: RateLimits, tracing: Tracing | None = None
    ) -> None:
        self._record_cache, self._fabric, self._rate_limits, self._tracing = record_cache, fabric, rate_limits, tracing
        self.held = HeldRequests(clock)
        self._pending: set[PendingRequest] = set()
        self._of_sender: Counter[tuple[TenantId, str]] = Counter()
        self._of_tenant: Counter[TenantId] = Counter()
        self._sent_to: Counter[tuple[TenantId, AgentId, str]] = Counter()
        """By agent and server: the requests that this server sent to the agent on another server, without a last answer."""
        self.supervisor = Supervisor("requests")
        fabric.on_request(self._on_remote)

    def by_tenant(self) -> Counter[TenantId]:
        """Return the number of pending requests by tenant with any: the live count, not to be changed."""
        return self._of_tenant

    # --- asking -------------------------------------------------------------------------------------------------------

    async def submit(self, principal: Principal, body: frames.Request, on_answer: OnAnswer) -> PendingRequest:
        """Send a request, and return it. It may be over already.

        Raises `Forbidden`, `AgentNotFound`, `Invalid`, `TooLarge`, `LimitExceeded`, `RateExceeded`, `TooManyPending` or
        `Unavailable`; nothing was sent then. All later errors go to `on_answer`.
        """
        try:
            access.check(principal, access.Action.REQUEST)
            agent = await self._record_cache.agent(principal.tenant_id, body.agent)
            limits = await self._record_cache.limits(principal.tenant_id)
            check_data(body.headers, body.data, limits.message_bytes)
            self._check_pending(principal)
            await self._require_known_servers(principal.tenant_id, agent)
            await self._rate_limits.spend(principal.tenant_id, Limit.MESSAGES_A_MINUTE)
            self._check_pending(principal)
        except ArtcafeError as exc:
            self._count_refused(principal, exc)
            raise
        return self._begin(principal, agent, body, on_answer)

    def submit_nowait(self, principal: Principal, body: frames.Request, on_answer: OnAnswer) -> PendingRequest | None:
        """Send a request without waiting, as nearly every one can be. None if `submit` must be used. Raises as `submit` does."""
        tenant_id = principal.tenant_id
        agent = self._record_cache.peek_agent(tenant_id, body.agent)
        tenant_fabric, limits = self._fabric.peek(tenant_id), self._record_cache.peek_limits(tenant_id)
        if agent is None or tenant_fabric is None or limits is None:
            return None
        if not tenant_fabric.presence.is_known_now and self.held.least_held(tenant_id, agent.id) is None:
            return None
        try:
            access.check(principal, access.Action.REQUEST)
            check_data(body.headers, body.data, limits.message_bytes)
            self._check_pending(principal)
            if not self._rate_limits.try_spend_message(tenant_id):
                return None
        except ArtcafeError as exc:
            self._count_refused(principal, exc)
            raise
        return self._begin(principal, agent, body, on_answer)

    async def ask(self, principal: Principal, body: frames.Request) -> tuple[PendingRequest, asyncio.Future[msgspec.Raw]]:
        """Send a request for one answer. Return it, and the future of the answer's data: null for an answer without data.

        Raises as `submit` does; the future fails with a `RequestFault`. `abandon` the request if nobody waits any more.
        """
        answered: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()

        def take(answer: Answer | ArtcafeError) -> None:
            if answered.done():
                return
            if isinstance(answer, ArtcafeError):
                answered.set_exception(answer)
            else:
                answered.set_result(answer.data)

        return await self.submit(principal, body, take), answered

    async def _require_known_servers(self, tenant_id: TenantId, agent: Agent) -> None:
        """Wait until the servers of the agent are known, unless it is connected here. Raises `Unavailable`."""
        presence = self._fabric.tenant(tenant_id).presence
        is_here = self.held.least_held(tenant_id, agent.id) is not None
        if not is_here and not presence.is_known_now and not await presence.is_known():
            raise Unavailable("who is connected is unknown: the message log (NATS)")

    def _check_pending(self, principal: Principal) -> None:
        if self._of_sender[principal.tenant_id, principal.sender] >= MAX_PENDING_OF_SENDER:
            raise TooManyPending("this agent" if isinstance(principal, AgentPrincipal) else "this person", MAX_PENDING_OF_SENDER)
        if self._of_tenant[principal.tenant_id] >= MAX_PENDING_OF_TENANT:
            raise TooManyPending("this tenant", MAX_PENDING_OF_TENANT)
        if len(self._pending) >= MAX_PENDING:
            raise TooManyPending("this server", MAX_PENDING)

    def _begin(self, principal: Principal, agent: Agent, body: frames.Request, on_answer: OnAnswer) -> PendingRequest:
        pending = PendingRequest(principal, agent.id, body, on_answer)
        self._pending.add(pending)
        self._of_sender[principal.tenant_id, principal.sender] += 1
        self._of_tenant[principal.tenant_id] += 1
        timed_out = partial(self.end, pending, RequestTimedOut(body.timeout_s), "timed_out")
        pending.timer = asyncio.get_running_loop().call_later(body.timeout_s, timed_out)
        if self._tracing is not None:
            _trace(self._tracing, pending, body)
        if agent.status is AgentStatus.ACTIVE:
            pending.servers_left = self._servers_of(principal.tenant_id, agent.id)
        self._send_to_next(pending)
        return pending

    def _servers_of(self, tenant_id: TenantId, agent_id: AgentId) -> list[str | None]:
        """Return the servers with connections of the agent, the least busy one last; of equal ones, this server."""
        here = self.held.least_held(tenant_id, agent_id)
        found: list[tuple[int, str | None]] = [] if here is None else [(here, None)]
        tenant_fabric = self._fabric.peek(tenant_id)
        servers = [] if tenant_fabric is None else tenant_fabric.presence.servers_of(agent_id)
        found += [(self._sent_to[tenant_id, agent_id, server], server) for server in servers]
        return [server for _, server in sorted(found, key=lambda each: (each[0], each[1] is not None), reverse=True)]

    def _send_to_next(self, pending: PendingRequest) -> None:
        """Send a request to the next of the agent's servers, until one takes it. End it if none does."""
        while pending.servers_left:
            server = pending.servers_left.pop()
            if self._deliver_here(pending) if server is None else self._send(pending, server):
                if server is None or not pending.servers_left:
                    pending.body = None
                return
        self.end(pending, _no_receiver(pending), None)

    def _deliver_here(self, pending: PendingRequest) -> bool:
        """Send a request to a connection of this server. Return False if none takes it."""
        body, sink = _body_of(pending), partial(self._on_outcome, pending)
        delivered = DeliveredBody(body.data, body.headers, body.timeout_s, body.max_replies)
        held = self.held.deliver(pending.tenant_id, pending.agent_id, pending.id, pending.principal.sender, delivered, sink)
        if not isinstance(held, HeldRequest):
            pending.is_busy = pending.is_busy or held == "busy"
            return False
        pending.held = held
        return True

    def _send(self, pending: PendingRequest, server: str) -> bool:
        """Send a request to another server. Return False without a connection to it."""
        exchange = self._exchange(pending.tenant_id)
        if exchange is None or not exchange.is_up:
            pending.is_cut_off = True
            return False
        body, sink = _body_of(pending), partial(self._on_outcome, pending)
        left_s = max(0.0, pending.begun_at + body.timeout_s - time.monotonic())
        pending.server, pending.inbox = server, exchange.open_inbox(sink)
        self._sent_to[pending.tenant_id, pending.agent_id, server] += 1
        sender = pending.principal.sender
        ask = Ask(pending.id, pending.inbox, pending.agent_id, sender, left_s, body.headers, body.max_replies, body.data)
        exchange.ask(server, ask, sink)
        return True

    def _on_outcome(self, pending: PendingRequest, outcome: Outcome | OurFault) -> None:
        """Handle an answer, a refusal, or a fault of the connection to NATS."""
        if pending.is_over:
            return
        if isinstance(outcome, Answer):
            self._on_answer(pending, outcome)
        elif isinstance(outcome, Refusal) and outcome.reason == "left":
            self.end(pending, AgentLeft(pending.agent), None)
        elif isinstance(outcome, Refusal | Unavailable):  # It was not delivered there.
            pending.is_busy = pending.is_busy or (isinstance(outcome, Refusal) and outcome.reason == "busy")
            pending.is_cut_off = pending.is_cut_off or isinstance(outcome, Unavailable)
            self._forget_server(pending)
            self._send_to_next(pending)
        # After a lost connection it is unknown whether the request was sent, and an answer may still come until the deadline.

    def _on_answer(self, pending: PendingRequest, answer: Answer) -> None:
        if answer.error is not None:
            self.end(pending, AgentError(*answer.error), None)
        elif answer.has_more:
            pending.pass_on(answer)
        else:
            self._finish(pending, "answered", None)
            pending.pass_on(answer)

    def end(self, pending: PendingRequest, fault: ArtcafeError, reason: CancelReason | None) -> None:
        """End a request with an error for its sender, and cancel it at the agent for this reason. May be repeated."""
        if pending.is_over:
            return
        self._finish(pending, _outcome_of(fault), fault)
        self._cancel(pending, reason)
        pending.pass_on(fault)

    def abandon(self, pending: PendingRequest) -> None:
        """End a request after its sender has disconnected. May be repeated."""
        if not pending.is_over:
            self._finish(pending, "cancelled", RequestCancelled())
            self._cancel(pending, "asker_away")

    def _cancel(self, pending: PendingRequest, reason: CancelReason | None) -> None:
        if reason is None:
            return
        if pending.held is not None:
            self.held.withdraw(pending.held, reason)
        elif pending.server is not None and reason != "timed_out":  # The other server has the deadline, too.
            exchange = self._exchange(pending.tenant_id)
            if exchange is not None:
                exchange.withdraw(pending.server, Withdraw(pending.id, reason))

    def _finish(self, pending: PendingRequest, outcome: str, fault: ArtcafeError | None) -> None:
        pending.is_over = True
        self._pending.discard(pending)
        _decrement(self._of_sender, (pending.tenant_id, pending.principal.sender))
        _decrement(self._of_tenant, pending.tenant_id)
        if pending.timer is not None:
            pending.timer.cancel()
        self._close_inbox(pending)
        metrics.REQUESTS.of(outcome, tenant=pending.tenant_id).add()
        metrics.REQUEST_SECONDS.of().observe(time.monotonic() - pending.begun_at)
        if pending.done is not None and not pending.done.done():
            if fault is None:
                pending.done.set_result(None)
            else:
                pending.done.set_exception(fault)
                pending.done.exception()

    def _forget_server(self, pending: PendingRequest) -> None:
        self._close_inbox(pending)
        pending.held = pending.server = None

    def _close_inbox(self, pending: PendingRequest) -> None:
        if pending.server is not None:
            _decrement(self._sent_to, (pending.tenant_id, pending.agent_id, pending.server))
        exchange = self._exchange(pending.tenant_id)
        if pending.inbox is not None and exchange is not None:
            exchange.close_inbox(pending.inbox)
        pending.inbox = None

    def _exchange(self, tenant_id: TenantId) -> RequestExchange | None:
        tenant_fabric = self._fabric.peek(tenant_id)
        return None if tenant_fabric is None else tenant_fabric.requests

    def _count_refused(self, principal: Principal, exc: ArtcafeError) -> None:
        outcome = "refused" if isinstance(exc, CallerFault) else "failed"
        metrics.REQUESTS.of(outcome, tenant=principal.tenant_id).add()

    # --- answering ----------------------------------------------------------------------------------------------------

    async def reply(self, principal: Principal, receiver: RequestReceiver, reply: frames.Reply) -> None:
        """Pass on an answer of a connection. Raises `Invalid`, `TooLarge`, `LimitExceeded`, `NotPending` or `Unavailable`; the
        request is held as before then."""
        await self._record_cache.limits(principal.tenant_id)
        self.reply_nowait(principal, receiver, reply)

    def reply_nowait(self, principal: Principal, receiver: RequestReceiver, reply: frames.Reply) -> bool:
        """Pass on an answer without waiting. Return False if `reply` must be used. Raises as `reply` does."""
        limits = self._record_cache.peek_limits(principal.tenant_id)
        if limits is None:
            return False
        check_reply(reply)
        if isinstance(reply.data, msgspec.Raw):
            check_data(None, reply.data, limits.message_bytes)
        self.held.answer(receiver, reply)
        return True

    def _on_remote(self, tenant_id: TenantId, incoming: Ask | Withdraw) -> None:
        """Handle a message of another server."""
        if isinstance(incoming, Withdraw):
            self.held.withdraw_remote(tenant_id, incoming.request_id, incoming.reason)
            return
        exchange = self._exchange(tenant_id)
        if exchange is None:
            return
        sink = partial(exchange.answer, incoming.answers)
        body = DeliveredBody(incoming.data, incoming.headers, incoming.timeout_s, incoming.max_replies)
        held = self.held.deliver(tenant_id, incoming.agent, incoming.request_id, incoming.sender, body, sink)
        if isinstance(held, HeldRequest):
            self.held.watch_remote(tenant_id, held, incoming.timeout_s)
        else:
            exchange.answer(incoming.answers, Refusal(held))

    # --- the end ------------------------------------------------------------------------------------------------------

    def stop_taking(self) -> None:
        """Take no further requests to agents on this server, because it stops."""
        self.held.is_stopping = True

    def end_all(self) -> None:
        """Answer every pending request of this server with an error, because the server stops."""
        for pending in list(self._pending):
            with self.supervisor.contain():
                self.end(pending, RequestLost("the server that passed the request on has stopped"), "asker_away")


_OUTCOMES: Final[dict[type[ArtcafeError], str]] = {
    AgentAway: "away",
    AgentLeft: "left",
    AgentBusy: "busy",
    AgentError: "agent_error",
    RequestTimedOut: "timed_out",
    RequestLost: "lost",
}


def _body_of(pending: PendingRequest) -> frames.Request:
    assert pending.body is not None, "it is kept while another server may be asked"
    return pending.body


def _no_receiver(pending: PendingRequest) -> ArtcafeError:
    """Return the error of a request that no connection has taken."""
    if pending.is_busy:
        return AgentBusy(pending.agent)
    return Unavailable("the agent's server (NATS)") if pending.is_cut_off else AgentAway(pending.agent)


def _outcome_of(fault: ArtcafeError) -> str:
    return _OUTCOMES.get(type(fault), "cancelled" if isinstance(fault, RequestFault) else "failed")


def _decrement(counter: Counter[K], key: K) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


def _trace(tracing: Tracing, pending: PendingRequest, body: frames.Request) -> None:
    """Record the span of a request until its last answer."""
    principal = pending.principal
    agent_id = principal.agent_id if isinstance(principal, AgentPrincipal) else None
    pending.done = asyncio.get_running_loop().create_future()
    parent = trace_context.parent_of(body.headers)
    tracing.record_request(pending.tenant_id, pending.agent_id, pending.id, agent_id, parent, pending.done)
