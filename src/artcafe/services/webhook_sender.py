"""Send a webhook to an address chosen by a tenant: resolved once, checked, and connected to as it was checked.

Nothing of the answer is used but its status and `Retry-After`. A redirect is not followed. Time, the answer's head and what is
sent are bounded.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Final, NamedTuple

import httpx2

from artcafe.errors import Invalid
from artcafe.rules import webhook_targets
from artcafe.rules.webhook_targets import Address, Network

TIMEOUT_S: Final = 10.0
"""Longest time from the connection to the head of the answer."""
RESOLVERS: Final = 16
"""Threads for names. The system bounds a lookup (some 30 s), and the sender waits for it, so that no tenant can begin many."""

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]


class WebhookAnswer(NamedTuple):
    """What became of an attempt: `problem` is None after a success. `is_gone`: the receiver wants no further ones (410).
    `retry_after`: when it wants the next attempt, as it wrote it (RFC 9110, section 10.2.3)."""

    problem: str | None = None
    is_gone: bool = False
    retry_after: str = ""


class WebhookSender:
    """Sends webhooks, each over a connection of its own."""

    def __init__(
        self,
        networks: Sequence[Network],
        resolve: Resolve | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`networks` are those that the operator allows besides public addresses. `tls` verifies certificates; None uses the
        system's authorities."""
        self.networks, self._timeout_s, self._given_tls = tuple(networks), timeout_s, tls
        self._resolve = resolve or self._look_up

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> WebhookAnswer:
        """Send one webhook. Never raises for a fault of the other side."""
        try:
            target = webhook_targets.parse(url, self.networks)
            addresses = await self._resolve(target.host, target.port)
        except Invalid as exc:
            return WebhookAnswer(exc.problem)
        except OSError as exc:
            return WebhookAnswer(f"the name cannot be resolved: {exc.strerror or exc}")
        if problem := webhook_targets.refused(target, addresses, self.networks):
            return WebhookAnswer(problem)
        try:
            async with asyncio.timeout(self._timeout_s):
                return _judged(*await self._post(url, target.host, addresses[0], headers, body))
        except TimeoutError:
            return WebhookAnswer(f"no answer within {self._timeout_s:g} s")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as exc:
            return WebhookAnswer(f"{type(exc).__name__}: {exc}"[:200])

    async def _post(self, url: str, host: str, address: Address, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        """Send the request to this address, whatever the name resolves to by now, and return the answer's status and its
        `Retry-After`."""
        given = httpx2.URL(url)
        pinned = given.copy_with(host=str(address))
        sent = {**headers, "host": given.netloc.decode("ascii"), "content-type": "application/json", "user-agent": "artcafe"}
        # No proxy or credentials of the environment; and the certificate must be the host's, not the address's.
        async with httpx2.AsyncClient(verify=self._tls, trust_env=False, timeout=self._timeout_s) as client:
            extensions = {"sni_hostname": host}
            async with client.stream("POST", pinned, content=body, headers=sent, extensions=extensions) as answer:
                return answer.status_code, answer.headers.get("retry-after", "")

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return self._given_tls or ssl.create_default_context()  # Made at the first webhook: it takes 20 ms and a megabyte.

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        """Threads of its own: a slow name server must not hold up other lookups of this process."""
        return ThreadPoolExecutor(RESOLVERS, "webhook-names")

    async def _look_up(self, host: str, port: int) -> Sequence[Address]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        return [ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found]


def _judged(status: int, retry_after: str) -> WebhookAnswer:
    if httpx2.codes.is_success(status):
        return WebhookAnswer()
    if httpx2.codes.is_redirect(status):
        return WebhookAnswer(f"status {status}: redirects are not followed")
    return WebhookAnswer(f"status {status}", is_gone=status == httpx2.codes.GONE, retry_after=retry_after)
