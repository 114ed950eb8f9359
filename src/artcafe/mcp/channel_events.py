"""Events of Claude Code's channels: messages and requests that are pushed into a running session.

A server that declares the experimental capability `claude/channel` may send `notifications/claude/channel`, whose content the
client shows to the model between tags, with `meta` as their attributes (code.claude.com/docs/en/channels-reference).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final
from urllib.parse import quote

from artcafe.errors import AgentNotFound
from artcafe.sdk.agent import Agent
from artcafe.sdk.messages import Message
from artcafe.sdk.requests import Request
from artcafe.toolset.descriptions import json_text

CAPABILITY: Final = "claude/channel"
METHOD: Final = "notifications/claude/channel"
PERSON: Final = "usr:"

Send = Callable[[str, dict[str, Any]], Awaitable[None]]
"""Send a notification with its parameters to the client."""


class ChannelEvents:
    """Pushes what allowed senders write. Nobody is allowed by default: it reaches the model without its asking for it."""

    def __init__(self, allowed: Collection[str], send: Send) -> None:
        """`allowed`: the ids of senders, as `allowed_ids` returns them."""
        self._allowed, self._send = frozenset(allowed), send

    async def push(self, item: Message | Request) -> None:
        """Push a message or a request, if its proven sender is allowed. It is not acknowledged."""
        if isinstance(item, Request):
            if item.sender in self._allowed:
                meta = {"kind": "request", "request_id": item.request_id, "sender_id": item.sender}
                await self._push(item.data, meta)
        elif item.sender_id in self._allowed:
            meta = {"kind": "message", "sender": item.sender, "sender_id": item.sender_id, "channel": item.channel}
            meta |= {"message_id": item.message_id} | ({} if item.seq is None else {"seq": str(item.seq)})
            await self._push(item.data, meta)

    async def _push(self, data: object, meta: dict[str, str]) -> None:
        attributes = {name: quote(value, safe=":@ ") for name, value in meta.items()}
        await self._send(METHOD, {"content": json_text(data), "meta": attributes})


async def allowed_ids(agent: Agent, names: Sequence[str]) -> list[str]:
    """Return the ids of senders, named by handle or id, or `usr:` and a person's. Raises `AgentNotFound`.

    Ids, because a handle may be given to another agent later.
    """
    return [name if name.startswith(PERSON) else await _id_of(agent, name) for name in names]


async def _id_of(agent: Agent, name: str) -> str:
    client = await agent.client()
    try:
        return (await client.tenant(agent.tenant).agents.get(name)).id
    except AgentNotFound as exc:
        raise AgentNotFound(name) from exc
