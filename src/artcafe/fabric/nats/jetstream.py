"""JetStream's API over a connection: streams, single messages from a stream's leader, and bulk reads by direct get.

The streams themselves are configured in `tenant_log`, `audit_log`, `storage_probe` and `snapshots`.
"""

from __future__ import annotations

import asyncio
import secrets
from base64 import b64decode
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import msgspec

from artcafe.errors import LogRefused, NatsConnectionLost, NoResponder, QuotaFull
from artcafe.fabric.nats.client import IncomingMessage, OutgoingMessage
from artcafe.fabric.nats.connection import REPLY_TIMEOUT_S, NatsConnection, unreachable
from artcafe.model import Seq
from artcafe.observe.logs import ThrottledEvent
from artcafe.rules.subjects import Subject

STREAM_NOT_FOUND: Final = 10059
NAME_IN_USE: Final = 10058
STORE_NOT_CREATED: Final = 10049
STORE_TRIES: Final = 20
"""With `LAG_PAUSE_S` between them, one second."""
NO_MESSAGE: Final = 10037
STORE_FAILED: Final = 10077
"""`stream store failed`. Among its causes is "maximum bytes exceeded" of a stream with `discard: new`."""
NOT_READY: Final = frozenset({10004, 10005, 10007, 10008, 10009, 10035, 10039})
"""Codes of a cluster without a leader (incomplete, not assigned, not available, not the leader), with too few servers (no peers),
or with a node that has not yet received an account registered at another (account not found, JetStream not enabled for account).
"""
QUOTA_CODES: Final = frozenset({10002, 10047, 10122})
"""Account or storage limits exceeded (nats-server, server/errors.json). Nothing was stored."""

TRY_S: Final = 1.0
"""Timeout of one attempt of a repeatable request. The next attempt may reach a new leader."""
LAG_TRIES: Final = 40
LAG_PAUSE_S: Final = 0.05
"""A direct get may reach a follower that has not yet received its leader's newest messages, and is repeated for 2 s."""

IsValid = Callable[[dict[str, Any]], bool]


LEASE_NS: Final = 3_000_000_000
"""A replica that received a heartbeat within this time elects no other leader: heartbeats come every second, and elections begin
4 s after the last one (nats-server 2.15, `server/raft.go`)."""


class StreamMessage(NamedTuple):
    """A message of a stream: its sequence, subject and data."""

    seq: Seq
    subject: Subject
    data: bytes


