"""The publishes of one socket: begun at once where nothing must be looked up, and answered when they are stored."""

from __future__ import annotations

import asyncio
from functools import partial

from artcafe.errors import ArtcafeError, OutcomeUnknown
from artcafe.gateway.desk import Peer
from artcafe.model import AgentPrincipal
from artcafe.observe.logs import log
from artcafe.services.messaging import Messaging
from artcafe.wire import frames, replies


class Publishes:
    """What this socket has published and was not answered yet."""

    __slots__ = ("_messaging", "_peer", "in_flight")

    def __init__(self, messaging: Messaging, peer: Peer) -> None:
        self._messaging, self._peer = messaging, peer
        self.in_flight = 0
        """Publishes that are not answered yet."""

    def now(self, principal: AgentPrincipal, id: int, body: frames.Publish, size: int) -> bool:
        """Publish without a task, as nearly every publish can be; return False when something must be looked up first.

        `size` is that of the frame, here and below.
        """
        try:
            stored = self._messaging.submit_nowait(principal, body.channel, body)
        except ArtcafeError as exc:
            self._peer.send(replies.error(exc, id))
            return True
        if stored is None:
            return False
        self._await_stored(id, stored, size)
        return True

    async def begin(self, principal: AgentPrincipal, id: int, body: frames.Publish, size: int) -> None:
        """Looks up what must be, and publishes. Raises what refuses it."""
        self._await_stored(id, await self._messaging.submit(principal, body.channel, body), size)

    def _await_stored(self, id: int, stored: asyncio.Future[replies.PublishReply], size: int) -> None:
        self.in_flight += 1
        self._peer.count(+1, +size)
        stored.add_done_callback(partial(self._stored, id, size))

    def _stored(self, id: int, size: int, stored: asyncio.Future[replies.PublishReply]) -> None:
        self.in_flight -= 1
        self._peer.count(-1, -size)
        error = OutcomeUnknown() if stored.cancelled() else stored.exception()
        if error is None:
            self._peer.send(replies.reply(id, "publish", stored.result()))
            return
        if not isinstance(error, ArtcafeError):
            log.error("publish.failed", error=repr(error))
            error = OutcomeUnknown()
        self._peer.send(replies.error(error, id))
