"""Quiet hours, retries, secrets and signatures of webhooks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from artcafe.errors import Invalid
from artcafe.observe.clock import now
from artcafe.rules import wake, webhook_signatures
from artcafe.rules.wake import WakePolicy

MINUTES = st.integers(0, 24 * 60 - 1)


def _text(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@given(MINUTES, MINUTES, st.datetimes(timezones=st.just(UTC)))
def test_quiet_hours_end_at_their_end_on_the_same_or_the_next_day(begin: int, end: int, at: datetime) -> None:
    if begin == end:
        with pytest.raises(Invalid, match="quiet_hours"):
            wake.check_quiet_hours(f"{_text(begin)}-{_text(end)}")
        return
    quiet = wake.check_quiet_hours(f"{_text(begin)}-{_text(end)}")
    until = wake.quiet_until(quiet, at)
    minute = at.hour * 60 + at.minute
    is_quiet = begin <= minute < end if begin < end else minute >= begin or minute < end
    assert (until is not None) is is_quiet
    if until is not None:
        assert at < until <= at + timedelta(days=1)
        assert (until.hour * 60 + until.minute, until.second) == (end, 0)
        assert wake.quiet_until(quiet, until) is None


@pytest.mark.parametrize("text", ["", "22-6", "22:00", "24:00-06:00", "22:60-06:00", "22:00-06:00 ", "2:00-6:00"])
def test_malformed_quiet_hours_are_refused(text: str) -> None:
    with pytest.raises(Invalid, match="such as 22:00-06:00"):
        wake.check_quiet_hours(text)


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("120", 120),
        ("0", 0),
        ("999999999999", 86_400),
        ("Sun, 29 Nov 2026 12:02:00 GMT", 120),
        ("Sun, 29 Nov 2026 11:00:00 GMT", 0),
        ("Sun, 29 Nov 2036 12:00:00 GMT", 86_400),
        ("Mon, 01 Jan 2026 00:00:00 +99999999999999999", 0),
        ("Mon, 01 Jan 20260000000000000000 00:00:00 GMT", 0),
        *[(text, 0) for text in ("", "-5", "soon", "1e3", "²", "Sun, 29 Nov 2026 12:02:00", "Sun, 99 Nov 2026 12:02:00 GMT")],
    ],
)
def test_receiver_asks_for_a_number_of_seconds_or_a_date_and_a_day_at_most(text: str, wait_s: float) -> None:
    assert wake.retry_after_s(text, datetime(2026, 11, 29, 12, tzinfo=UTC)) == wait_s


def test_retries_back_off_to_an_hour() -> None:
    waits = [wake.retry_s(failures) for failures in range(1, wake.MAX_FAILURES)]
    assert waits[:4] == [5, 15, 45, 135]
    assert waits[-1] == wake.MAX_RETRY_S
    assert 4 * 3600 < sum(waits) < 7 * 3600


def test_signatures_are_verified_by_the_library_with_either_secret_and_no_other() -> None:
    body, key = b'{"type":"agent.messages_waiting"}', b"k" * 32
    secrets = [webhook_signatures.secret_of(key, salt) for salt in ("new", "old")]
    headers = webhook_signatures.signed_headers(secrets, "whk_1", now(), body)
    for secret in secrets:
        assert Webhook(webhook_signatures.secret_text(secret)).verify(body, headers) == {"type": "agent.messages_waiting"}
    for other, said in ((webhook_signatures.secret_of(key, "other"), body), (secrets[0], b"{}")):
        with pytest.raises(Exception, match="No matching signature"):
            Webhook(webhook_signatures.secret_text(other)).verify(said, headers)


def test_previous_secret_signs_for_a_day() -> None:
    at = now()
    policy = WakePolicy(url="https://hooks.example.com", salts=("new", "old"), rotated_at=at)
    assert wake.salts_at(policy, at + timedelta(hours=23)) == ("new", "old")
    assert wake.salts_at(policy, at + timedelta(hours=24)) == ("new",)
