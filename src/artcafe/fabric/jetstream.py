"""JetStream, asked over a link: its API, one message as its leader has it, many by direct gets; its refusals as our errors.

Which streams there are, and what stands in them, is `streams`', `audit_log`'s and `snapshots`'.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from typing import Any, Final, NamedTuple

import msgspec

from artcafe.errors import LinkLost, LogRefused, NoResponder, QuotaFull
from artcafe.fabric.client import Incoming
from artcafe.fabric.link import REPLY_TIMEOUT_S, Link, unreachable
from artcafe.model import Seq
from artcafe.rules.subjects import Subject

STREAM_NOT_FOUND: Final = 10059
NAME_IN_USE: Final = 10058
NO_MESSAGE: Final = 10037
STORE_FAILED: Final = 10077
"""`stream store failed`: among others "maximum bytes exceeded" of a stream with `discard: new`."""
UNSETTLED: Final = frozenset({10004, 10005, 10007, 10008, 10009, 10039})
"""A cluster without a leader (incomplete, not assigned, not available, not the leader), too few servers (no peers), or
one that has not heard yet of an account that another admitted (JetStream not enabled for account)."""
QUOTA_CODES: Final = frozenset({10002, 10047, 10122})
"""Account or storage limits exceeded (nats-server, server/errors.json): nothing was stored."""

LAG_TRIES: Final = 40
LAG_PAUSE_S: Final = 0.05
"""A direct get may be answered by a follower that lags behind what its leader has shown, and a request by a cluster that has no
leader now, or has not heard everywhere of a new account: asked again for 2 s."""


class Found(NamedTuple):
    """A message and where it stands in its stream."""

    seq: Seq
    data: bytes


class JetStream:
    """The streams of the account that `link` is connected to.

    Every method raises `Unavailable`, and `LogRefused` or `QuotaFull` for what NATS refuses: nothing was changed then.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    async def ask(self, verb: str, body: dict[str, Any], *, timeout_s: float = REPLY_TIMEOUT_S) -> dict[str, Any]:
        """What is answered to `$JS.API.{verb}`. A cluster that can't yet is asked again."""
        request = Subject(f"$JS.API.{verb}"), msgspec.json.encode(body)
        for _ in range(LAG_TRIES):
            try:
                got = await self._link.request(*request, timeout_s=timeout_s)
            except (TimeoutError, NoResponder, LinkLost) as exc:
                raise unreachable() from exc
            answer: dict[str, Any] = msgspec.json.decode(got.data)
            try:
                refusal(answer)
            except NoResponder:
                await asyncio.sleep(LAG_PAUSE_S)
            else:
                return answer
        raise unreachable()

    async def info(self, stream: str) -> dict[str, Any] | None:
        """A stream's configuration and state; None where there is none."""
        try:
            return await self.ask(f"STREAM.INFO.{stream}", {})
        except LogRefused as exc:
            if exc.error_code == STREAM_NOT_FOUND:
                return None
            raise

    async def make(self, config: dict[str, Any]) -> None:
        """Make a stream. May be repeated, and raced: one that is there stays as it is."""
        try:
            await self.ask(f"STREAM.CREATE.{config['name']}", config)
        except LogRefused as exc:
            if exc.error_code != NAME_IN_USE:
                raise

    async def raise_copies(self, stream: str, replicas: int) -> None:
        """Keep a stream as often as it now should be, never less often; nothing where there is none. May be repeated."""
        await self._link.wait_up()
        info = await self.info(stream)
        if info is not None and info["config"]["num_replicas"] < replicas:
            await self.ask(f"STREAM.UPDATE.{stream}", info["config"] | {"num_replicas": replicas})

    async def at_leader(self, stream: str, wanted: dict[str, Any]) -> Found | None:
        """The message that is wanted, None where there is none, or no such stream, as the leader knows.

        A direct get does not ask the leader: a follower that lags would call removed what it has not got yet.
        """
        try:
            message = (await self.ask(f"STREAM.MSG.GET.{stream}", wanted))["message"]
        except LogRefused as exc:
            if exc.error_code in (NO_MESSAGE, STREAM_NOT_FOUND):
                return None
            raise
        return Found(int(message["seq"]), b64decode(message.get("data", "")))

    async def at_hand(self, stream: str, wanted: dict[str, Any]) -> list[Incoming]:
        """The messages that are wanted, by a direct get: of whichever copy is near. None where there is no such stream."""
        try:
            found, end = await self._link.request_many(Subject(f"$JS.API.DIRECT.GET.{stream}"), msgspec.json.encode(wanted))
        except NoResponder:
            # Nobody serves direct gets of a stream that was never made; the leader tells that apart from one that is starting.
            if await self.info(stream) is None:
                return []
            raise unreachable() from None
        except (TimeoutError, LinkLost) as exc:
            raise unreachable() from exc
        if end.status not in (204, 404):
            raise LogRefused(end.status, end.description)
        return found


def refusal(answer: dict[str, Any]) -> None:
    """Raises what an answer of JetStream's refuses: `QuotaFull` for a full store, `NoResponder` where a cluster can't yet, else
    `LogRefused`. Nothing was changed."""
    error = answer.get("error")
    if error is None:
        return
    code, description = error.get("err_code", 0), error.get("description", "")
    if code in UNSETTLED:
        raise NoResponder
    if code in QUOTA_CODES or (code == STORE_FAILED and "maximum" in description):
        raise QuotaFull()
    raise LogRefused(code, description)


def seq_of(message: Incoming) -> Seq:
    """Where the message of a direct get, or of a live subject, is stored."""
    return message.number(b"Nats-Sequence")