class JetStream:
    """The streams of the account of `connection`.

    Every method raises `Unavailable`, and `LogRefused` or `QuotaFull` when NATS refuses a request, which then changed nothing.
    """

    def __init__(self, connection: NatsConnection) -> None:
        self._connection = connection
        self._not_ready = ThrottledEvent("jetstream.not_ready")

    async def request(self, verb: str, body: dict[str, Any], *, timeout_s: float = REPLY_TIMEOUT_S) -> dict[str, Any]:
        """Send a request to `$JS.API.{verb}` and return its answer. Retry while a cluster is not ready."""
        return await self._request(verb, body, timeout_s)

    async def _read(self, verb: str, body: dict[str, Any], is_valid: IsValid = lambda _: True) -> dict[str, Any]:
        """Send a read-only request. Retry also without an answer, and until an answer is valid.

        A node that has not yet noticed the loss of the leader does not answer.
        """
        return await self._request(verb, body, REPLY_TIMEOUT_S, is_valid, may_repeat=True)

    async def _request(
        self, verb: str, body: dict[str, Any], timeout_s: float, is_valid: IsValid = lambda _: True, *, may_repeat: bool = False
    ) -> dict[str, Any]:
        request = Subject(f"$JS.API.{verb}"), msgspec.json.encode(body)
        reason: str | None = None
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
                    reason = answer.get("error", {}).get("description")
                    await asyncio.sleep(LAG_PAUSE_S)
        except (TimeoutError, NoResponder, NatsConnectionLost) as exc:
            if reason is not None:
                self._not_ready.warn(connection=self._connection.name, request=verb, reason=reason)
            raise unreachable() from exc

    async def info(self, stream: str) -> dict[str, Any] | None:
        """Return a stream's configuration and state as its leader has them, or None if there is no such stream."""
        try:
            return await self._read(f"STREAM.INFO.{stream}", {}, is_from_leader)
        except LogRefused as exc:
            if exc.error_code == STREAM_NOT_FOUND:
                return None
            raise

    async def create(self, config: dict[str, Any]) -> None:
        """Create a stream, unless one of its name exists. May be repeated, also concurrently.

        nats-server may refuse it while it still removes the files of a deleted stream of this name, so it is tried again.
        """
        for tries_left in reversed(range(STORE_TRIES)):
            try:
                await self._request(f"STREAM.CREATE.{config['name']}", config, REPLY_TIMEOUT_S, may_repeat=True)
            except LogRefused as exc:
                if exc.error_code == NAME_IN_USE:
                    return
                if exc.error_code != STORE_NOT_CREATED or not tries_left:
                    raise
                await asyncio.sleep(LAG_PAUSE_S)
            else:
                return

    async def raise_replicas(self, stream: str, replicas: int) -> None:
        """Raise the number of a stream's replicas, never lower it. Ignore a missing stream. May be repeated."""
        await self._connection.wait_up()
        info = await self.info(stream)
        if info is not None and info["config"]["num_replicas"] < replicas:
            await self.request(f"STREAM.UPDATE.{stream}", info["config"] | {"num_replicas": replicas})

    async def get_from_leader(self, stream: str, query: dict[str, Any]) -> StreamMessage | None:
        """Return the requested message from the stream's leader, or None if the message or the stream does not exist.

        A direct get does not ask the leader: a lagging follower reports a message that it has not received yet as missing.
        """
        try:
            message = (await self._read(f"STREAM.MSG.GET.{stream}", query))["message"]
        except LogRefused as exc:
            if exc.error_code in (NO_MESSAGE, STREAM_NOT_FOUND):
                return None
            raise
        return StreamMessage(int(message["seq"]), Subject(message["subject"]), b64decode(message.get("data", "")))

    async def read_after(
        self, stream: str, subject: Subject, seq: Seq, *, most: int, most_bytes: int, is_replicated: bool
    ) -> list[StreamMessage]:
        """Return the next messages of a subject above `seq`, oldest first. An empty list means that the leader has none.

        `is_replicated`: the stream has several replicas. A direct get from a lagging replica ends early, so an empty answer is
        checked with the leader, which returns a single message; reading then continues however far the replica lags.
        """
        query = {"seq": seq + 1, "next_by_subj": subject}
        some = await self.get_direct(stream, {**query, "batch": most, "max_bytes": most_bytes})
        if some or not is_replicated:
            if subject.endswith(("*", ">")):
                return [stream_message(each) for each in some]
            return [StreamMessage(seq_of(each), subject, each.data) for each in some]  # without decoding 256 equal headers
        one = await self.get_from_leader(stream, query)
        return [] if one is None else [one]

    async def count_from(self, stream: str, subject: Subject, seq: Seq) -> tuple[Seq, int] | None:
        """Return the first sequence of a subject at or above `seq`, and the number of its messages from there; None without one.

        Any replica answers, also a lagging one.
        """
        some = await self.get_direct(stream, {"seq": seq, "next_by_subj": subject, "batch": 1})
        return (seq_of(some[0]), some[0].number(b"Nats-Num-Pending") + 1) if some else None

    async def read_newest(self, stream: str, subject: Subject, below: Seq | None, *, is_replicated: bool) -> StreamMessage | None:
        """Return the newest message of a subject below a sequence, or the newest of all if `below` is None; None if none exists.

        A direct get up to a sequence that a replica has not reached finds nothing. So a message found is exact, and only an empty
        answer is checked with the leader.
        """
        newest = {"last_by_subj": subject}
        if below is None and is_replicated:
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
        """Return the newest sequence of each subject with messages, and the last sequence of the replica that answered.

        At most 1,000 subjects. The last sequence is 0 if no subject has messages, since such an answer does not carry it.
        """
        some, end = await self._direct(stream, {"multi_last": subjects, **bounds})
        newest = {each.subject: each.seq for each in map(stream_message, some)}
        return newest, end.number(b"Nats-UpTo-Sequence") if end is not None else 0

    async def get_direct(self, stream: str, query: dict[str, Any]) -> list[IncomingMessage]:
        """Return messages by a direct get, which any replica answers, also a lagging one. Empty if the stream does not exist."""
        return (await self._direct(stream, query))[0]

    async def _direct(self, stream: str, query: dict[str, Any]) -> tuple[list[IncomingMessage], IncomingMessage | None]:
        """Return the messages of a direct get and the message that ends them, which is None if the stream does not exist."""
        request = Subject(f"$JS.API.DIRECT.GET.{stream}"), msgspec.json.encode(query)
        for _ in range(LAG_TRIES):
            try:
                some, end = await self._connection.request_many(*request)
            except NoResponder:
                # A missing stream and a starting one both have no responder. The leader knows which it is.
                if await self.info(stream) is None:
                    return [], None
                await asyncio.sleep(LAG_PAUSE_S)
                continue
            except (TimeoutError, NatsConnectionLost) as exc:
                raise unreachable() from exc
            if end.status not in (204, 404):
                raise LogRefused(end.status, end.description)
            return some, end
        raise unreachable()


