"""Who may open a socket, before anything is known of them: which pages of a browser, from where, and how often."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import urlsplit

from multidict import CIMultiDict

from artcafe.errors import TooFast
from artcafe.rules.clients import Proxies, counted_as
from artcafe.rules.throttle import Buckets

BURST_S: Final = 10
"""So many seconds' worth may come at once: a server that comes back is met by all its agents."""


class Admission:
    """`origins`: whose pages may connect beside those of the gateway's own host, such as `https://app.example.com`."""

    def __init__(
        self,
        proxies: Proxies | None = None,
        origins: Iterable[str] = (),
        connects_per_s: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._proxies = proxies or Proxies()
        self._origins = frozenset(origins)
        self._buckets = Buckets(connects_per_s, connects_per_s * BURST_S)
        self._monotonic = monotonic

    def is_welcome(self, headers: CIMultiDict[str]) -> bool:
        """Whether the page that asks may connect (RFC 6455, section 10.2). Programs name no origin, and are welcome.

        No credential of a browser's comes along by itself here; this keeps a foreign page from trying what it was told.
        """
        origins = headers.getall("Origin", [])
        if not origins:
            return True
        return len(origins) == 1 and (origins[0] in self._origins or _host(origins[0]) == _host(f"//{headers.get('Host', '')}"))

    def admit(self, peer: str | None, forwarded: Iterable[str]) -> str:
        """The address that is believed, of a socket that may stay. Raises TooFast."""
        address = self._proxies.observed(peer, forwarded)
        wait_s = self._buckets.take(counted_as(address), self._monotonic())
        if wait_s:
            raise TooFast("connections", wait_s)
        return address


def _host(url: str) -> str | None:
    """The host without its port: a page beside the gateway, on a port of its own, is at home. None is nobody's."""
    try:
        return urlsplit(url).hostname or url
    except ValueError:
        return url
