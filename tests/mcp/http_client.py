"""A real MCP client of a tenant's MCP over HTTP: that of the MCP library, with a bearer token."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from tests.plain_http import NO_AUTHORITIES


@asynccontextmanager
async def http_client(servers: str | Sequence[str], tenant: str, token: str, mode: str = "auto") -> AsyncIterator[Client]:
    """Connect to a tenant's MCP. Of several servers, each request goes to the next. `mode` `legacy` begins with `initialize`."""
    urls = [servers] if isinstance(servers, str) else servers
    turns = itertools.cycle(map(httpx2.URL, urls))

    async def take_turn(request: httpx2.Request) -> None:
        server = next(turns)
        request.url = request.url.copy_with(host=server.host, port=server.port)

    async with (
        httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
            trust_env=False,
            verify=NO_AUTHORITIES,
            event_hooks={"request": [take_turn]},
        ) as http,
        Client(streamable_http_client(f"{urls[0]}/v1/tenants/{tenant}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client
