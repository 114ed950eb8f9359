"""A request to an agent on the server of its sender, until its last answer (`services.requests`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from artcafe.errors import ArtcafeError
from artcafe.fabric.request_exchange import Answer
from artcafe.model import AgentId, Principal, TenantId
from artcafe.rules import ids
from artcafe.rules.subjects import Subject
from artcafe.services.held_requests import HeldRequest
from artcafe.wire import frames

OnAnswer = Callable[[Answer | ArtcafeError], None]
"""Receives each answer to a request; an error, or an answer without `has_more`, is the last call. It must not raise."""


class PendingRequest:
    """A request of a principal on this server, until its last answer."""

    __slots__ = (
        "_on_answer",
        "agent",
        "agent_id",
        "begun_at",
        "body",
        "done",
        "held",
        "id",
        "inbox",
        "is_busy",
        "is_cut_off",
        "is_over",
        "principal",
        "server",
        "servers_left",
        "timer",
    )

    def __init__(self, principal: Principal, agent_id: AgentId, body: frames.Request, on_answer: OnAnswer) -> None:
        self.id = ids.new_id("ask")
        self.principal, self.agent_id, self._on_answer = principal, agent_id, on_answer
        self.agent = body.agent
        """The agent as its sender named it: by id or handle."""
        self.body: frames.Request | None = body
        """None once it cannot be sent to another server: data can have 64 KiB, and an answer may take two minutes."""
        self.begun_at = time.monotonic()
        self.servers_left: list[str | None] = []
        """The servers to try next, the last one first; None is this server."""
        self.timer: asyncio.TimerHandle | None = None
        self.held: HeldRequest | None = None
        """The request on a connection of this server."""
        self.server: str | None = None
        """The other server to which it was sent."""
        self.inbox: Subject | None = None
        self.is_busy = self.is_cut_off = self.is_over = False
        """`is_busy`: whether a connection was found that takes no more requests now. `is_cut_off`: whether a server of the agent
        could not be reached."""
        self.done: asyncio.Future[None] | None = None
        """Its outcome, for its span."""

    @property
    def tenant_id(self) -> TenantId:
        return self.principal.tenant_id

    def pass_on(self, answer: Answer | ArtcafeError) -> None:
        """Pass an answer or error to the sender."""
        self._on_answer(answer)
