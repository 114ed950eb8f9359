"""Subscriptions of agents to channels. `cursors` has their positions, and `delivery` delivers the messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import Final

from artcafe.errors import AgentNotFound, ChannelNotFound, Conflict, LimitReached, SubscriptionNotFound
from artcafe.model import (
    Access,
    Agent,
    AgentId,
    AgentPrincipal,
    ChannelId,
    Cursor,
    Permission,
    Principal,
    Subscription,
    SubscriptionStatus,
    TenantId,
    subscription_id,
)
from artcafe.observe.clock import Clock
from artcafe.rules import access, inboxes
from artcafe.rules.access import Action
from artcafe.rules.inboxes import InboxSubscription
from artcafe.rules.pages import FIRST, Page, PageRequest
from artcafe.rules.plans import Limit
from artcafe.services.audit import Audit
from artcafe.services.changes import Changes
from artcafe.services.record_cache import RecordCache
from artcafe.tables.engine.port import ConditionFailed
from artcafe.tables.engine.writes import Write
from artcafe.tables.store import Store
from artcafe.tables.tenant_store import TenantStore

Position = Callable[[TenantId], Awaitable[Cursor]]
"""Return the end of a tenant's log: its epoch and last sequence, or an empty cursor if nothing was stored yet."""

_TRIES: Final = 3
_ENTER: Final = 2
"""The index of the write of the agent's row in the transaction of a new subscription, after the tenant's row and the channel."""


