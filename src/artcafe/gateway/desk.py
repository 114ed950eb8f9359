"""What every conversation of a gateway works with, and the socket as a conversation sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from artcafe.delivery.hub import Hub, Socket
from artcafe.observe.clock import Clock
from artcafe.services.audit_counters import AuditCounters
from artcafe.services.connections import Connections
from artcafe.services.cursors import Cursors
from artcafe.services.history import History
from artcafe.services.login import Login
from artcafe.services.member_login import MemberLogin
from artcafe.services.messaging import Messaging
from artcafe.services.presence import Presence
from artcafe.services.record_cache import RecordCache
from artcafe.services.shares import Shares
from artcafe.services.subscriptions import Subscriptions
from artcafe.wire import frames

PING_S: Final = 25
MAX_SUBSCRIPTIONS: Final = 128

LIMITS: Final = {
    "frame_bytes": frames.MAX_FRAME_BYTES,
    "json_depth": frames.MAX_DEPTH,
    "subscriptions": MAX_SUBSCRIPTIONS,
}


@dataclass(frozen=True, slots=True)
class Desk:
    """What every conversation of a gateway works with."""

    login: Login
    record_cache: RecordCache
    subscriptions: Subscriptions
    messaging: Messaging
    cursors: Cursors
    hub: Hub
    clock: Clock
    presence: Presence
    history: History
    connections: Connections
    member_login: MemberLogin
    counters: AuditCounters
    shares: Shares


class Peer(Socket, Protocol):
    """The socket, as a conversation sees it."""

    def send(self, frame: bytes) -> None:
        """Sends one frame's text with the others of this loop turn."""

    def count(self, change: int, size: int) -> None:
        """Adjust the number of commands and publishes in flight, and of their bytes; above the bounds the socket is not read."""

    def hold(self, change: int) -> None:
        """Adjust how many reasons there are to read nothing from the socket now."""

    def proven(self) -> None:
        """The peer has proven who it is; from here on it hears of what is withdrawn."""
