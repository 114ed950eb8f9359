"""Pulls for `inbox_pull`: a request ends the call at once, and the pull goes on in the agent's background."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Final

from artcafe.sdk.agent import Agent
from artcafe.sdk.commands import CLOSED
from artcafe.sdk.messages import Gap
from artcafe.sdk.outcome import Outcome
from artcafe.sdk.pull import Pulled
from artcafe.tools.waiting_requests import WaitingRequests

log = logging.getLogger("artcafe")

NOTHING: Final = Pulled((), (), has_more=False, epoch=None)
"""The answer of a call that was ended by a request."""


class _Pull:
    """One pull, which waits for messages. `wake`: of the call that waits for it; None while none does."""

    def __init__(self, channel: str | None, limit: int, wait_s: float) -> None:
        self.channel, self.limit, self.wait_s = channel, limit, wait_s
        self.outcome = Outcome()
        self.pulled: Pulled | None = None
        self.is_done = False
        self.wake: asyncio.Event | None = None


class BackgroundPulls:
    """The waiting pulls of an agent's tools."""

    def __init__(self, agent: Agent, requests: WaitingRequests) -> None:
        self._agent, self._requests = agent, requests
        self._left: list[_Pull] = []
        """Those whose call was ended by a request."""
        self._gaps: list[Gap] = []

    async def pull(self, channel: str | None, limit: int, wait_s: float) -> Pulled:
        """Return the answer of a pull, or `NOTHING` as soon as a request arrives.

        The pull is not cancelled then: it may just have taken messages of a queue, which nobody would get before their deadline.
        The next call with the same channel and limit waits for it. If there is none until its end, its messages of queues are
        given back; the others were not acknowledged, and come again. Raises as `Agent.pull` does.
        """
        pull = (self._continued(channel, limit) or self._begun(channel, limit, wait_s)) if wait_s else None
        if pull is None:
            return await self._agent.pull(channel=channel, limit=limit, wait_s=wait_s)
        wake = pull.wake = asyncio.Event()
        is_returned = False
        self._requests.wakers.add(wake.set)
        try:
            while not (pull.is_done or self._requests.has_unseen):
                wake.clear()
                await wake.wait()
            is_returned = pull.is_done
        finally:
            self._requests.wakers.discard(wake.set)
            pull.wake = None
            if not is_returned:
                self._leave(pull)
        return self._answer(pull) if is_returned else NOTHING

    @property
    def has_gaps(self) -> bool:
        """Whether a pull had gaps when no call waited for it."""
        return bool(self._gaps)

    def take_gaps(self) -> list[Gap]:
        """Return those gaps, once: the SDK has acknowledged them."""
        taken, self._gaps = self._gaps, []
        return taken

    def _continued(self, channel: str | None, limit: int) -> _Pull | None:
        for pull in self._left:
            if (pull.channel, pull.limit) == (channel, limit):
                self._left.remove(pull)
                return pull
        return None

    def _begun(self, channel: str | None, limit: int, wait_s: float) -> _Pull | None:
        """Begin a pull. None: the agent is not connected, so that no request can arrive."""
        pull = _Pull(channel, limit, wait_s)
        return pull if self._agent._run_beside(partial(self._run, pull)) else None

    @staticmethod
    def _answer(pull: _Pull) -> Pulled:
        if pull.outcome.error is not None:
            raise pull.outcome.error
        if pull.pulled is None:
            raise RuntimeError(CLOSED)
        return pull.pulled

    def _leave(self, pull: _Pull) -> None:
        """Let a pull go on without a call."""
        if not pull.is_done:
            self._left.append(pull)
        elif pull.pulled is not None:  # The call was cancelled just after the answer.
            self._agent._run_beside(partial(self._give_back, pull.pulled))

    async def _run(self, pull: _Pull) -> None:
        try:
            with pull.outcome:
                pull.pulled = await self._agent.pull(channel=pull.channel, limit=pull.limit, wait_s=pull.wait_s)
        finally:
            pull.is_done = True
            if pull in self._left:
                self._left.remove(pull)
            if pull.wake is not None:
                pull.wake.set()
        if pull.wake is None and pull.pulled is not None:
            await self._give_back(pull.pulled)

    async def _give_back(self, pulled: Pulled) -> None:
        """Give the messages of queues back, and keep the gaps for the next call."""
        self._gaps += pulled.gaps
        for message in pulled:
            if message.receipt is None:
                continue
            outcome = Outcome()
            with outcome:
                await message.nak(0)
            if outcome.error is not None:
                log.debug("%r is held until its deadline: %s", message, outcome.error)
