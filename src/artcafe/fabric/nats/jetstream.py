"""JetStream, asked over a connection: its API, one message as its leader has it, many by direct gets; its refusals as our errors.

Which streams there are, and what stands in them, is `streams`', `audit_log`'s and `snapshots`'.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from artcafe.errors import LogRefused, NatsConnectionLost, NoResponder, QuotaFull
from artcafe.fabric.nats.client import IncomingMessage
from artcafe.fabric.nats.connection import REPLY_TIMEOUT_S, NatsConnection, unreachable
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

TRY_S: Final = 1.0
"""How long one try of a request that may be repeated waits: then it is asked again, since there may be a leader by now."""
LAG_TRIES: Final = 40
LAG_PAUSE_S: Final = 0.05
"""A direct get may be answered by a follower that lags behind what its leader has shown: asked again for 2 s."""

IsValid = Callable[[dict[str, Any]], bool]


LEASE_NS: Final = 3_000_000_000
"""A copy that heard from its leader within this time elects no other: heartbeats come every second, and elections begin after 4 s
without one (nats-server 2.15, `server/raft.go`)."""


class StreamMessage(NamedTuple):
    """A message, its sequence and its subject."""

    seq: Seq
    subject: Subject
    data: bytes


class JetStream:
    """The streams of the account that `connection` is connected to.

    Every method raises `Unavailable`, and `LogRefused` or `QuotaFull` for what NATS refuses: nothing was changed then.
    """

    def __init__(self, connection: NatsConnection) -> None:
        self._connection = connection

    async def ask(self, verb: str, body: dict[str, Any], *, timeout_s: float = REPLY_TIMEOUT_S) -> dict[str, Any]:
        """Return the answer to `$JS.API.{verb}`. While a cluster cannot answer, it is asked again."""
        return await self._ask(verb, body, timeout_s)

    async def _read(self, verb: str, body: dict[str, Any], is_valid: IsValid = lambda _: True) -> dict[str, Any]:
        """As `ask`, of what changes nothing: it is asked again also where no answer came, and until an answer is valid.

        A member that does not know yet that the leader has gone answers nothing.
        """
        return await self._ask(verb, body, REPLY_TIMEOUT_S, is_valid, may_repeat=True)

    async def _ask(
        self, verb: str, body: dict[str, Any], timeout_s: float, is_valid: IsValid = lambda _: True, *, may_repeat: bool = False
    ) -> dict[str, Any]:
        request = Subject(f"$JS.API.{verb}"), msgspec.json.encode(body)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        got = await self._connection.request(*request, timeout_s=TRY_S if may_repeat else timeout_s)
                    except TimeoutError:
                        if not may_repeat:
                            raise
                        continue
                    answer: dict[str, Any] = msgspec.json.decode(got.data)
                    if is_settled(answer) and is_valid(answer):
                        return answer
                    await asyncio.sleep(LAG_PAUSE_S)
        except (TimeoutError, NoResponder, NatsConnectionLost) as exc:
            raise unreachable() from exc

    async def info(self, stream: str) -> dict[str, Any] | None:
        """Return a stream's configuration and state as its leader has them, or None if there is no such stream."""
        try:
            return await self._read(f"STREAM.INFO.{stream}", {}, is_from_leader)
        except LogRefused as exc:
            if exc.error_code == STREAM_NOT_FOUND:
                return None
            raise

    async def make(self, config: dict[str, Any]) -> None:
        """Make a stream. May be repeated, and raced: one that is there stays as it is."""
        try:
            await self._ask(f"STREAM.CREATE.{config['name']}", config, REPLY_TIMEOUT_S, may_repeat=True)
        except LogRefused as exc:
            if exc.error_code != NAME_IN_USE:
                raise

    async def raise_replicas(self, stream: str, replicas: int) -> None:
        """Keep a stream as often as it now should be, never less often; nothing where there is none. May be repeated."""
        await self._connection.wait_up()
        info = await self.info(stream)
        if info is not None and info["config"]["num_replicas"] < replicas:
            await self.ask(f"STREAM.UPDATE.{stream}", info["config"] | {"num_replicas": replicas})

    async def get_from_leader(self, stream: str, wanted: dict[str, Any]) -> StreamMessage | None:
        """The message that is wanted, None where there is none, or no such stream, as the leader knows.

        A direct get does not ask the leader: a follower that lags would call removed what it has not got yet.
        """
        try:
            message = (await self._read(f"STREAM.MSG.GET.{stream}", wanted))["message"]
        except LogRefused as exc:
            if exc.error_code in (NO_MESSAGE, STREAM_NOT_FOUND):
                return None
            raise
        return StreamMessage(int(message["seq"]), Subject(message["subject"]), b64decode(message.get("data", "")))

    async def read_after(
        self, stream: str, subject: Subject, seq: Seq, *, most: int, most_bytes: int, is_copied: bool
    ) -> list[StreamMessage]:
        """Return the next messages of a subject above `seq`, oldest first; none only if the leader has none either.

        A direct get of a copy that lags ends early. `is_copied`: the stream has other copies, so the leader is asked where one
        copy has nothing; its answer is a single message, with which reading goes on however far that copy lags.
        """
        wanted = {"seq": seq + 1, "next_by_subj": subject}
        some = await self.get_direct(stream, {**wanted, "batch": most, "max_bytes": most_bytes})
        if some or not is_copied:
            return [stream_message(each) for each in some]
        one = await self.get_from_leader(stream, wanted)
        return [] if one is None else [one]

    async def read_newest(self, stream: str, subject: Subject, below: Seq | None, *, is_copied: bool) -> StreamMessage | None:
        """Return the newest message of a subject below a sequence, or of all if `below` is None; None if there is none.

        A direct get finds nothing up to a sequence that a copy has not reached, so a find is exact, and only "nothing" is
        checked against the leader.
        """
        newest = {"last_by_subj": subject}
        if below is None and is_copied:
            return await self.get_from_leader(stream, newest)
        bound = {} if below is None else {"up_to_seq": below - 1}
        for _ in range(LAG_TRIES):
            if some := await self.get_direct(stream, {"multi_last": [subject], **bound}):
                return stream_message(some[0])
            last = None if below is None else await self.get_from_leader(stream, newest)
            if last is None or below is None or last.seq < below:
                return last
            first = await self.get_from_leader(stream, {"seq": 1, "next_by_subj": subject})
            if first is None or first.seq >= below:
                return None
            await asyncio.sleep(LAG_PAUSE_S)
        raise unreachable()

    async def newest_seqs(self, stream: str, subjects: list[Subject], **bounds: Any) -> tuple[dict[Subject, Seq], Seq]:
        """Return the newest sequence of each subject that has one, and how far the copy that answered had come.

        At most 1,000 subjects. The second is 0 where no subject has a message, since such an answer does not carry it.
        """
        some, end = await self._direct(stream, {"multi_last": subjects, **bounds})
        newest = {each.subject: each.seq for each in map(stream_message, some)}
        return newest, end.number(b"Nats-UpTo-Sequence") if end is not None else 0

    async def get_direct(self, stream: str, wanted: dict[str, Any]) -> list[IncomingMessage]:
        """Return the wanted messages by a direct get, which any copy answers, also one that lags; none if there is no stream."""
        return (await self._direct(stream, wanted))[0]

    async def _direct(self, stream: str, wanted: dict[str, Any]) -> tuple[list[IncomingMessage], IncomingMessage | None]:
        """Return the messages of a direct get, and the answer that ended them, None if there is no such stream."""
        try:
            some, end = await self._connection.request_many(Subject(f"$JS.API.DIRECT.GET.{stream}"), msgspec.json.encode(wanted))
        except NoResponder:
            # Nobody serves direct gets of a stream that was never made; the leader tells that apart from one that is starting.
            if await self.info(stream) is None:
                return [], None
            raise unreachable() from None
        except (TimeoutError, NatsConnectionLost) as exc:
            raise unreachable() from exc
        if end.status not in (204, 404):
            raise LogRefused(end.status, end.description)
        return some, end


