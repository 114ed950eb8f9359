"""Notification of changes: every cache of a tenant's rows is called with each change, on this server and on the others.

A change names the written rows, and a subscriber reads only those again. Announcements between servers are fast but can
be lost; `version_watch` finds changes with a lost announcement.
"""

from __future__ import annotations

from collections.abc import Callable

from artcafe.model import TenantChange, TenantId
from artcafe.supervision import Supervisor


class Invalidation:
    """Calls the subscribers of this process with each change, and announces the changes made here to the other servers."""

    def __init__(self, announce: Callable[[TenantChange], None] | None = None) -> None:
        """`announce` sends a change to `on_remote_change` of the other servers. It must not raise."""
        self._subscribers: list[Callable[[TenantChange], None]] = []
        self._announce = announce
        self.supervisor = Supervisor("changes")

    def subscribe(self, callback: Callable[[TenantChange], None]) -> None:
        """Call `callback` with every change. Subscribers are called in the order of their subscription."""
        self._subscribers.append(callback)

    def notify(self, tenant_id: TenantId) -> None:
        """Publish a possible change of anything in the tenant. May be repeated."""
        self.publish(TenantChange(tenant_id=tenant_id, is_whole=True))

    def publish(self, change: TenantChange) -> None:
        """Notify this process and the other servers of a change made here."""
        self.on_remote_change(change)
        if self._announce is not None:
            self._announce(change)

    def on_remote_change(self, change: TenantChange) -> None:
        """Notify this process of a change announced by another server, or found in the tables."""
        for callback in self._subscribers:
            with self.supervisor.contain(tenant=change.tenant_id):
                callback(change)
