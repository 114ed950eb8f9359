"""The replies to one connection's publishes, sent when the messages are stored, and the receipts that they request."""

from __future__ import annotations

import asyncio
from functools import partial

from artcafe.assembly import Services
from artcafe.errors import ArtcafeError, OutcomeUnknown
from artcafe.gateway.client_socket import ClientSocket
from artcafe.model import TenantId
from artcafe.observe.logs import log
from artcafe.services.receipts import FollowedReceipt
from artcafe.wire import frames, receipts, replies


class PublishReplies:
    """The publishes without a reply yet, and the receipts that wait."""

    __slots__ = ("_is_over", "_receipts", "_services", "_socket", "in_flight")

    def __init__(self, services: Services, socket: ClientSocket) -> None:
        self._services, self._socket = services, socket
        self._receipts: set[FollowedReceipt] | None = None
        """The receipts that wait; None for an agent that never requested one."""
        self._is_over = False
        self.in_flight = 0
        """Publishes without a reply yet."""

    def send_when_stored(
        self,
        tenant_id: TenantId,
        id: int,
        channel: str,
        publish: frames.Publish,
        stored: asyncio.Future[replies.PublishReply],
        size: int,
    ) -> None:
        """Send the reply when a publish has its outcome. `channel`: its id or handle. `size`: bytes of the frame."""
        self.in_flight += 1
        self._socket.adjust_in_flight(+1, +size)
        # Only what the reply needs: the message is kept by the log writer, and not needed twice.
        wanted = publish if publish.receipt is not None else None
        stored.add_done_callback(partial(self._on_stored, tenant_id, id, channel, wanted, size))

    def end(self) -> None:
        """Follow no receipt any more: the socket is closed. May be repeated."""
        self._is_over = True
        for receipt in self._receipts or ():
            self._services.receipts.cancel(receipt)
        self._receipts = None

    def _on_stored(
        self,
        tenant_id: TenantId,
        id: int,
        channel: str,
        wanted: frames.Publish | None,
        size: int,
        stored: asyncio.Future[replies.PublishReply],
    ) -> None:
        """Send the reply to a publish. `wanted`: the publish if it requests a receipt."""
        self.in_flight -= 1
        self._socket.adjust_in_flight(-1, -size)
        error = OutcomeUnknown() if stored.cancelled() else stored.exception()
        if error is None:
            reply = stored.result()
            subscribers, connected = self._services.audiences.peek(tenant_id, channel)
            whole = replies.PublishReply(reply.seq, reply.message_id, reply.duplicate, subscribers, connected)
            self._socket.send(replies.reply(id, "publish", whole))
            if wanted is not None and not self._is_over:
                self._follow(tenant_id, channel, wanted, reply)
            return
        if not isinstance(error, ArtcafeError):
            log.error("publish.failed", error=repr(error))
            error = OutcomeUnknown()
        self._socket.send_error(error, id=id)

    def _follow(self, tenant_id: TenantId, channel: str, publish: frames.Publish, reply: replies.PublishReply) -> None:
        """Push receipts of a stored message until the last one or the end of the connection."""

        def push(receipt: receipts.ReceiptPush) -> None:
            if receipt.final and self._receipts is not None and followed is not None:
                self._receipts.discard(followed)
            self._socket.send(receipts.receipt(receipt))

        followed: FollowedReceipt | None = None
        followed = self._services.receipts.follow(tenant_id, channel, publish, reply, push)
        if followed is not None:
            self._receipts = self._receipts or set()
            self._receipts.add(followed)
