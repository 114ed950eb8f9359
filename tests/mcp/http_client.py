"""A real MCP client of a tenant's MCP over HTTP: that of the MCP library, with a bearer token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client


@asynccontextmanager
async def http_client(url: str, tenant: str, token: str, mode: str = "auto") -> AsyncIterator[Client]:
    """Connect to a tenant's MCP. `mode` `legacy` begins with `initialize`."""
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False) as http,
        Client(streamable_http_client(f"{url}/v1/tenants/{tenant}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client
