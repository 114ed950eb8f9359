"""Origins of web pages: which pages a browser may let reach a listener (RFC 6454; RFC 6455, section 10.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import urlsplit

from artcafe.rules.clients import is_address

_AUTHORITY: Final = re.compile(r"[\w.-]+(:\d+)?|\[[0-9a-fA-F:.]+\](:\d+)?")
"""A host with an optional port, and nothing else that a URL may have there."""


class Origins:
    """The web pages that may reach a listener: those of its own host, and those of other origins that the operator names."""

    def __init__(self, origins: Iterable[str] = (), hosts: Iterable[str] = ()) -> None:
        """`origins`: allowed in addition to the listener's own host, such as `https://app.example.com`. `hosts`: names of its
        host, in addition to its addresses and `localhost`."""
        self._origins, self._hosts = frozenset(origins), frozenset(hosts)

    def is_allowed(self, origins: Sequence[str], host: str) -> bool:
        """Return whether a page may send a request with these Origin headers. Programs send none and are allowed.

        `host`: the authority of the request. A page of the same host is allowed if the host is the listener's own, but not a
        foreign name resolved to this address (DNS rebinding).
        """
        if not origins:
            return True
        name = _host(origins[0])
        return len(origins) == 1 and (origins[0] in self._origins or (name == _host(f"//{host}") and self._is_own_name(name)))

    def is_own(self, host: str) -> bool:
        """Return whether the authority of a request is a name or an address of the listener's host, with or without a port."""
        return _AUTHORITY.fullmatch(host) is not None and self._is_own_name(_host(f"//{host}"))

    def _is_own_name(self, name: str) -> bool:
        return name in self._hosts or name == "localhost" or is_address(name)


def _host(url: str) -> str:
    """Return the host without its port: a page of the same host on another port is allowed."""
    try:
        return urlsplit(url).hostname or url
    except ValueError:
        return url
