"""One tenant's log: its JetStream stream, made at the first stored message, and what can be read of it without a consumer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from ulid import ULID

from artcafe.errors import LogRefused
from artcafe.fabric.nats.connection import NatsConnection, unreachable
from artcafe.fabric.nats.jetstream import STREAM_NOT_FOUND, JetStream, StreamMessage, has_quorum, seq_of
from artcafe.model import ChannelId, Cursor, Epoch, Seq
from artcafe.rules import subjects, times
from artcafe.rules.start_position import LogLineage
from artcafe.rules.subjects import Subject

STREAM: Final = "log"
"""The name is the same in every account: an account is a tenant (design, decision 1)."""

DEDUPE_WINDOW_S: Final = 600
"""How long a key is remembered (contract, sentence 3)."""

BATCH_MESSAGES: Final = 256
BATCH_BYTES: Final = 1 << 20
"""A direct get is answered with at most so much, so that a backlog is read in pieces that fit a socket's buffer."""

EPOCH: Final = "artcafe-epoch"
CONTINUES: Final = "artcafe-continues"
"""The logs that this one was restored from: each one's epoch, a colon, and up to where both are the same; a space between two."""


class StoredMessage(NamedTuple):
    """A message of the log: its sequence, the one before it in its channel (None: not known, or there is none), its envelope."""

    seq: Seq
    prev: Seq | None
    envelope: bytes


class LogState(NamedTuple):
    """A log at one moment. Sequences rise over the whole log, so `last_seq` is at or above every channel's last."""

    epoch: Epoch
    first_seq: Seq
    last_seq: Seq
    messages: int = 0
    continues: Mapping[Epoch, Seq] = {}
    is_agreed: bool = True
    """Whether a majority of the copies followed the leader that gave this; otherwise another may have been elected since."""

    @property
    def life(self) -> LogLineage:
        return LogLineage(self.epoch, self.continues)

    @property
    def is_complete(self) -> bool:
        """Whether nothing was ever removed."""
        return self.messages == self.last_seq


Quota = Callable[[], Awaitable[int]]
"""How many bytes a log may take on disk, read when it matters."""


