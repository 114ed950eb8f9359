"""Delays between retries. The error decides whether a retry can help."""

from __future__ import annotations

import random
from typing import Final

FIRST_S: Final = 0.1
MAX_S: Final = 15.0


def bound_s(failures: int) -> float:
    """Return the maximum delay after this many consecutive failures (from 1): it doubles from 0.1 s to 15 s."""
    return min(MAX_S, FIRST_S * 2.0 ** min(failures - 1, 16))


def delay_s(failures: int) -> float:
    """Return the delay in seconds after this many consecutive failures: "full jitter", a random value from 0 to the maximum.

    Among the common schemes it needs the least server work to reconnect many clients
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """
    return random.uniform(0, bound_s(failures))  # noqa: S311 - it spreads load and keeps no secret
