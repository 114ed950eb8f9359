"""The requests of others that wait for the agent's `reply`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from artcafe.sdk.requests import Request


class WaitingRequests:
    """The handler of an agent's requests (`Agent.on_request`): each one waits until it is answered, cancelled or timed out."""

    def __init__(self) -> None:
        self._requests: dict[str, Request] = {}
        self._unseen: set[str] = set()
        self.on_arrival: Callable[[Request], None] = lambda _: None
        """Called with each request that arrives."""
        self.wakers: set[Callable[[], None]] = set()
        """Called after each arrival."""

    async def wait(self, request: Request) -> None:
        """Keep a request until its task is cancelled, as by `Agent.answer`, and when its answer is not needed any more."""
        self._requests[request.request_id] = request
        self._unseen.add(request.request_id)
        self.on_arrival(request)
        for wake in self.wakers:
            wake()
        try:
            await asyncio.Event().wait()
        finally:
            del self._requests[request.request_id]
            self._unseen.discard(request.request_id)

    @property
    def has_unseen(self) -> bool:
        """Whether a request waits that `seen` has not returned."""
        return bool(self._unseen)

    def seen(self) -> list[Request]:
        """Return all requests that wait, and count them as seen."""
        self._unseen.clear()
        return list(self._requests.values())

    def waiting(self) -> list[Request]:
        """Return all requests that wait."""
        return list(self._requests.values())