def as_batch(messages: Iterable[tuple[Subject, str, bytes]]) -> list[OutgoingMessage]:
    """Return messages (subject, headers and body) as one atomic batch: send them in one write, the last as a request. NATS stores
    all or none of them."""
    batch = f"Nats-Batch-Id: {secrets.token_hex(8)}\r\nNats-Batch-Sequence: "
    found = [
        OutgoingMessage(subject, f"{headers}{batch}{position}\r\n", body)
        for position, (subject, headers, body) in enumerate(messages, 1)
    ]
    found[-1] = msgspec.structs.replace(found[-1], headers=f"{found[-1].headers}Nats-Batch-Commit: 1\r\n")
    return found


def is_settled(answer: dict[str, Any]) -> bool:
    """Return whether a cluster answered, False while it is not ready. Raise as `check_answer` otherwise."""
    try:
        check_answer(answer)
    except NoResponder:
        return False
    return True


def check_answer(answer: dict[str, Any]) -> None:
    """Raise the error in an answer of JetStream's: `QuotaFull` for a full store, `NoResponder` for a cluster that is not ready,
    `LogRefused` for anything else. The request changed nothing."""
    error = answer.get("error")
    if error is None:
        return
    code, description = error.get("err_code", 0), error.get("description", "")
    if code in NOT_READY:
        raise NoResponder
    if code in QUOTA_CODES or (code == STORE_FAILED and "maximum" in description):
        raise QuotaFull()
    raise LogRefused(code, description)


def is_from_leader(info: dict[str, Any]) -> bool:
    """Return whether a stream's info was given by its leader.

    Without a leader any node answers; for 10 s after its start, so does the node that led when the stream was created, from a
    replica that may lag (nats-server 2.15, `jsStreamInfoRequest`). The answering node omits itself from `replicas`.
    """
    cluster = info.get("cluster")
    if cluster is None:
        return True
    leader = cluster.get("leader")
    return bool(leader) and leader not in {copy["name"] for copy in cluster.get("replicas") or ()}


def has_quorum(info: dict[str, Any]) -> bool:
    """Return whether a majority of replicas followed the leader a moment ago. Otherwise another leader may have been elected."""
    others = (info.get("cluster") or {}).get("replicas") or []
    followers: int = sum(0 < copy["active"] < LEASE_NS and not copy.get("offline") for copy in others)
    return followers + 1 > (len(others) + 1) // 2


def stream_message(message: IncomingMessage) -> StreamMessage:
    """Parse a message of a direct get."""
    return StreamMessage(seq_of(message), Subject(message.header(b"Nats-Subject")), message.data)


def seq_of(message: IncomingMessage) -> Seq:
    """Return the sequence of a message of a direct get or of a live subject."""
    return message.number(b"Nats-Sequence")
