"""A tenant's log: its JetStream stream, created at the first stored message, and reads from it without a consumer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from ulid import ULID

from artcafe.errors import LogRefused
from artcafe.fabric.log_state import LogState
from artcafe.fabric.nats.client import IncomingMessage
from artcafe.fabric.nats.connection import NatsConnection, unreachable
from artcafe.fabric.nats.jetstream import STREAM_NOT_FOUND, JetStream, StreamMessage, has_quorum, seq_of
from artcafe.model import ChannelId, Cursor, Epoch, Seq
from artcafe.rules import subjects, times
from artcafe.rules.plans import UNLIMITED
from artcafe.rules.subjects import Subject

STREAM: Final = "log"
"""The name is the same in every account, since an account is a tenant (design, decision 1)."""

DEDUPE_WINDOW_S: Final = 600
"""How long NATS remembers a key (contract, sentence 3)."""

BATCH_MESSAGES: Final = 256
BATCH_BYTES: Final = 1 << 20
"""The limit of one direct get: each part of a backlog must fit a socket's buffer."""

EPOCH: Final = "artcafe-epoch"
CONTINUES: Final = "artcafe-continues"
"""Metadata with the logs this one was restored from: for each its epoch, a colon, and the last shared sequence, separated by
spaces."""


class StoredMessage(NamedTuple):
    """A message of the log: its sequence, its predecessor's sequence in the channel (None: unknown, or it is the first), its
    envelope, and as what it was received, unless it was read from the log. `deliveries` is the number of this delivery of a
    queue's message to a holder, otherwise 0."""

    seq: Seq
    prev: Seq | None
    envelope: bytes
    live: IncomingMessage | None = None
    deliveries: int = 0

    def stored_at(self) -> float | None:
        """Return the time of storage in seconds since 1970, by NATS's clock; None if it was read from the log or never stored."""
        text = "" if self.live is None else self.live.header(b"Nats-Time-Stamp")
        return datetime.fromisoformat(text).timestamp() if text else None


class NewestInbox(NamedTuple):
    """The inbox with the newest message of all inboxes, and that message's sequence."""

    inbox: ChannelId
    seq: Seq


Quota = Callable[[], Awaitable[int]]
"""A callback that returns the log's size limit in bytes."""