def is_settled(answer: dict[str, Any]) -> bool:
    """Return whether a cluster answered, False where it cannot yet. Raises as `refusal` otherwise."""
    try:
        check_answer(answer)
    except NoResponder:
        return False
    return True


def check_answer(answer: dict[str, Any]) -> None:
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


def is_from_leader(info: dict[str, Any]) -> bool:
    """Return whether a stream's information was given by its leader.

    While there is no leader any member answers, and for 10 s after its start the member that led when the stream was made, with a
    copy that may lag (nats-server 2.15, `jsStreamInfoRequest`). Who answers leaves itself out of the `replicas` that it lists.
    """
    cluster = info.get("cluster")
    if cluster is None:
        return True
    leader = cluster.get("leader")
    return bool(leader) and leader not in {copy["name"] for copy in cluster.get("replicas") or ()}


def has_quorum(info: dict[str, Any]) -> bool:
    """Return whether a majority of the copies followed the leader a moment ago: without it, another may have been elected."""
    others = (info.get("cluster") or {}).get("replicas") or []
    followers: int = sum(0 < copy["active"] < LEASE_NS and not copy.get("offline") for copy in others)
    return followers + 1 > (len(others) + 1) // 2


def stream_message(message: IncomingMessage) -> StreamMessage:
    """The message of a direct get."""
    return StreamMessage(seq_of(message), Subject(message.header(b"Nats-Subject")), message.data)


def seq_of(message: IncomingMessage) -> Seq:
    """Where the message of a direct get, or of a live subject, is stored."""
    return message.number(b"Nats-Sequence")
