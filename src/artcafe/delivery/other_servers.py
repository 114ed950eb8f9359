"""What the other servers of the fleet have of a tenant's queues."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from artcafe.fabric.fabric import Fabric
from artcafe.fabric.outcome_exchange import OutcomeQuestion
from artcafe.fabric.tenant_fabric import TenantFabric
from artcafe.model import ChannelId, Epoch, Seq


class OtherServers:
    """The other servers, as the queues of one tenant see them."""

    def __init__(self, fabric: Fabric, tenant_fabric: TenantFabric) -> None:
        self._announcements, self._tenant_fabric = fabric.announcements, tenant_fabric

    @property
    def may_hold(self) -> bool:
        """Whether another server may have messages that NATS has forgotten. In a cluster none has: deliveries have replicas."""
        return self._tenant_fabric.log.replicas == 1 and self._announcements.has_peers

    @property
    def reconnected_at(self) -> float | None:
        """When this server last connected to NATS again, also if the tenant's connection is a first one; None: never."""
        of_server, of_tenant = self._announcements.reconnected_at, self._tenant_fabric.connection.reconnected_at
        return of_server if of_tenant is None or (of_server is not None and of_server > of_tenant) else of_tenant

    async def ask(self, channel: ChannelId, epoch: Epoch | None, seqs: Sequence[Seq]) -> Collection[Seq]:
        """Return those of a channel's messages that another server has. Raises nothing."""
        question = OutcomeQuestion(epoch, {channel: list(seqs)}, with_waiting=True)
        known, _ = await self._tenant_fabric.outcomes.ask(question, self._announcements.heard())
        return {each.seq for each in known if not each.is_acked}
