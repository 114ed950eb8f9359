"""A JSON response whose content takes minutes: white space, which JSON allows before a value, keeps the connection in use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from artcafe.errors import ArtcafeError

KEEP_ALIVE_S: Final = 5.0
"""Between two bytes. Clients and proxies commonly wait 30 to 60 s for the next one."""


class SlowJsonResponse(Response):
    """Sends the JSON that `work` returns.

    An error of `work` is answered like any other if it is raised within `KEEP_ALIVE_S`. Later the response is cut off, which
    clients report as a lost connection.
    """

    def __init__(self, work: Callable[[], Awaitable[bytes]], keep_alive_s: float = KEEP_ALIVE_S) -> None:
        super().__init__(media_type="application/json")
        del self.headers["content-length"]
        self._work, self._keep_alive_s = work, keep_alive_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        async with asyncio.TaskGroup() as group:
            working = group.create_task(self._outcome())
            is_started = False
            while not (await asyncio.wait([working], timeout=self._keep_alive_s))[0]:
                if not is_started:
                    await send(start)
                    is_started = True
                await send({"type": "http.response.body", "body": b"\n", "more_body": True})
        outcome = working.result()
        if isinstance(outcome, ArtcafeError):
            raise outcome
        if not is_started:
            await send(start)
        await send({"type": "http.response.body", "body": outcome, "more_body": False})

    async def _outcome(self) -> bytes | ArtcafeError:
        try:
            return await self._work()
        except ArtcafeError as exc:  # a group would wrap it
            return exc
