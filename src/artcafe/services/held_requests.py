"""The unanswered requests at agents' connections to this server (`services.requests` sends them).

A request is held by one connection, and only that one can answer it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import NamedTuple, Protocol

import msgspec

from artcafe.errors import Invalid, NotPending, OurFault
from artcafe.fabric.request_exchange import NULL, Answer, CancelReason, Outcome, Refusal, RefusalReason
from artcafe.model import AgentId, TenantId
from artcafe.observe.clock import Clock
from artcafe.observe.logs import log
from artcafe.rules import times
from artcafe.supervision import Supervisor
from artcafe.wire import frames


class PushedRequest(NamedTuple):
    """A request as the agent's connection is sent it."""

    request_id: str
    sender: str
    headers: Mapping[str, str] | None
    deadline: str
    """RFC 3339."""
    data: msgspec.Raw


class RequestReceiver(Protocol):
    """A connection of an agent, able to take requests. No method waits or raises."""

    held: dict[str, HeldRequest]
    """By request id."""
    taken: int
    """Number of requests that it was sent."""
    max_requests: int
    """Most requests that it holds at once; 0: it takes none."""

    @property
    def is_reading(self) -> bool:
        """Whether the peer reads its messages."""

    def push_request(self, request: PushedRequest) -> None:
        """Send a request to the agent."""

    def push_cancel(self, request_id: str, reason: CancelReason) -> None:
        """Notify the agent: a request needs no answer any more."""


class HeldRequest:
    """A request sent to a connection."""

    __slots__ = ("id", "key", "receiver", "replies_left", "sink", "timer")

    def __init__(self, id: str, receiver: RequestReceiver, replies_left: int, sink: Callable[[Outcome], None]) -> None:
        """`sink` takes the answers. It raises `OurFault` if it cannot: then nothing was passed on."""
        self.id, self.receiver, self.replies_left, self.sink = id, receiver, replies_left, sink
        self.timer: asyncio.TimerHandle | None = None
        self.key: tuple[TenantId, str] | None = None
        """Its key in `HeldRequests`, if it came from another server."""


FindReceivers = Callable[[TenantId, AgentId], Sequence[RequestReceiver]]


class HeldRequests:
    """Sends requests to the connections of this server, and passes their answers on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._find: FindReceivers = lambda _, __: ()
        self._remote: dict[tuple[TenantId, str], HeldRequest] = {}
        """The requests of other servers, by tenant and request id."""
        self.is_stopping = False
        """Whether no further request is taken, because the server stops."""
        self.supervisor = Supervisor("requests")

    def set_receivers(self, find: FindReceivers) -> None:
        """Call `find` for the connections of an agent to this server."""
        self._find = find

    def least_held(self, tenant_id: TenantId, agent_id: AgentId) -> int | None:
        """Return the number of requests held by the agent's least busy connection to this server, or None without one that takes
        requests."""
        return min((len(each.held) for each in self._receivers(tenant_id, agent_id)), default=None)

    def _receivers(self, tenant_id: TenantId, agent_id: AgentId) -> list[RequestReceiver]:
        return [] if self.is_stopping else [each for each in self._find(tenant_id, agent_id) if each.max_requests]

    def deliver(
        self,
        tenant_id: TenantId,
        agent_id: AgentId,
        request_id: str,
        sender: str,
        body: DeliveredBody,
        sink: Callable[[Outcome], None],
    ) -> HeldRequest | RefusalReason:
        """Send a request to the agent's least busy connection, or return why there is none."""
        receivers = self._receivers(tenant_id, agent_id)
        free = [each for each in receivers if len(each.held) < each.max_requests and each.is_reading]
        if not free:
            return "busy" if receivers else "away"
        receiver = min(free, key=lambda each: (len(each.held), each.taken))
        held = receiver.held[request_id] = HeldRequest(request_id, receiver, body.max_replies, sink)
        receiver.taken += 1
        deadline = times.to_text(self._clock() + timedelta(seconds=body.timeout_s))
        receiver.push_request(PushedRequest(request_id, sender, body.headers, deadline, body.data))
        return held

    def watch_remote(self, tenant_id: TenantId, held: HeldRequest, timeout_s: float) -> None:
        """End a request of another server at its deadline, which that server does not repeat, or by `withdraw_remote`."""
        held.key = (tenant_id, held.id)
        self._remote[held.key] = held
        held.timer = asyncio.get_running_loop().call_later(timeout_s, partial(self.withdraw, held, "timed_out"))

    def withdraw_remote(self, tenant_id: TenantId, request_id: str, reason: CancelReason) -> None:
        """End a request of another server. Does nothing if it is not held any more."""
        held = self._remote.get((tenant_id, request_id))
        if held is not None:
            self.withdraw(held, reason)

    def withdraw(self, held: HeldRequest, reason: CancelReason) -> None:
        """End a request, and notify the agent. May be repeated."""
        if self._forget(held):
            held.receiver.push_cancel(held.id, reason)

    def answer(self, receiver: RequestReceiver, reply: frames.Reply) -> None:
        """Pass on an answer. `reply` is valid by `check_reply`.

        Raises `NotPending`, or an `OurFault` if the answer cannot be passed on now; the request is held as before then.
        """
        held = receiver.held.get(reply.request_id)
        if held is None:
            raise NotPending()
        has_data = isinstance(reply.data, msgspec.Raw)
        is_last = not reply.more or (has_data and held.replies_left == 1)
        error = None if reply.error is None else (reply.error.code, reply.error.message)
        held.sink(Answer(not is_last, has_data, reply.data if isinstance(reply.data, msgspec.Raw) else NULL, error))
        held.replies_left -= has_data
        if is_last:
            self._forget(held)
            if reply.more:
                receiver.push_cancel(held.id, "max_replies")

    def release(self, receiver: RequestReceiver) -> None:
        """End every request of a closed connection: its agent cannot answer any more."""
        for held in list(receiver.held.values()):
            self._forget(held)
            with self.supervisor.contain():
                try:
                    held.sink(Refusal("left"))
                except OurFault as exc:  # the other side waits until its deadline
                    log.debug("request.not_released", error=repr(exc))

    def _forget(self, held: HeldRequest) -> bool:
        """Hold a request no more, and return whether it was held."""
        if held.timer is not None:
            held.timer.cancel()
        if held.key is not None:
            self._remote.pop(held.key, None)
        return held.receiver.held.pop(held.id, None) is not None


class DeliveredBody(NamedTuple):
    """The choices of a request's sender, for the connection that takes it."""

    data: msgspec.Raw
    headers: Mapping[str, str] | None
    timeout_s: float
    max_replies: int


def check_reply(reply: frames.Reply) -> None:
    """Raise `Invalid` for an answer with data and an error, or with neither where more follows."""
    has_data = isinstance(reply.data, msgspec.Raw)
    if reply.error is not None and (has_data or reply.more):
        raise Invalid("error", "ends the answers: give it without data, and without more")
    if reply.more and not has_data:
        raise Invalid("data", "is missing in an answer with more; without data and more, a reply ends the answers")
