"""Counts the publishes of one tenant: once for each group commit, since a publish takes some 20 µs in all."""

from __future__ import annotations

import time
from collections.abc import Sequence

from artcafe.errors import CallerFault, KeyReused, OutcomeUnknown
from artcafe.fabric.pending_publish import PendingPublish
from artcafe.model import TenantId
from artcafe.observe import metrics

_seconds = metrics.PUBLISH_SECONDS.of()


class PublishMetrics:
    """The outcomes of a tenant's publishes to stored channels."""

    __slots__ = ("_duplicate", "_failed", "_refused", "_stored", "_timeout_s", "_unknown")

    def __init__(self, tenant_id: TenantId | None, timeout_s: float) -> None:
        """`timeout_s`: from the acceptance of a publish to its deadline."""
        self._timeout_s = timeout_s
        outcomes = "stored", "duplicate", "refused", "failed", "unknown"
        cells = (metrics.PUBLISHES.of(outcome, tenant=tenant_id) for outcome in outcomes)
        self._stored, self._duplicate, self._refused, self._failed, self._unknown = cells

    def stored(self, group: Sequence[PendingPublish]) -> None:
        """Count publishes that were stored just now, and the repeats that they have answered."""
        self._stored.add(len(group))
        accepted_to_deadline = time.monotonic() + self._timeout_s
        _seconds.observe_all([accepted_to_deadline - one.deadline for one in group])
        for repeat in [each for one in group for each in one.duplicates]:
            self.repeated(repeat)

    def repeated(self, repeat: PendingPublish) -> None:
        """Count a resolved repeat of a key, which was refused if it had other content."""
        is_refused = not repeat.done.cancelled() and isinstance(repeat.done.exception(), KeyReused)
        (self._refused if is_refused else self._duplicate).add()

    def failed(self, error: Exception, count: int = 1) -> None:
        """Count publishes that ended with this error."""
        is_refused = isinstance(error, CallerFault)
        (self._refused if is_refused else self._unknown if isinstance(error, OutcomeUnknown) else self._failed).add(count)
