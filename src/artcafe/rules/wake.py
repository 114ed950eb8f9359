"""The wake policy of an agent: when a webhook is due, by which secrets it is signed, and when it is tried again (decision
record 60)."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from artcafe.errors import Invalid
from artcafe.model import Cursor, Epoch, Record, Seq

DEFAULT_INTERVAL_S: Final = 60
MAX_INTERVAL_S: Final = 86_400
MAX_FAILURES: Final = 12
"""Failed attempts in a row after which the policy is disabled: some 5 hours after the first one."""
FIRST_RETRY_S: Final = 5.0
MAX_RETRY_S: Final = 3600.0
MAX_RETRY_AFTER_S: Final = 86_400.0
"""Longest wait for an attempt that a receiver may ask for."""
OVERLAP: Final = timedelta(hours=24)
"""How long the previous secret signs, too, after another one was made."""

_QUIET = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_DAY_MIN: Final = 24 * 60


class WakePolicy(Record, frozen=True, kw_only=True):
    """When and where an agent that is away is sent a webhook. A secret is derived from its salt: no row contains a secret."""

    url: str
    interval_s: int = DEFAULT_INTERVAL_S
    """The least seconds between two webhooks."""
    quiet_hours: str | None = None
    """`22:00-06:00` of UTC: no webhook in this time of any day."""
    is_enabled: bool = True
    salts: tuple[str, ...]
    """Of the current secret, and of the previous one if there is one."""
    rotated_at: datetime | None = None
    """When the current secret replaced another one."""
    problem: str | None = None
    """Why the server has disabled the policy."""


class WakeState(Record, frozen=True, kw_only=True):
    """What was sent by a policy. `serial` rises with each write: of two servers that send at once, one write succeeds."""

    serial: int = 0
    notified: Cursor = Cursor()
    """The position in the tenant's log up to which a webhook has announced messages to the agent."""
    sent_at: datetime | None = None
    """The last webhook that was answered with success."""
    webhook_id: str | None = None
    """The webhook that is under way, or waits for another attempt."""
    up_to: Seq = 0
    """The position that it announces, in the log of `epoch`."""
    epoch: Epoch = Epoch("")
    due_at: datetime | None = None
    """The time of its next attempt. During an attempt, the time at which another server may try: this one may have ended."""
    failures: int = 0
    """Failed attempts since the last success."""
    failure: str | None = None
    """The reason of the last one."""


def check_interval(seconds: int) -> int:
    """Raise `Invalid` for an interval out of bounds."""
    if not 1 <= seconds <= MAX_INTERVAL_S:
        raise Invalid("interval_s", f"must be 1 to {MAX_INTERVAL_S} seconds")
    return seconds


def check_quiet_hours(text: str) -> str:
    """Raise `Invalid` for anything but two different times of a day."""
    found = _QUIET.fullmatch(text)
    if found is None or found[1] + found[2] == found[3] + found[4]:
        raise Invalid("quiet_hours", "must be two different times of UTC, such as 22:00-06:00")
    return text


def quiet_until(quiet_hours: str | None, now: datetime) -> datetime | None:
    """Return the end of the quiet hours that `now`, in UTC, is in; None outside of them."""
    found = None if quiet_hours is None else _QUIET.fullmatch(quiet_hours)
    if found is None:
        return None
    begin, end = (int(found[hour]) * 60 + int(found[hour + 1]) for hour in (1, 3))
    at = now.hour * 60 + now.minute
    if (at - begin) % _DAY_MIN >= (end - begin) % _DAY_MIN:
        return None
    return now.replace(second=0, microsecond=0) + timedelta(minutes=(end - at) % _DAY_MIN)


def retry_s(failures: int) -> float:
    """Return the seconds until the next attempt, after this many failures (from 1): 5 s, then three times as long, up to an
    hour."""
    return min(MAX_RETRY_S, FIRST_RETRY_S * 3.0 ** (failures - 1))


def retry_after_s(text: str, now: datetime) -> float:
    """Return the seconds that a `Retry-After` asks for (RFC 9110, section 10.2.3: a number or a date), at most a day; 0 for
    anything else."""
    if text.isascii() and text.isdigit():
        wait_s = float(text[:9])
    else:
        try:
            until = parsedate_to_datetime(text)
        except (ValueError, OverflowError):  # The latter for a year or a zone beyond all bounds.
            return 0.0
        wait_s = (until - now).total_seconds() if until.tzinfo is not None else 0.0
    return min(MAX_RETRY_AFTER_S, max(0.0, wait_s))


def salts_at(policy: WakePolicy, now: datetime) -> tuple[str, ...]:
    """Return the salts of the secrets that sign now."""
    is_overlapping = policy.rotated_at is not None and now < policy.rotated_at + OVERLAP
    return policy.salts if is_overlapping else policy.salts[:1]
