"""Construct every service once, connect the services to each other, and run their background loops.

`Services` is one server's: REST and the gateway call it. `TableServices` is the part that needs tables and an audit only, for
operator commands and tools. Settings come in as `ServiceSettings`, so that nothing below `server` reads the configuration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from artcafe.delivery.hub import Hub
from artcafe.delivery.pull import Pulls
from artcafe.delivery.queue_hub import QueueHub
from artcafe.delivery.streams import Streams
from artcafe.fabric.fabric import Fabric
from artcafe.identity.local import LocalIdentity
from artcafe.identity.port import Identity
from artcafe.maintenance.adoption import adopt
from artcafe.model import Cursor, TenantChange, TenantId, UserId
from artcafe.observe.clock import Clock
from artcafe.observe.tracing import Tracing
from artcafe.plan_catalogue import shipped
from artcafe.rules.plans import Plans
from artcafe.rules.secrets import derive
from artcafe.rules.shared_limits import MakeBuckets
from artcafe.rules.throttle import Buckets
from artcafe.rules.tokens import Tokens
from artcafe.rules.usage import Metric
from artcafe.rules.webhook_targets import Network
from artcafe.services import rate_usage
from artcafe.services.agents import Agents
from artcafe.services.audiences import Audiences
from artcafe.services.audit import Audit, Chains
from artcafe.services.authentication import Authentication
from artcafe.services.causes import Causes
from artcafe.services.changes import Changes
from artcafe.services.channel_figures import Figures
from artcafe.services.channels import ChannelLogs, Channels
from artcafe.services.connections import Connections
from artcafe.services.console_codes import ConsoleCodes
from artcafe.services.cursor_moves import CursorMoves
from artcafe.services.cursors import Cursors
from artcafe.services.dead_letters import DeadLetters
from artcafe.services.history import MessageHistory
from artcafe.services.invalidation import Invalidation
from artcafe.services.invitations import Invitations
from artcafe.services.keys import AgentKeys
from artcafe.services.limits import Limits, storage
from artcafe.services.login import Login
from artcafe.services.login_throttle import LoginThrottle
from artcafe.services.loop_guard import LoopGuard
from artcafe.services.member_login import MemberLogin
from artcafe.services.members import Members
from artcafe.services.message_receipts import MessageReceipts
from artcafe.services.messaging import Messaging
from artcafe.services.meter import INTERVAL_S, Meter, MeteredLogs
from artcafe.services.operators import Operators
from artcafe.services.platform_state import PlatformState, ThisServer
from artcafe.services.presence import Presence
from artcafe.services.queue_outcomes import QueueOutcomes
from artcafe.services.rate_limits import RateLimits
from artcafe.services.readiness import Checks, Readiness, checks_of
from artcafe.services.receipts import Receipts
from artcafe.services.recipients import Recipients
from artcafe.services.record_cache import RecordCache
from artcafe.services.recount import Recount
from artcafe.services.redrives import Redrives
from artcafe.services.requests import Requests
from artcafe.services.retention import Retention
from artcafe.services.scheduled import ChannelSchedules
from artcafe.services.scheduler import Scheduler
from artcafe.services.shares import Shares
from artcafe.services.subscriptions import Subscriptions
from artcafe.services.tenants import PerPerson, TenantLogs, Tenants
from artcafe.services.terms import Current, Terms
from artcafe.services.usage import UsageReader
from artcafe.services.usage_counters import Count, UsageCounters
from artcafe.services.usage_recounts import UsageRecounts
from artcafe.services.version_watch import VersionWatch
from artcafe.services.waiting_messages import WaitingMessages
from artcafe.services.wake_policies import WakePolicies
from artcafe.services.waker import Waker
from artcafe.services.webhook_sender import WebhookSender
from artcafe.supervision import keep_all
from artcafe.tables.engine.port import Permissions
from artcafe.tables.store import Store


class MessageLogs(ChannelLogs, TenantLogs, Protocol):
    """The message logs of all tenants, as far as the table services use them: `fabric.Fabric`, or nothing in a cost probe."""

    async def position(self, tenant_id: TenantId) -> Cursor:
        """Return the end of a tenant's log. Raises `Unavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class ServiceKeys:
    """Secret keys of 32 bytes each, the same on every server of a fleet."""

    agent_tokens: bytes = field(repr=False)
    """Signs the access tokens of agents."""
    invitations: bytes = field(repr=False)
    """Signs the tokens of invitations."""

    @classmethod
    def derived_from(cls, secret: bytes) -> ServiceKeys:
        """Derive the keys from the installation's secret."""
        return cls(agent_tokens=derive(secret, "agent-tokens"), invitations=derive(secret, "invitations"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """Settings of the services. By default logins are unlimited and no terms are required."""

    service_name: str
    """Issuer and audience of agents' tokens; part of every challenge, so that a signature is valid for this service only."""
    challenges_per_min: float = 0.0
    """Login challenges per agent and address (`LoginThrottle`); 0 is unlimited."""
    make_challenge_buckets: MakeBuckets = Buckets
    """Makes the buckets that count them: of this process, or shared by several."""
    cursor_s: float = 1.0
    """Seconds between two writes of the acknowledged cursors."""
    meter_s: float = INTERVAL_S
    """Seconds between two counts of a busy tenant's stored messages; 0 counts nothing."""
    per_person: PerPerson = field(default_factory=PerPerson)
    checks: Checks = field(default_factory=dict)
    """Checks for `/health/ready` besides those of the tables and NATS."""
    permissions: Permissions | None = None
    """The permissions on the tables; None: they have none."""
    terms: Current | None = None
    """The terms that people must accept; None asks for nothing."""
    plans: Plans = field(default_factory=shipped)
    """The catalogue of plans."""
    tracing: Tracing | None = None
    """The spans of messages; None records none."""
    webhook_networks: tuple[Network, ...] = ()
    """Networks that webhooks may be sent to besides public addresses."""
    operators: tuple[UserId, ...] = ()
    """The people who may read the platform's state."""
    this: ThisServer = field(default_factory=ThisServer)
    """What this server reports to operators about itself."""


def service_name(secret: bytes, environment: str) -> str:
    """Return the name of an installation, as agents sign it and as its tokens carry it."""
    return f"artcafe:{environment}:{derive(secret, 'service-name', 8).hex()}"


class TableServices:
    """The services that need tables and an audit only: for operator commands, the cost probe and tests."""

    def __init__(
        self,
        store: Store,
        chains: Chains,
        logs: MessageLogs,
        keys: ServiceKeys,
        clock: Clock,
        settings: ServiceSettings,
        announce: Callable[[TenantChange], None] | None = None,
    ) -> None:
        """`chains` stores the audit entries. `announce` sends each change to the other servers; it must not raise or block."""
        self.store, self.clock, self.plans = store, clock, settings.plans
        self.tokens = Tokens(keys.agent_tokens, settings.service_name)
        self.audit = Audit(chains, store, clock)
        self.counters = self.audit.counters
        self.invalidation = Invalidation(announce)
        self.record_cache = RecordCache(store, self.invalidation, self.plans)
        self.changes = changes = Changes(self.invalidation, adopt)
        self.login_throttle = LoginThrottle(settings.challenges_per_min, make_buckets=settings.make_challenge_buckets)
        self.login = Login(store, self.record_cache, self.tokens, clock, settings.service_name, self.audit, self.login_throttle)
        self.tenants = Tenants(store, changes, self.audit, clock, logs, self.record_cache, self.plans, settings.per_person)
        self.limits = Limits(store, self.plans, self.record_cache)
        self.terms = Terms(store, self.audit, clock, settings.terms)
        self.member_login = MemberLogin(self.tenants, self.terms, self.audit)
        self.members = Members(store, changes, self.audit)
        self.invitations = Invitations(store, changes, self.audit, clock, keys.invitations, self.plans)
        self.agents = Agents(store, changes, self.audit, clock, self.plans, logs)
        self.keys = AgentKeys(store, changes, self.audit, clock)
        self.channels = Channels(store, changes, self.audit, clock, logs, self.plans)
        self.subscriptions = Subscriptions(store, changes, self.audit, clock, logs.position, self.record_cache)
        self.usage = UsageReader(store, clock)
        self.wake_key = derive(keys.agent_tokens, "webhooks")
        self.wake_policies = WakePolicies(store, changes, self.audit, clock, self.wake_key, settings.webhook_networks)


class Services(TableServices):
    """All services of one server.

    The constructor connects the services to the fabric: size limits of logs, limits of group commits, and announcements of
    changes in both directions. The tasks of the hub run in `group`, the background loops in `run`.
    """

    def __init__(
        self,
        store: Store,
        fabric: Fabric,
        identity: Identity,
        keys: ServiceKeys,
        clock: Clock,
        settings: ServiceSettings,
        group: asyncio.TaskGroup,
    ) -> None:
        self.meter = Meter(store, fabric, clock, interval_s=settings.meter_s) if settings.meter_s else None
        logs = fabric if self.meter is None else MeteredLogs(fabric, self.meter)
        super().__init__(store, fabric.audit_log, logs, keys, clock, settings, fabric.announcements.announce)
        self.fabric, self.identity = fabric, identity
        fabric.announcements.listen(self.invalidation.on_remote_change)
        if self.meter is not None:
            self.usage = UsageReader(store, clock, self.meter.as_of)
        counted_to = None if self.meter is None else self.meter.counted_to
        self.retention = Retention(store, fabric, clock, self.plans, counted_to=counted_to)
        fabric.set_quota(self.retention.storage_bytes)
        self.limits.add_source(storage(fabric.storage_used))
        self.shares = Shares()
        fabric.set_group_limit(lambda: self.shares.max_per_group)
        self.cursors = Cursors(store, settings.cursor_s, clock)
        fabric.set_tracing(settings.tracing)
        self.hub = Hub(fabric, group, self.retention.removed_to, clock, self.record_cache, settings.tracing)
        dead_letters = DeadLetters(store, fabric, clock)
        self.queue_hub = QueueHub(fabric, group, self.record_cache.channel, dead_letters, self.hub.tracing_of)
        self.usage_counters = UsageCounters(store, clock)
        self.usage_counters.add_source(self._deliveries)
        self.usage_counters.add_source(self._requests)
        self.loop_guard = LoopGuard(self.record_cache, fabric.daily_counters, self.audit, Causes(self.record_cache, fabric))
        self.rate_limits = RateLimits(
            fabric.recent_counters,
            self.record_cache,
            self.plans,
            clock,
            lambda: 1 + len(fabric.announcements.peers()),
            rate_usage.metered_by(store),
        )
        self.limits.add_source(rate_usage.rates(self.rate_limits))
        self.scheduler = Scheduler(self.record_cache, fabric, self.meter, clock)
        self._make_readers(store, fabric, clock)
        self.messaging = Messaging(
            self.record_cache,
            fabric,
            clock,
            self.usage_counters,
            self.rate_limits,
            self.loop_guard,
            self.scheduler,
            self.audiences,
            settings.tracing,
        )
        self.requests = Requests(self.record_cache, fabric, clock, self.rate_limits, settings.tracing)
        self.usage_recounts = UsageRecounts(None if self.meter is None else Recount(store, fabric, self.meter, clock), clock)
        self.presence, self.redrives = Presence(fabric, clock), Redrives(store, fabric, self.audit, clock)
        self.connections = Connections(self.record_cache, self.plans, fabric.census)
        self.limits.add_source(rate_usage.connections(self.connections))
        self._make_authentication(store, identity, clock)
        self._make_operators(store, fabric, clock, settings)
        self.version_watch = VersionWatch(store, self.invalidation, fabric.announcements)
        self.version_watch.add_served(self.record_cache.tenants)
        self._make_pulls_and_streams(keys, fabric, group)
        self._make_waker(store, fabric, clock, settings)
        deliveries = self.queue_hub, self.hub, self.pulls.waits, self.pulls.revocation, self.streams
        for each in (self.retention, *deliveries, self.rate_limits, self.waker):
            self.invalidation.subscribe(each.on_change)

    def _make_authentication(self, store: Store, identity: Identity, clock: Clock) -> None:
        """Make the services that authenticate callers of both listeners."""
        self.authentication = Authentication(
            self.login, self.member_login, identity, self.tenants, self.terms, self.counters, clock
        )
        local = identity if isinstance(identity, LocalIdentity) else None
        self.console_codes = ConsoleCodes(store.console_codes(), local, self.login_throttle, clock)

    def _make_operators(self, store: Store, fabric: Fabric, clock: Clock, settings: ServiceSettings) -> None:
        """Make the services that show whether the platform works."""
        self.readiness = Readiness({**checks_of(store, fabric, clock), **settings.checks}, settings.permissions)
        self.operators = Operators(settings.operators, self.terms, self.counters)
        self.platform_state = PlatformState(store, fabric, self.readiness, clock, settings.this, lambda: len(self.connections))

    def _make_pulls_and_streams(self, keys: ServiceKeys, fabric: Fabric, group: asyncio.TaskGroup) -> None:
        """Make the deliveries over HTTP, whose callers are checked after each change."""
        self.pulls = Pulls(self, derive(keys.agent_tokens, "pull-receipts"))
        self.streams = Streams(self, group, derive(keys.agent_tokens, "stream-positions"))
        fabric.on_tenant_failure(self.streams.close_tenant)
        for tenants in (self.pulls.waits.tenants, self.pulls.holds.tenants, self.streams.tenants):
            self.version_watch.add_served(tenants)

    def _make_readers(self, store: Store, fabric: Fabric, clock: Clock) -> None:
        """Make the services that show logs, scheduled messages, cursors and the recipients of messages."""
        self.history = MessageHistory(self.record_cache, fabric, self.retention)
        self.scheduled = ChannelSchedules(self.record_cache, fabric, self.audit)
        self.cursor_moves = CursorMoves(store, self.changes, self.audit, clock, self.record_cache, fabric, self.retention)
        self.audiences = Audiences(store, fabric, self.record_cache)
        self.invalidation.subscribe(self.audiences.on_change)
        self.recipients = Recipients(store, fabric, self.cursors, clock)
        queue_outcomes = QueueOutcomes(fabric, clock)
        queue_outcomes.set_queues(self.queue_hub.outcomes)
        self.message_receipts = MessageReceipts(self.record_cache, fabric, self.recipients, queue_outcomes, clock)
        self.receipts = Receipts(fabric, self.record_cache, self.recipients, queue_outcomes)
        self.invalidation.subscribe(self.receipts.on_change)
        self.figures = Figures(fabric, self.record_cache)

    def _make_waker(self, store: Store, fabric: Fabric, clock: Clock, settings: ServiceSettings) -> None:
        """Make the service that sends webhooks."""
        sender = WebhookSender(settings.webhook_networks)
        waiting = WaitingMessages(store, self.record_cache, self.audiences, clock)
        self.waker = Waker(store, fabric, waiting, self.changes, self.audit, clock, self.wake_key, sender)
        self.version_watch.add_served(self.waker.tenants)

    async def run(self) -> None:
        """Run every background loop until cancelled. A loop that raises is logged and restarted."""
        meter = {} if self.meter is None else {"meter": self.meter.run}
        await keep_all(
            {
                **meter,
                "identity": self.identity.run,
                "cursors": self.cursors.run,
                "retention": self.retention.run,
                "limits": self.retention.follow_limits,
                "rate_limits": self.rate_limits.run,
                "audit": self.counters.run,
                "loop_guard": self.loop_guard.run,
                "scheduler": self.scheduler.run,
                "record_cache": self.record_cache.run,
                "changes": self.version_watch.run,
                "usage": self.usage_counters.run,
                "audiences": self.audiences.run,
                "receipts": self.receipts.run,
                "pulls": self.pulls.holds.run,
                "pull_revocation": self.pulls.revocation.run,
                "streams": self.streams.run,
                "waker": self.waker.run,
            }
        )

    def _deliveries(self) -> Iterable[Count]:
        for sent in (*self.hub.take_counts(), *self.queue_hub.take_counts()):
            yield Count(sent.tenant_id, Metric.DELIVERIES, sent.messages, sent.receiver, sent.channel_id)

    def _requests(self) -> Iterable[Count]:
        for tenant_id, sender, requests in self.shares.take_requests():
            yield Count(tenant_id, Metric.REQUESTS, requests, sender)