class TenantLog:
    """The log in the account of `connection`."""

    def __init__(self, connection: NatsConnection, *, replicas: int = 1, quota: Quota | None = None) -> None:
        """Without a `quota`, the log's size is not limited."""
        self.connection = connection
        self._jetstream = JetStream(connection)
        self.replicas, self._quota = replicas, quota
        self._making = asyncio.Lock()
        """Held while the stream's configuration is created or changed. NATS replaces it as a whole, and would lose one of two
        concurrent changes."""
        self.epoch: Epoch | None = None
        """The log's last known epoch; None before the first read, and while there is no log."""
        self.max_bytes: int | None = None
        """The log's last known size limit; None while it is unknown or unlimited."""
        self.is_beginning = False
        """Whether the log did not exist when it was last read, and is being created."""
        self.has_scheduled = False
        """Whether the log may have scheduled messages, as it was last read."""
        self.is_prepared = False
        """Whether `queue_rewind.prepare_log` has prepared it for writing, on this connection if NATS is a single server."""
        connection.on_up(self._on_up)

    def _on_up(self) -> None:
        """Have the log prepared again: a single server may have been restarted on other files."""
        self.is_prepared = self.is_prepared and self.replicas > 1

    async def state(self) -> LogState | None:
        """Return the log's state, or None before its first message. Raise `Unavailable`."""
        info = await self._jetstream.info(STREAM)
        return None if info is None else self._record(info)

    async def ensure(self) -> LogState:
        """Return the log's state; create the log first if it does not exist. May be repeated, also concurrently. Raise
        `Unavailable`."""
        async with self._making:
            state = await self.state()
            if state is not None:
                return state
            config: dict[str, Any] = {
                "name": STREAM,
                "subjects": [subjects.STORED],
                "storage": "file",
                "retention": "limits",
                "discard": "new",
                "max_bytes": -1 if self._quota is None else bound(await self._quota()),
                "num_replicas": self.replicas,
                "allow_direct": True,
                "allow_atomic": True,
                "duplicate_window": DEDUPE_WINDOW_S * 10**9,
                "republish": {"src": subjects.STORED, "dest": subjects.LIVE},
                "metadata": {EPOCH: str(ULID())},
            }
            self.is_beginning = True
            await self._jetstream.create(config)
            state = await self.state()
            if state is None:
                raise unreachable()
            return state

    async def state_for(self, cursor: Cursor) -> LogState | None:
        """Return the state of a log that contains the cursor's sequence, or has another epoch than the cursor.

        A log that ends before an acknowledged sequence has lost messages. It gets a new epoch, since its sequences will be
        assigned again. A leader that was cut off reports the same, so a majority must follow it. Raise `Unavailable`.
        """
        state = await self.state()
        if state is None or cursor.epoch != state.epoch or cursor.seq <= state.last_seq:
            return state
        if not state.has_quorum:
            raise unreachable()
        return await self.begin_epoch(instead_of=state.epoch)

    async def begin_epoch(self, *, instead_of: Epoch | None = None) -> LogState:
        """Give the log a new epoch, unless its epoch already differs from `instead_of`. Raise `Unavailable`."""
        async with self._making:
            info = await self._jetstream.info(STREAM)
            if info is None:
                raise LogRefused(STREAM_NOT_FOUND, "stream not found")
            if instead_of not in (None, (state := self._record(info)).epoch):
                return state
            config = info["config"]
            # The time of the loss is unknown, so this log continues no other one: lost sequences may have been assigned again.
            config["metadata"] = {**config.get("metadata", {}), EPOCH: new_epoch(), CONTINUES: ""}
            return self._record(await self._jetstream.request(f"STREAM.UPDATE.{STREAM}", config))

    async def accept_scheduled(self) -> None:
        """Let the log store scheduled messages too; create it if necessary. May be repeated. Raise `Unavailable`."""
        await self.ensure()
        async with self._making:
            info = await self._jetstream.info(STREAM)
            if info is None:
                raise unreachable()
            config = info["config"]
            config["subjects"] = sorted({*config["subjects"], subjects.SCHEDULED})
            self._record(await self._jetstream.request(f"STREAM.UPDATE.{STREAM}", config))

    async def limit(self, max_bytes: int) -> None:
        """Set the log's size limit and its number of replicas where they differ; remove no message. Raise `Unavailable`.

        Without a log, do nothing: it gets its limit when it is created.
        """
        async with self._making:
            info = await self._jetstream.info(STREAM)
            if info is None:
                return
            config = info["config"]
            # Never fewer replicas: a server that believes the cluster to be smaller may be wrong.
            target = {"max_bytes": bound(max_bytes), "num_replicas": max(self.replicas, config["num_replicas"])}
            if config != config | target:
                await self._jetstream.request(f"STREAM.UPDATE.{STREAM}", config | target)
            self._note_limit(target)

    def _note_limit(self, config: Mapping[str, Any]) -> None:
        most = config.get("max_bytes", -1)
        self.max_bytes = most if most > 0 else None

    async def purge(self, channel: ChannelId, *, up_to: Seq | None = None) -> None:
        """Remove a channel's messages and the marks at them, up to `up_to` if given. Ignore a missing log.

        A mark is stored after its message, so none is removed before its message is.
        """
        for subject in (subjects.stored(channel), subjects.marks(channel)):
            await self.purge_subject(subject, up_to=up_to)

    async def purge_subject(self, subject: Subject, *, up_to: Seq | None = None) -> None:
        """Remove the messages of one subject, up to `up_to` if given. Ignore a missing log."""
        end = {} if up_to is None else {"seq": up_to + 1}
        await self._ignore_missing(f"STREAM.PURGE.{STREAM}", {"filter": subject, **end})

    async def drop(self) -> None:
        """Delete the log. May be repeated."""
        await self._ignore_missing(f"STREAM.DELETE.{STREAM}", {})
        self.epoch = None

    async def _ignore_missing(self, verb: str, body: dict[str, Any]) -> None:
        try:
            await self._jetstream.request(verb, body)
        except LogRefused as exc:
            if exc.error_code != STREAM_NOT_FOUND:
                raise

    async def is_removed(self, seq: Seq) -> bool:
        """Return whether the message stored at a sequence has been removed.

        Raise `Unavailable`, also if the leader's log ends before the sequence: that leader was cut off, and another one elected.
        """
        if await self.read(seq) is not None:
            return False
        state = await self.state()
        if state is None or state.last_seq < seq:
            raise unreachable()
        return True

    async def read(self, seq: Seq) -> bytes | None:
        """Return the envelope at a sequence from the leader, or None if it has been removed. Raise `Unavailable`."""
        found = await self._jetstream.get_from_leader(STREAM, {"seq": seq})
        return None if found is None else found.data

    async def last_seq_of(self, channel: ChannelId, *, up_to: Seq | None = None) -> Seq:
        """Return the sequence of a channel's newest message at or below `up_to`, or 0. Raise `Unavailable`.

        It is at or above every sequence acknowledged before, unless the leader has just been cut off.
        """
        if up_to == 0:
            return 0
        return seq_or_0(await self._newest(channel, below=None if up_to is None else up_to + 1))

    async def _newest(self, channel: ChannelId, below: Seq | None) -> StreamMessage | None:
        return await self._jetstream.read_newest(STREAM, subjects.stored(channel), below, is_replicated=self.replicas > 1)

    async def last_seqs(self, channels: list[ChannelId], *, until: datetime | None = None) -> dict[Subject, Seq]:
        """Return the newest sequence, stored before `until` if given, of each channel with messages, by its subject.

        At most 1,000 channels. Any replica answers, also a lagging one. Raise `Unavailable`.
        """
        bounds = {} if until is None else {"up_to_time": times.to_text(until)}
        return (await self._newest_of_each(channels, bounds))[0]

    async def last_seqs_and_end(self, channels: list[ChannelId]) -> tuple[dict[Subject, Seq], Seq]:
        """Return what `last_seqs` does, and the last sequence of the replica that answered; 0 if no channel has messages."""
        return await self._newest_of_each(channels, {})

    async def _newest_of_each(self, channels: list[ChannelId], bounds: dict[str, str]) -> tuple[dict[Subject, Seq], Seq]:
        return await self._jetstream.newest_seqs(STREAM, [subjects.stored(channel) for channel in channels], **bounds)

    async def newest_inbox(self) -> NewestInbox | None:
        """Return the newest message of all inboxes from the leader, or None if there is none. Raise `Unavailable`."""
        found = await self._jetstream.get_from_leader(STREAM, {"last_by_subj": subjects.INBOXES})
        return None if found is None else NewestInbox(ChannelId(subjects.channel_token(found.subject)), found.seq)

    async def oldest_in_inboxes(self, below: Seq) -> dict[ChannelId, Seq]:
        """Return the inboxes of the oldest messages below a sequence, at most `BATCH_MESSAGES`, and the newest one of each.

        The id of an inbox whose agent has a hashed token contains the hash. Raise `Unavailable`.
        """
        found = await self.following(subjects.INBOXES, 0, BATCH_MESSAGES)
        return {ChannelId(subjects.channel_token(each.subject)): each.seq for each in found if each.seq < below}

    async def after(self, channel: ChannelId, seq: Seq, *, most: int = BATCH_MESSAGES) -> list[StoredMessage]:
        """Return the next messages of a channel above `seq`, oldest first: at most `most`, and about a megabyte.

        Empty only if the leader has none. The first message's `prev` is `seq` as given (None for 0), whether or not it is a
        message of the channel. Raise `Unavailable`.
        """
        found: list[StoredMessage] = []
        prev = seq
        for each in await self.following(subjects.stored(channel), seq, most):
            found.append(StoredMessage(each.seq, prev or None, each.data))
            prev = each.seq
        return found

    async def all_after(self, seq: Seq, *, most: int = BATCH_MESSAGES) -> list[tuple[Seq, Subject, bytes]]:
        """Return the next messages of all channels above `seq`, in order, each with its subject. Limits and errors are those of
        `after`."""
        return list(await self.following(subjects.STORED, seq, most))

    async def following(self, subject: Subject, seq: Seq, most: int = BATCH_MESSAGES) -> list[StreamMessage]:
        """Return the next messages of these subjects above `seq`, as `after` does."""
        return await self._jetstream.read_after(
            STREAM, subject, seq, most=most, most_bytes=BATCH_BYTES, is_replicated=self.replicas > 1
        )

    async def after_anchor(self, channel: ChannelId, anchor: Seq, seq: Seq) -> tuple[list[StoredMessage], bool]:
        """Return the next messages of a channel above `seq`, and whether the list is complete from there.

        `anchor` is the newest message up to `seq`. The list is complete if the anchor still exists, since the oldest messages are
        removed first. The first message's `prev` is the anchor, or None if that is gone. Empty only if the leader has none.
        """
        found = await self.after(channel, anchor - 1 if anchor else seq)
        is_whole = bool(anchor and found and found[0].seq == anchor)
        rest = [one for one in found if one.seq > seq]
        if not rest and found and self.replicas > 1:  # the replica that has the anchor may lag
            rest = await self.after(channel, seq)
            is_whole = is_whole and not (rest and await self.is_removed(anchor))
        elif not rest and anchor and not is_whole:
            is_whole = not await self.is_removed(anchor)
        if rest:
            rest[0] = rest[0]._replace(prev=anchor if is_whole else None)
        return rest, is_whole

    async def before(
        self, channel: ChannelId, seq: Seq | None, *, most: int, most_bytes: int = BATCH_BYTES
    ) -> list[StoredMessage]:
        """Return the messages of a channel below `seq` (None: the newest), newest first: at most `most`, and none after
        `most_bytes` are exceeded. Raise `Unavailable`.

        NATS reads forward only, so each message is a request of its own, of some 0.2 ms.
        """
        found: list[StoredMessage] = []
        size = 0
        while len(found) < most and size <= most_bytes and (seq is None or seq > 1):
            got = await self._newest(channel, seq)
            if got is None:
                break
            seq = got.seq
            found.append(StoredMessage(seq, None, got.data))
            size += len(got.data)
        return found

    async def since(self, channel: ChannelId | None, time: datetime) -> Seq | None:
        """Return the sequence of a channel's first message stored at `time` or later, or None. Without a channel, of any one's.

        Raise `Unavailable`.
        """
        subject = subjects.STORED if channel is None else subjects.stored(channel)
        query = {"start_time": times.to_text(time), "next_by_subj": subject}
        if got := await self._jetstream.get_direct(STREAM, {**query, "batch": 1}):
            return seq_of(got[0])
        first = await self._jetstream.get_from_leader(STREAM, query) if self.replicas > 1 else None
        return None if first is None else first.seq

    async def all_since(self, time: datetime, *, most: int) -> list[tuple[Seq, Subject, bytes]]:
        """Return the first messages of all channels stored at `time` or later, at most `most`, as `all_after` does."""
        first = await self.since(None, time)
        found: list[tuple[Seq, Subject, bytes]] = []
        while first is not None and len(found) < most:
            some = await self.all_after(first - 1, most=min(BATCH_MESSAGES, most - len(found)))
            found += some
            first = some[-1][0] + 1 if some else None
        return found

    def _record(self, info: dict[str, Any]) -> LogState:
        metadata = info["config"].get("metadata", {})
        self.epoch = Epoch(metadata.get(EPOCH, ""))
        self.is_beginning = False
        self.has_scheduled = subjects.SCHEDULED in info["config"]["subjects"]
        self.replicas = max(self.replicas, info["config"].get("num_replicas", 1))
        self._note_limit(info["config"])
        state, continues = info["state"], parse_continues(metadata.get(CONTINUES, ""))
        return LogState(
            self.epoch,
            state["first_seq"],
            state["last_seq"],
            state["messages"],
            continues,
            has_quorum(info),
            state["bytes"],
            state.get("consumer_count", 0),
            times.from_text(state["first_ts"]) if state["messages"] else None,
        )


def seq_or_0(found: StreamMessage | None) -> Seq:
    """Return a message's sequence, or 0."""
    return 0 if found is None else found.seq


def new_epoch() -> str:
    """Return a new, unique epoch."""
    return str(ULID())


def bound(max_bytes: int) -> int:
    """Return a size limit in NATS's form, where 0 and -1 mean unlimited."""
    return -1 if max_bytes >= UNLIMITED else max(1, max_bytes)


def parse_continues(text: str) -> dict[Epoch, Seq]:
    """Parse the metadata about the logs this one was restored from. Skip unreadable entries."""
    pairs = (part.rpartition(":") for part in text.split())
    return {Epoch(epoch): int(seq) for epoch, _, seq in pairs if epoch and seq.isascii() and seq.isdigit()}
