"""The resource `inbox://me`: what waits for the agent, without its content, and the notifications of its changes."""

from __future__ import annotations

import asyncio
from typing import Final

from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus, ResourceUpdated
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, ReadResourceResult, Resource, TextResourceContents

from artcafe.tools import AgentTools
from artcafe.toolset.inbox import LISTED, MIME_TYPE, URI, WaitingIn, text_of

PAUSE_S: Final = 0.5
"""Between two notifications: many messages cause one."""


class InboxResource:
    """What waits for an agent. Reading it pulls, holds and acknowledges nothing."""

    def __init__(self, tools: AgentTools) -> None:
        self._tools = tools
        self.bus: Final = InMemorySubscriptionBus()
        """Passes changes on to the streams of `subscriptions/listen`, of clients of 2026-07-28 and later."""
        self._subscribed: set[ServerSession] = set()
        """Older clients that have subscribed."""
        self._changed = asyncio.Event()

    listed: Final = [Resource.model_validate(LISTED)]

    async def read(self, uri: str) -> ReadResourceResult:
        """Return the numbers of messages and the requests that wait. Raises `MCPError` for another address."""
        check(uri)
        agent = self._tools.agent
        client = await agent.client()
        me = await client.tenant(agent.tenant).agents.get(agent.agent)
        rows = [each async for each in client.tenant(agent.tenant).subscriptions.list_of_agent(me.id)]
        rows.append(await client.tenant(agent.tenant).subscriptions.get(f"@{me.id}", me.id))
        text = text_of(
            (WaitingIn(row.channel_id, row.status, row.lag) for row in rows),
            ({"request_id": each.request_id, "sender_id": each.sender} for each in self._tools.requests.waiting()),
        )
        return ReadResourceResult(contents=[TextResourceContents(uri=URI, mime_type=MIME_TYPE, text=text)])

    def subscribe(self, uri: str, session: ServerSession) -> None:
        """Notify an older client of changes from now on. Raises `MCPError` for another address."""
        check(uri)
        self._subscribed.add(session)

    def unsubscribe(self, uri: str) -> None:
        """Notify older clients no more: a connection has one."""
        check(uri)
        self._subscribed.clear()

    def changed(self) -> None:
        """Note that something has arrived."""
        self._changed.set()

    async def notify_changes(self) -> None:
        """Notify subscribers of changes, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self.bus.publish(ResourceUpdated(URI))
            for session in list(self._subscribed):
                await session.send_resource_updated(URI)
            await asyncio.sleep(PAUSE_S)


def check(uri: str) -> None:
    """Raise `MCPError` for another resource than this one."""
    if uri != URI:
        raise MCPError(INVALID_PARAMS, f"there is no resource {uri!r}; the only one is {URI}", {"uri": uri})