class Subscriptions:
    """Operations of members on the subscriptions of their tenant, and of each agent on its own."""

    def __init__(
        self, store: Store, changes: Changes, audit: Audit, clock: Clock, position: Position, record_cache: RecordCache
    ) -> None:
        self._store, self._changes, self._audit, self._clock, self._position = store, changes, audit, clock, position
        self._record_cache = record_cache

    async def put(
        self, principal: Principal, channel_id: str, agent_id: str, permissions: frozenset[Permission] | None = None
    ) -> tuple[Subscription, bool]:
        """Subscribe the agent to the channel from the next message on. Return the subscription, and whether it is new.

        May be repeated: an existing subscription keeps its status and cursor, and gets `permissions` if given; a new one may
        receive by default. Raises ChannelNotFound, also to an agent that subscribes itself to a managed channel; AgentNotFound,
        LimitReached and Forbidden, also if an agent sets its own permissions.
        """
        access.check(principal, Action.CHANGE_SUBSCRIPTION, AgentId(agent_id))
        if permissions is not None:
            access.check(principal, Action.GIVE_PERMISSIONS)
        tenant = self._store.tenant(principal.tenant_id)
        if inboxes.owner_of(channel_id) == agent_id and permissions is None:  # it exists as long as the agent
            return inboxes.subscription_of(await _agent(tenant, agent_id)), False
        for _ in range(_TRIES):
            agent = await _agent(tenant, agent_id)
            channel = await tenant.channel(channel_id)
            if channel is None:
                raise ChannelNotFound(channel_id)
            existing = await tenant.subscriptions.get(channel_id, agent_id)
            if existing is not None and existing.channel_id in agent.channels:
                return await self._permit(principal, existing, permissions), False
            if existing is None and channel.access is Access.MANAGED:
                access.check_may_find(principal, channel_id)
            subscription = existing or await self._new(tenant, ChannelId(channel_id), agent, permissions)
            if await self._enter(principal, subscription, is_new=existing is None):
                return await self._permit(principal, subscription, permissions), existing is None
        raise _busy(channel_id, agent_id)

    async def _permit(
        self, principal: Principal, subscription: Subscription, permissions: frozenset[Permission] | None
    ) -> Subscription:
        """Return the subscription with these permissions; write them if they differ."""
        if permissions is None or permissions == subscription.permissions:
            return subscription
        tenant = self._store.tenant(principal.tenant_id)
        update = tenant.subscriptions.set_permissions(subscription.channel_id, subscription.agent_id, permissions, self._clock())
        try:
            async with self._audited(principal, "subscription.change", subscription, permissions=_words(permissions)):
                await self._changes.commit(tenant, tenant.touch(), update)
        except ConditionFailed as failed:
            raise SubscriptionNotFound(subscription.agent_id) from failed
        return await _require_subscription(tenant, subscription.channel_id, subscription.agent_id)

    async def get(self, principal: Principal, channel_id: str, agent_id: str) -> Subscription:
        """Return a subscription. Raises Forbidden and SubscriptionNotFound."""
        access.check(principal, Action.READ_SUBSCRIPTION, AgentId(agent_id))
        return await _require_subscription(self._store.tenant(principal.tenant_id), channel_id, agent_id)

    async def set_status(self, principal: Principal, channel_id: str, agent_id: str, status: SubscriptionStatus) -> Subscription:
        """Pause a subscription, or resume it from its cursor. May be repeated. Raises Forbidden and SubscriptionNotFound."""
        access.check(principal, Action.CHANGE_SUBSCRIPTION, AgentId(agent_id))
        tenant = self._store.tenant(principal.tenant_id)
        subscription = await _changeable(tenant, channel_id, agent_id)
        if subscription.status is status:
            return subscription
        update = tenant.subscriptions.set_status(subscription.channel_id, subscription.agent_id, status, self._clock())
        try:
            async with self._audited(principal, "subscription.change", subscription, status=status.value):
                await self._changes.commit(tenant, tenant.touch(), update)
        except ConditionFailed as failed:
            raise SubscriptionNotFound(agent_id) from failed
        return await _require_subscription(tenant, channel_id, agent_id)

    async def delete(self, principal: Principal, channel_id: str, agent_id: str) -> None:
        """Delete the subscription with its cursor. Raises Forbidden and SubscriptionNotFound."""
        access.check(principal, Action.CHANGE_SUBSCRIPTION, AgentId(agent_id))
        tenant = self._store.tenant(principal.tenant_id)
        subscription = await _changeable(tenant, channel_id, agent_id)

        async def commit(writes: Sequence[Write]) -> None:
            async with self._audited(principal, "subscription.delete", subscription):
                await self._changes.commit(tenant, tenant.touch(), *writes)

        if not await end(tenant, subscription, commit):
            raise SubscriptionNotFound(agent_id)

    async def list_of_channel(
        self, principal: Principal, channel_id: str, page_request: PageRequest = FIRST
    ) -> Page[Subscription]:
        """Return a page of the channel's subscriptions, ordered by agent id. Raises Forbidden and ChannelNotFound."""
        access.check(principal, Action.READ_SUBSCRIPTIONS)
        tenant = self._store.tenant(principal.tenant_id)
        channel = await tenant.channel(channel_id)
        if channel is None:
            raise ChannelNotFound(channel_id)
        return await tenant.subscriptions.of_channel(channel.id, page_request)

    async def list_of_agent(self, principal: Principal, agent_id: str, page_request: PageRequest = FIRST) -> Page[Subscription]:
        """Return a page of the agent's subscriptions, ordered by channel id. Raises Forbidden and AgentNotFound."""
        access.check(principal, Action.READ_SUBSCRIPTION, AgentId(agent_id))
        tenant = self._store.tenant(principal.tenant_id)
        agent = await _agent(tenant, agent_id)
        left = sorted(
            channel_id for channel_id in agent.channels if page_request.after is None or channel_id > page_request.after
        )
        here = left[: page_request.limit]
        found = await tenant.subscriptions.get_many([(channel_id, agent.id) for channel_id in here])
        return Page(tuple(each for each in found if each is not None), here[-1] if len(left) > len(here) else None)

    async def for_connect(self, tenant_id: TenantId, agent_id: AgentId) -> list[Subscription]:
        """Return the agent's inbox, and its active subscriptions with the permission to receive, ordered by channel id. Used at
        `connect`. None for an unknown agent."""
        agent = await self._store.tenant(tenant_id).agent(agent_id)
        if agent is None:
            return []
        found = await self.now(tenant_id, [(channel_id, agent_id) for channel_id in sorted(agent.channels)])
        active = [each for each in found if each is not None and each.allows(Permission.RECEIVE)]
        return [inboxes.subscription_of(agent), *active]

    async def now(self, tenant_id: TenantId, pairs: Sequence[tuple[ChannelId, AgentId]]) -> list[Subscription | None]:
        """Return the current subscription of each channel and agent, in the given order; None for a missing one."""
        return await self._store.tenant(tenant_id).subscriptions.get_many(pairs)

    async def _new(
        self, tenant: TenantStore, channel_id: ChannelId, agent: Agent, permissions: frozenset[Permission] | None
    ) -> Subscription:
        # Read the position before writing the row: a message published in between is above the cursor, and is delivered.
        cursor, now = await self._position(tenant.id), self._clock()
        return Subscription(
            tenant_id=tenant.id,
            channel_id=channel_id,
            agent_id=agent.id,
            permissions=frozenset({Permission.RECEIVE}) if permissions is None else permissions,
            cursor=cursor,
            start=cursor,
            created_at=now,
            updated_at=now,
        )

    async def _enter(self, principal: Principal, subscription: Subscription, is_new: bool) -> bool:
        """Write the subscription and the agent's channel map. Return False if a row was changed since it was read."""
        tenant = self._store.tenant(principal.tenant_id)
        channel_id, agent_id = subscription.channel_id, subscription.agent_id
        # An older system's subscription whose channel the agent's row lacks is not a new one.
        most = (await self._record_cache.limits(tenant.id))[Limit.AGENT_SUBSCRIPTIONS] if is_new else None
        enter = tenant.subscriptions.enter_channel(agent_id, channel_id, most)
        writes: list[Write] = [tenant.check_channel(channel_id), enter]
        if is_new:
            writes.append(tenant.subscriptions.insert(subscription))
        permissions = _words(subscription.permissions)
        try:
            async with self._audited(principal, "subscription.create", subscription, permissions=permissions):
                try:
                    await self._changes.commit(tenant, tenant.touch(), *writes)
                except ConditionFailed as failed:
                    used = tenant.subscriptions.count_in(failed.failed.get(_ENTER))
                    if most is not None and used is not None and used >= most:
                        raise LimitReached(Limit.AGENT_SUBSCRIPTIONS.value, most, used) from failed
                    raise
        except ConditionFailed:
            # The agent's row may be an older system's, which has no channel map.
            with suppress(ConditionFailed):
                await tenant.subscriptions.ensure_channel_map(agent_id)
            return False
        return True

    def _audited(
        self, principal: Principal, action: str, subscription: Subscription, **facts: str
    ) -> AbstractAsyncContextManager[object]:
        """Audit a change by a person. An agent's own subscriptions do not change its rights, and are not audited (record 22)."""
        if isinstance(principal, AgentPrincipal):
            return nullcontext()
        target = subscription_id(subscription.channel_id, subscription.agent_id)
        return self._audit.action(principal, action, target, **facts)