class TenantLog:
    """The stream of the account that `connection` is connected to."""

    def __init__(self, connection: NatsConnection, *, replicas: int = 1, quota: Quota | None = None) -> None:
        """`quota`: without one there is no bound."""
        self.connection = connection
        self._jetstream = JetStream(connection)
        self.replicas, self._quota = replicas, quota
        self._making = asyncio.Lock()
        """Held while the stream's configuration is made or changed: NATS takes it whole, so two changes at once lose one."""
        self.epoch: Epoch | None = None
        """The log's epoch as far as it is known here; None before the first look and where there is no log yet."""
        self.is_beginning = False
        """Whether there was no log at the last look, and it is being made."""

    async def state(self) -> LogState | None:
        """The log as it stands, or None before its first message. Raises `Unavailable`."""
        info = await self._jetstream.info(STREAM)
        return None if info is None else self._noted(info)

    async def ensure(self) -> LogState:
        """The log as it stands, made if there is none. May be repeated, and raced. Raises `Unavailable`."""
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
        """As `state`, of a log that holds the cursor's sequence or has another epoch than it.

        A log that ends below an acknowledged sequence has lost its end and is given another epoch, since its sequences will
        come again. A leader that was cut off looks the same, so a majority must have followed it. Raises `Unavailable`.
        """
        state = await self.state()
        if state is None or cursor.epoch != state.epoch or cursor.seq <= state.last_seq:
            return state
        if not state.is_agreed:
            raise unreachable()
        return await self.begin_epoch(instead_of=state.epoch)

    async def begin_epoch(self, *, instead_of: Epoch | None = None) -> LogState:
        """Give the log another epoch, unless it has another one than `instead_of` already. Raises `Unavailable`."""
        async with self._making:
            info = await self._jetstream.info(STREAM)
            if info is None:
                raise LogRefused(STREAM_NOT_FOUND, "stream not found")
            if instead_of not in (None, (state := self._noted(info)).epoch):
                return state
            config = info["config"]
            # Since when it has held less is not known, so it continues no other: what was lost may have been written over.
            config["metadata"] = {**config.get("metadata", {}), EPOCH: new_epoch(), CONTINUES: ""}
            return self._noted(await self._jetstream.request(f"STREAM.UPDATE.{STREAM}", config))

    async def limit(self, max_bytes: int) -> None:
        """Bounds what the log may take on disk, and has it kept as often as it now should be, where that is otherwise; drops
        nothing. Raises `Unavailable`."""
        async with self._making:
            config = (await self._jetstream.request(f"STREAM.INFO.{STREAM}", {}))["config"]
            # Never fewer copies: whoever believes the cluster to be smaller may be wrong.
            wanted = {"max_bytes": bound(max_bytes), "num_replicas": max(self.replicas, config["num_replicas"])}
            if config != config | wanted:
                await self._jetstream.request(f"STREAM.UPDATE.{STREAM}", config | wanted)

    async def purge(self, channel: ChannelId, *, up_to: Seq | None = None) -> None:
        """Removes the messages of a channel, up to a sequence where one is given. A log that does not exist has none."""
        wanted: dict[str, Any] = {"filter": subjects.stored(channel)}
        if up_to is not None:
            wanted["seq"] = up_to + 1
        await self._forgiving(f"STREAM.PURGE.{STREAM}", wanted)

    async def drop(self) -> None:
        """Removes the log with everything in it. May be repeated."""
        await self._forgiving(f"STREAM.DELETE.{STREAM}", {})
        self.epoch = None

    async def _forgiving(self, verb: str, body: dict[str, Any]) -> None:
        try:
            await self._jetstream.request(verb, body)
        except LogRefused as exc:
            if exc.error_code != STREAM_NOT_FOUND:
                raise

    async def is_removed(self, seq: Seq) -> bool:
        """Return whether the message at a sequence that was stored has been removed.

        Raises `Unavailable`, also where the leader has not come so far: it was cut off, and others have elected another.
        """
        if await self.read(seq) is not None:
            return False
        state = await self.state()
        if state is None or state.last_seq < seq:
            raise unreachable()
        return True

    async def read(self, seq: Seq) -> bytes | None:
        """The envelope at a sequence, or None when it has been removed, as the leader has it. Raises `Unavailable`."""
        found = await self._jetstream.get_from_leader(STREAM, {"seq": seq})
        return None if found is None else found.data

    async def last_seq_of(self, channel: ChannelId, *, up_to: Seq | None = None) -> Seq:
        """Return the sequence of a channel's newest message, at or below `up_to`; 0 if there is none. Raises `Unavailable`.

        At or above whatever was acknowledged before, unless the leader was cut off a moment ago.
        """
        if up_to == 0:
            return 0
        return seq_or_0(await self._newest(channel, below=None if up_to is None else up_to + 1))

    async def _newest(self, channel: ChannelId, below: Seq | None) -> StreamMessage | None:
        return await self._jetstream.read_newest(STREAM, subjects.stored(channel), below, is_replicated=self.replicas > 1)

    async def last_seqs(self, channels: list[ChannelId], *, until: datetime | None = None) -> dict[Subject, Seq]:
        """Return the newest sequence (of those stored before `until`) of each channel that has one, by its subject.

        At most 1,000 channels. Any copy answers, also one that lags. Raises `Unavailable`.
        """
        bounds = {} if until is None else {"up_to_time": times.to_text(until)}
        return (await self._newest_of_each(channels, bounds))[0]

    async def look(self, channels: list[ChannelId]) -> tuple[dict[Subject, Seq], Seq]:
        """As `last_seqs`, with the last sequence of the copy that answered; 0 is not known, if no channel has a message."""
        return await self._newest_of_each(channels, {})

    async def _newest_of_each(self, channels: list[ChannelId], bounds: dict[str, str]) -> tuple[dict[Subject, Seq], Seq]:
        return await self._jetstream.newest_seqs(STREAM, [subjects.stored(channel) for channel in channels], **bounds)

    async def after(self, channel: ChannelId, seq: Seq, *, most: int = BATCH_MESSAGES) -> list[StoredMessage]:
        """Return the next messages of a channel above `seq`, oldest first: at most `most` and about a megabyte.

        None only if the leader has none either. The first one's `prev` is `seq` as given (None for 0), the caller's to know
        better. Raises `Unavailable`.
        """
        found: list[StoredMessage] = []
        prev = seq
        for each in await self._following(subjects.stored(channel), seq, most):
            found.append(StoredMessage(each.seq, prev or None, each.data))
            prev = each.seq
        return found

    async def all_after(self, seq: Seq, *, most: int = BATCH_MESSAGES) -> list[tuple[Seq, Subject, bytes]]:
        """Return the next messages of all channels above `seq`, in order, each with its subject; as `after` otherwise."""
        return list(await self._following(subjects.STORED, seq, most))

    async def _following(self, subject: Subject, seq: Seq, most: int) -> list[StreamMessage]:
        return await self._jetstream.read_after(
            STREAM, subject, seq, most=most, most_bytes=BATCH_BYTES, is_replicated=self.replicas > 1
        )

    async def behind(self, channel: ChannelId, anchor: Seq, seq: Seq) -> tuple[list[StoredMessage], bool]:
        """Return the next messages of a channel above `seq`, and whether nothing is missing between the two.

        That is known where the message at `anchor`, the newest up to `seq`, is still there: the oldest are removed first. The
        first message's `prev` is the anchor, None where that is not there. No messages: the leader has none either.
        """
        found = await self.after(channel, anchor - 1 if anchor else seq)
        is_whole = bool(anchor and found and found[0].seq == anchor)
        rest = [one for one in found if one.seq > seq]
        if not rest and found and self.replicas > 1:  # the copy that has the anchor may not have come further
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
        """Return the messages of a channel below `seq`, newest first; None: the newest. At most `most`, and once they have more
        than `most_bytes` no further ones. Raises `Unavailable`.

        NATS reads forward only, so each message is a request of its own: some 0.2 ms.
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

    async def since(self, channel: ChannelId, time: datetime) -> Seq | None:
        """Return the sequence of a channel's first message stored at `time` or later; None if there is none.

        Raises `Unavailable`.
        """
        wanted = {"start_time": times.to_text(time), "next_by_subj": subjects.stored(channel)}
        if got := await self._jetstream.get_direct(STREAM, {**wanted, "batch": 1}):
            return seq_of(got[0])
        first = await self._jetstream.get_from_leader(STREAM, wanted) if self.replicas > 1 else None
        return None if first is None else first.seq

    def _noted(self, info: dict[str, Any]) -> LogState:
        metadata = info["config"].get("metadata", {})
        self.epoch = Epoch(metadata.get(EPOCH, ""))
        self.is_beginning = False
        self.replicas = max(self.replicas, info["config"].get("num_replicas", 1))
        state, continues = info["state"], continues_of(metadata.get(CONTINUES, ""))
        return LogState(self.epoch, state["first_seq"], state["last_seq"], state["messages"], continues, has_quorum(info))


def seq_or_0(found: StreamMessage | None) -> Seq:
    """Where a message stands; 0 for none."""
    return 0 if found is None else found.seq


def new_epoch() -> str:
    """The name of a log's next life."""
    return str(ULID())


def bound(max_bytes: int) -> int:
    """The bound as NATS takes it: there 0 would mean none."""
    return max(1, max_bytes)


def continues_of(text: str) -> dict[Epoch, Seq]:
    """What the metadata say of the logs that one was restored from; what cannot be read is passed over."""
    pairs = (part.rpartition(":") for part in text.split())
    return {Epoch(epoch): int(seq) for epoch, _, seq in pairs if epoch and seq.isascii() and seq.isdigit()}
