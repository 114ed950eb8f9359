"""Requests, pulls, receipts and scheduled messages at the same time, for tests that inject a fault under all four."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from tests.faults.pull_traffic import PullTraffic
from tests.faults.receipt_traffic import ReceiptTraffic
from tests.faults.request_traffic import RequestTraffic
from tests.faults.schedule_traffic import ScheduleTraffic
from tests.faults.traffic import Traffic
from tests.faults.verdicts import Ruling

KINDS: Final[Sequence[type[Traffic]]] = (RequestTraffic, PullTraffic, ReceiptTraffic, ScheduleTraffic)
FEW: Final = 5
"""Steps between two faults, in the suite."""


def note_kill(all_of: Sequence[Traffic]) -> float:
    """Note that nats-server is killed now, and return the time."""
    at = time.monotonic()
    for traffic in all_of:
        traffic.nats_kills.append(at)
    return at


def check(rulings: Mapping[str, Ruling], seed: int) -> None:
    """Fail if a checker found a violation."""
    failed = [f"{name}: {ruling}" for name, ruling in rulings.items() if ruling.violations]
    assert not failed, "\n".join([f"ARTCAFE_TEST_SEED={seed}", *failed])


def tenants_with_logs(all_of: Sequence[Traffic]) -> list[str]:
    """Return the tenants that store messages: requests do not."""
    return [each.cast.tenant for each in all_of if not isinstance(each, RequestTraffic)]