async def end(tenant: TenantStore, subscription: Subscription, commit: Callable[[Sequence[Write]], Awaitable[None]]) -> bool:
    """Delete a subscription and its entry in the agent's channel map with one `commit`. Return False if it did not exist."""
    channel_id, agent_id = subscription.channel_id, subscription.agent_id
    for _ in range(_TRIES):
        agent = await tenant.agent(agent_id, also_deleting=True)
        writes: list[Write] = [tenant.subscriptions.delete(channel_id, agent_id, must_exist=True)]
        if agent is not None and channel_id in agent.channels:
            writes.append(tenant.subscriptions.leave_channel(agent_id, channel_id))
        try:
            await commit(writes)
        except ConditionFailed:
            if await tenant.subscriptions.get(channel_id, agent_id) is None:
                return False
        else:
            return True
    raise _busy(channel_id, agent_id)


async def _agent(tenant: TenantStore, agent_id: str) -> Agent:
    agent = await tenant.agent(agent_id)
    if agent is None:
        raise AgentNotFound(agent_id)
    return agent


async def _require_subscription(tenant: TenantStore, channel_id: str, agent_id: str) -> Subscription:
    subscription = await tenant.subscriptions.get(channel_id, agent_id)
    if subscription is None:
        raise SubscriptionNotFound(agent_id)
    return subscription


async def _changeable(tenant: TenantStore, channel_id: str, agent_id: str) -> Subscription:
    subscription = await _require_subscription(tenant, channel_id, agent_id)
    if isinstance(subscription, InboxSubscription):
        raise Conflict("an agent always receives its own inbox: this subscription cannot be paused or deleted")
    return subscription


def _words(permissions: frozenset[Permission]) -> str:
    return " ".join(sorted(permission.value for permission in permissions))


def _busy(channel_id: str, agent_id: str) -> Conflict:
    return Conflict(f"channel {channel_id} or agent {agent_id} is being changed by other requests at the same time; try again")
