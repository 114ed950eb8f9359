"""The events of connections, as the gateway receives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from artcafe.errors import ArtcafeError
from artcafe.rules.open_connections import CountedConnection

if TYPE_CHECKING:
    from artcafe.gateway.connection import Connection


class ConnectionEvents(Protocol):
    """The gateway, as its connections notify it."""

    def admit(self, counted: CountedConnection, peer: str | None, forwarded: list[str]) -> str:
        """Return the client's address behind trusted proxies, if the connection may stay. Raises RateLimited."""
        ...

    def on_open(self, connection: Connection) -> None:
        """The upgrade is complete."""

    def on_authenticated(self, connection: Connection) -> None:
        """A `connect` has succeeded: the first, or a further one to renew it."""

    def on_paused(self, connection: Connection, is_paused: bool) -> None:
        """The peer has stopped or resumed reading."""

    def on_closing(self, connection: Connection) -> None:
        """A close frame is about to be sent; the peer may never answer it."""

    def on_protocol_error(self, address: str | None, problem: str) -> None:
        """A peer has violated the WebSocket protocol."""

    def on_error(self, connection: Connection, reason: ArtcafeError) -> None:
        """The server closes the connection for this reason."""

    def on_close(self, connection: Connection) -> None:
        """The socket is closed."""
