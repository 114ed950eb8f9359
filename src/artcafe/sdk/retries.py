"""The waits between the repeats of one REST request, within its bounds."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from artcafe.errors import ArtcafeError
from artcafe.sdk import backoff
from artcafe.sdk.outbox import MAX_RATE_WAIT_S

log = logging.getLogger("artcafe")

MAX_RETRY_S: Final = 5.0
"""Longer than a server takes to restart."""


class Retries:
    """The repeats of one request: after a failure for at most `max_retry_s` in all, above rate limits for at most
    `max_rate_wait_s`. The waits count, the attempts do not: each has its own timeout."""

    def __init__(self, max_retry_s: float = MAX_RETRY_S, max_rate_wait_s: float = MAX_RATE_WAIT_S) -> None:
        self._retry_left_s, self._rate_left_s = max_retry_s, max_rate_wait_s
        self._failures = 0

    async def after_failure(self, error: ArtcafeError, asked_s: float = 0.0) -> None:
        """Wait with back-off, but not less than `asked_s`. Raises `error` if that exceeds the bound."""
        self._failures += 1
        wait_s = max(asked_s, backoff.delay_s(self._failures))
        # An empty bound forbids a wait of 0 s too, which the back-off may draw.
        if not wait_s <= self._retry_left_s or not self._retry_left_s:
            raise error
        self._retry_left_s -= wait_s
        await _wait(error, wait_s)

    async def after_rate_limit(self, error: ArtcafeError, asked_s: float) -> None:
        """Wait as long as the server asks. Raises `error` if that exceeds the bound, or the server has named no time."""
        if not 0 < asked_s <= self._rate_left_s:
            raise error
        self._rate_left_s -= asked_s
        await _wait(error, asked_s)


async def _wait(error: ArtcafeError, wait_s: float) -> None:
    log.info("repeating a request in %.1f s: %s", wait_s, error)
    await asyncio.sleep(wait_s)
