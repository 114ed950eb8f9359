"""The requests of one agent's connection: those that it sent, and those that it was sent and has not answered yet.

Made at the first request: idle connections have none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, assert_never

from artcafe.errors import AnswersUnread, ArtcafeError, BadCommand, RequestCancelled
from artcafe.fabric.request_exchange import Answer, CancelReason
from artcafe.gateway.client_socket import ClientSocket
from artcafe.model import AgentPrincipal
from artcafe.services.held_requests import HeldRequest, PushedRequest
from artcafe.services.pending_request import PendingRequest
from artcafe.services.requests import Requests
from artcafe.wire import frames, replies, request_frames

MAX_UNREAD_BYTES: Final = 1024 * 1024
"""Bytes that wait for a peer that does not read. Above, an answer ends its request instead: answers are not stored anywhere."""


class AgentRequests:
    """One connection's requests in both directions. It is a `services.held_requests.RequestReceiver`."""

    __slots__ = ("_asked", "_on_spent", "_requests", "_socket", "held", "max_requests", "taken")

    def __init__(
        self,
        requests: Requests,
        socket: ClientSocket,
        max_requests: int,
        on_spent: Callable[[ArtcafeError | None], None],
    ) -> None:
        """`on_spent` is called after each request, since it counts as a message; with the error if it was refused."""
        self._requests, self._socket, self.max_requests, self._on_spent = requests, socket, max_requests, on_spent
        self._asked: dict[int, PendingRequest] = {}
        """The requests without a last answer, by the ids of their commands."""
        self.held: dict[str, HeldRequest] = {}
        self.taken = 0

    @property
    def is_busy(self) -> bool:
        """Whether a request in either direction has no last answer yet."""
        return bool(self._asked or self.held)

    def end(self) -> None:
        """End every request, because the socket is closed. May be repeated."""
        self.max_requests = 0
        asked, self._asked = self._asked, {}
        for pending in asked.values():
            self._requests.abandon(pending)
        self._requests.held.release(self)

    # --- commands ----------------------------------------------------------------------------------------------------

    async def handle(self, principal: AgentPrincipal, id: int, body: frames.Request | frames.Reply | frames.Accept) -> None:
        """Do a command. Raises its error reply: nothing was done then."""
        match body:
            case frames.Request():
                await self._ask(principal, id, body)
            case frames.Reply():
                await self._requests.reply(principal, self, body)
                self._confirm(id, body)
            case frames.Accept():
                self.max_requests = body.max_requests
                self._socket.send(replies.reply(id, "accept", replies.AcceptReply(body.max_requests)))
            case _:
                assert_never(body)

    def do_nowait(self, principal: AgentPrincipal, id: int, body: frames.Request | frames.Reply) -> bool:
        """Do a command without waiting, or answer it with its error. Return False if `handle` must be used."""
        try:
            if isinstance(body, frames.Request):
                return self._ask_nowait(principal, id, body)
            if not self._requests.reply_nowait(principal, self, body):
                return False
            self._confirm(id, body)
        except ArtcafeError as exc:
            if isinstance(body, frames.Request):
                self._on_spent(exc)
            self._socket.send_error(exc, id=id)
        return True

    # --- asking ------------------------------------------------------------------------------------------------------

    async def _ask(self, principal: AgentPrincipal, id: int, body: frames.Request) -> None:
        self._check_id(id)
        try:
            pending = await self._requests.submit(principal, body, partial(self._on_answer, id))
        except ArtcafeError as exc:
            self._on_spent(exc)
            raise
        self._on_spent(None)
        self._add(id, pending)

    def _ask_nowait(self, principal: AgentPrincipal, id: int, body: frames.Request) -> bool:
        self._check_id(id)
        pending = self._requests.submit_nowait(principal, body, partial(self._on_answer, id))
        if pending is None:
            return False
        self._on_spent(None)
        self._add(id, pending)
        return True

    def _check_id(self, id: int) -> None:
        if id in self._asked:
            raise BadCommand(f"the request {id} has no answer yet: give each command another id")

    def _add(self, id: int, pending: PendingRequest) -> None:
        if not pending.is_over:
            self._asked[id] = pending

    def _on_answer(self, id: int, answer: Answer | ArtcafeError) -> None:
        if isinstance(answer, ArtcafeError):
            self._asked.pop(id, None)
            self._socket.send_error(answer, id=id)
            return
        pending = self._asked[id]
        if not answer.has_more:
            del self._asked[id]
        elif self._socket.is_paused and self._socket.waiting_bytes() > MAX_UNREAD_BYTES:
            self._requests.end(pending, AnswersUnread(), "cancelled")
            return
        data = answer.data if answer.has_data else None
        self._socket.send(request_frames.answer(id, pending.id, pending.agent_id, data, has_more=answer.has_more))

    def cancel(self, id: int) -> None:
        """Cancel a request that this socket sent. One that is over is left alone: its answer is under way."""
        pending = self._asked.get(id)
        if pending is not None:
            self._requests.end(pending, RequestCancelled(), "cancelled")

    # --- answering ---------------------------------------------------------------------------------------------------

    @property
    def is_reading(self) -> bool:
        """Whether the peer reads what it is sent."""
        return not self._socket.is_paused

    def push_request(self, request: PushedRequest) -> None:
        """Send a request to the agent."""
        self._socket.send(
            request_frames.push(request.request_id, request.sender, request.headers, request.deadline, request.data)
        )

    def push_cancel(self, request_id: str, reason: CancelReason) -> None:
        """Notify the agent that a request needs no answer any more."""
        self._socket.send(request_frames.cancel(replies.CancelPush(request_id, reason)))

    def _confirm(self, id: int, body: frames.Reply) -> None:
        self._socket.send(replies.reply(id, "reply", replies.ReplyReply(body.request_id)))
