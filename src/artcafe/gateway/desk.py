"""The services that the gateway's sessions use."""

from __future__ import annotations

from dataclasses import dataclass

from artcafe.delivery.hub import Hub
from artcafe.observe.clock import Clock
from artcafe.services.audit_counters import AuditCounters
from artcafe.services.connections import Connections
from artcafe.services.cursors import Cursors
from artcafe.services.history import History
from artcafe.services.login import Login
from artcafe.services.member_login import MemberLogin
from artcafe.services.messaging import Messaging
from artcafe.services.presence import Presence
from artcafe.services.record_cache import RecordCache
from artcafe.services.shares import Shares
from artcafe.services.subscriptions import Subscriptions


@dataclass(frozen=True, slots=True)
class Desk:
    """The services that the gateway's sessions use."""

    login: Login
    record_cache: RecordCache
    subscriptions: Subscriptions
    messaging: Messaging
    cursors: Cursors
    hub: Hub
    clock: Clock
    presence: Presence
    history: History
    connections: Connections
    member_login: MemberLogin
    counters: AuditCounters
    shares: Shares
