"""What a server keeps about an open tenant whose agents may have wake policies (`services.waker`)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from artcafe.fabric.tenant_fabric import TenantFabric
from artcafe.model import Agent, AgentId, ChannelId, Seq, TenantId
from artcafe.services.waiting_messages import ReceivedChannels

FAR: Final = datetime.max.replace(tzinfo=UTC)
"""Later than every time that something is due at."""


class WatchedTenant:
    """What this server keeps about an open tenant: its agents with policies, if any may have one, and how far it has looked."""

    def __init__(self, tenant_fabric: TenantFabric) -> None:
        self.tenant_fabric = tenant_fabric
        self.is_read = self.is_marked = self.is_busy = self.is_watching = False
        self.agents: dict[AgentId, Agent] = {}
        """The agents with an enabled policy."""
        self.channels: dict[AgentId, ReceivedChannels] = {}
        """The channels of each of them that may have messages for it."""
        self.idle_queues: dict[AgentId, frozenset[ChannelId]] = {}
        """The queues of each of them that no connected agent received at the last look."""
        self.changed: set[AgentId] = set()
        self.looked_at: tuple[str | None, Seq] = (None, 0)
        """The epoch and the end of the log at the last look."""
        self.due_at = FAR
        self.is_stirred = True
        """Whether to look although the log has not grown."""
        self.seen: dict[AgentId, Seq] = {}
        """The position in the log up to which an agent needs no webhook."""
        self.not_before: dict[AgentId, datetime] = {}
        """The times before which a policy allows no webhook to an agent for which messages wait."""
        self.noticed: dict[AgentId, datetime] = {}
        """Since when this server leaves an agent to the server that is first for the tenant."""
        self.sending: set[AgentId] = set()
        self.bodies: dict[AgentId, tuple[str, bytes]] = {}
        """The id and body of each webhook that waits for another attempt."""

    @property
    def id(self) -> TenantId:
        return self.tenant_fabric.tenant_id

    @property
    def is_idle(self) -> bool:
        """Whether no agent has a policy, as far as was read, and nothing has changed since."""
        return self.is_read and not self.agents and not self.changed

    def stir(self, _: AgentId | None = None) -> None:
        """Look at the next opportunity: an agent came or left, or a webhook has ended."""
        self.is_stirred = True

    def watch_presence(self) -> None:
        """Follow the presence of agents as long as one has a policy. It keeps the tenant open, too."""
        if bool(self.agents) is self.is_watching:
            return
        registry = self.tenant_fabric.presence
        (registry.watch if self.agents else registry.unwatch)(self.stir)
        self.is_watching = bool(self.agents)

    def note_idle_queues(self, agent_id: AgentId, queues: frozenset[ChannelId], not_before: datetime) -> None:
        """Note which queues of an agent nobody works on now, and look at its messages again if these are other ones.

        `not_before`: if the agent that worked on one has just left, which may reconnect until then.
        """
        known = self.idle_queues.get(agent_id, queues)
        if queues - known:
            self.not_before[agent_id] = max(not_before, self.not_before.get(agent_id, not_before))
        if queues != known:
            self.seen.pop(agent_id, None)
        self.idle_queues[agent_id] = queues

    def set(self, agent: Agent, channels: ReceivedChannels) -> None:
        """Look after an agent, or again after a change of it."""
        self.forget(agent.id)
        self.agents[agent.id], self.channels[agent.id] = agent, channels
        self.is_stirred = True

    def forget(self, agent_id: AgentId) -> None:
        """Look no more after an agent. May be repeated."""
        for known in (self.agents, self.channels, self.idle_queues, self.seen, self.not_before, self.noticed, self.bodies):
            known.pop(agent_id, None)
