"""The inboxes of agents: channels that others publish to, and that their agents alone receive (decision record 49).

An inbox has no row. Its id is `@` and the agent's id, so that a message, a cursor or a subject names the agent without a lookup.
No id that ArtCafe makes, and no handle, begins with `@`.
"""

from __future__ import annotations

import functools
from typing import Final

from artcafe.model import Agent, AgentId, AgentPrincipal, Channel, ChannelId, Cursor, Subscription, TenantId
from artcafe.wire.frames import INBOX_PREFIX

PREFIX: Final = INBOX_PREFIX
_START: Final = Cursor()
"""Shared: most agents have no position."""


class InboxSubscription(Subscription, frozen=True, kw_only=True):
    """The subscription of an agent to its inbox, made from the agent's row: always active, and counted nowhere."""

    removed_to: Cursor = _START


def inbox_of(agent_id: AgentId) -> ChannelId:
    """Return the id of an agent's inbox."""
    return ChannelId(PREFIX + agent_id)


def owner_of(channel_id: str) -> AgentId | None:
    """Return the agent whose inbox has this id; None for any other channel. The agent may not exist.

    `@` alone is no inbox: an older system may have a channel with that id.
    """
    return AgentId(channel_id[1:]) if len(channel_id) > 1 and channel_id.startswith(PREFIX) else None


def names_agent(address: str) -> bool:
    """Return whether a `reply_to` must name an agent: by `@` and its id or handle, or by its id."""
    return address.startswith((PREFIX, "agt_"))


def agent_in(address: str) -> str:
    """Return the id or handle of the agent in an address, with or without the `@`."""
    return address.removeprefix(PREFIX)


@functools.lru_cache(maxsize=4096)
def channel_of(tenant_id: TenantId, agent_id: AgentId) -> Channel:
    """Return the record of an agent's inbox: open to the publishes of all, with the retention of the plan. Cached, because every
    publish to it needs it."""
    inbox = inbox_of(agent_id)
    return Channel(tenant_id=tenant_id, id=inbox, name=inbox, created_at=None, updated_at=None)


def subscription_at(agent: AgentPrincipal, cursor: Cursor) -> InboxSubscription:
    """Return the subscription of a connected agent to its inbox, at a position."""
    inbox = inbox_of(agent.agent_id)
    return InboxSubscription(
        tenant_id=agent.tenant_id, channel_id=inbox, agent_id=agent.agent_id, cursor=cursor, created_at=None, updated_at=None
    )


def subscription_of(agent: Agent) -> InboxSubscription:
    """Return the subscription of an agent to its inbox."""
    return InboxSubscription(
        tenant_id=agent.tenant_id,
        channel_id=inbox_of(agent.id),
        agent_id=agent.id,
        cursor=agent.inbox or _START,
        removed_to=agent.inbox_removed_to or _START,
        created_at=agent.created_at,
        updated_at=agent.updated_at,
    )
