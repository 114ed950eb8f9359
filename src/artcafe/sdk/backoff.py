"""How long to wait before trying again. Whether trying again can help is the error's to say."""

from __future__ import annotations

import random
from typing import Final

FIRST_S: Final = 0.1
LONGEST_S: Final = 15.0


def bound_s(failures: int) -> float:
    """The most that is waited after so many failures in a row, from 1: doubles from 0.1 s to 15 s."""
    return min(LONGEST_S, FIRST_S * 2.0 ** min(failures - 1, 16))


def delay_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row: "full jitter", anything from 0 to the bound.

    Of the usual schemes it brings a crowd of clients back with the least work for the server
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """
    return random.uniform(0, bound_s(failures))  # noqa: S311 - it spreads load and keeps no secret
