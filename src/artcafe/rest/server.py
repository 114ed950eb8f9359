"""The REST server: uvicorn with the application, stopped by its caller."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, cast

import uvicorn

from artcafe.rest.app import RestSettings, Services, build
from artcafe.rest.deadline import DeadlineProtocol
from artcafe.rules.open_connections import OpenConnections

DRAIN_S: Final = 5
KEEP_ALIVE_S: Final = 10


class RestServer(uvicorn.Server):
    """uvicorn without signal handlers: the caller stops it."""

    def __init__(
        self, services: Services, settings: RestSettings, connections: OpenConnections, tls: ssl.SSLContext | None
    ) -> None:
        """Set up the server. Without `tls`, connections are unencrypted."""
        self._opened = asyncio.Event()
        super().__init__(
            uvicorn.Config(
                build(services, settings),
                # uvicorn only calls it, but its type annotation requires a class.
                http=cast(type[asyncio.Protocol], partial(DeadlineProtocol, connections=connections)),
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # uvicorn trusts any proxy on this machine; `rules.clients` trusts only configured ones.
                ssl_context_factory=None if tls is None else lambda _config, _default: tls,
                timeout_graceful_shutdown=DRAIN_S,
                timeout_keep_alive=KEEP_ALIVE_S,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._opened.set()

    async def adopt(self, connection: socket.socket) -> None:
        """Serve a connection accepted by another process. Raises OSError if it is closed or its TLS handshake fails."""
        await self._opened.wait()
        protocol = cast(Callable[..., asyncio.Protocol], self.config.http_protocol_class)
        make = partial(protocol, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        await asyncio.get_running_loop().connect_accepted_socket(make, connection, ssl=self.config.ssl)
