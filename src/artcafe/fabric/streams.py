"""One tenant's log: its JetStream stream, made at the first stored message, and what can be read of it without a consumer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from ulid import ULID

from artcafe.errors import LogRefused
from artcafe.fabric.client import Incoming
from artcafe.fabric.jetstream import LAG_PAUSE_S, LAG_TRIES, NAME_IN_USE, STREAM_NOT_FOUND, JetStream, seq_of
from artcafe.fabric.link import Link, unreachable
from artcafe.model import ChannelId, Epoch, Seq
from artcafe.rules import subjects, times
from artcafe.rules.starts import Life
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


class Stored(NamedTuple):
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

    @property
    def life(self) -> Life:
        return Life(self.epoch, self.continues)

    @property
    def is_complete(self) -> bool:
        """Whether nothing was ever removed."""
        return self.messages == self.last_seq


Quota = Callable[[], Awaitable[int]]
"""How many bytes a log may take on disk, read when it matters."""


class TenantLog:
    """The stream of the account that `link` is connected to."""

    def __init__(self, link: Link, *, replicas: int = 1, quota: Quota | None = None) -> None:
        """`quota`: without one there is no bound."""
        self.link = link
        self._jetstream = JetStream(link)
        self.replicas, self._quota = replicas, quota
        self._making = asyncio.Lock()
        """Held while the stream's configuration is made or changed: NATS takes it whole, so two changes at once lose one."""
        self.epoch: Epoch | None = None
        """The log's epoch as far as it is known here; None before the first look and where there is no log yet."""

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
            try:
                return self._noted(await self._jetstream.ask(f"STREAM.CREATE.{STREAM}", config))
            except LogRefused as exc:
                if exc.error_code != NAME_IN_USE:  # another server made it between our look and our try
                    raise
            state = await self.state()
            if state is None:
                raise unreachable()
            return state

    async def begin_epoch(self) -> LogState:
        """Gives the log another epoch, because it was found to hold less than had been acknowledged. Raises `Unavailable`."""
        async with self._making:
            config = (await self._jetstream.ask(f"STREAM.INFO.{STREAM}", {}))["config"]
            # Since when it has held less is not known, so it continues no other: what was lost may have been written over.
            config["metadata"] = {**config.get("metadata", {}), EPOCH: new_epoch(), CONTINUES: ""}
            return self._noted(await self._jetstream.ask(f"STREAM.UPDATE.{STREAM}", config))

    async def limit(self, max_bytes: int) -> None:
        """Bounds what the log may take on disk, and has it kept as often as it now should be, where that is otherwise; drops
        nothing. Raises `Unavailable`."""
        async with self._making:
            config = (await self._jetstream.ask(f"STREAM.INFO.{STREAM}", {}))["config"]
            # Never fewer copies: whoever believes the cluster to be smaller may be wrong.
            wanted = {"max_bytes": bound(max_bytes), "num_replicas": max(self.replicas, config["num_replicas"])}
            if config != config | wanted:
                await self._jetstream.ask(f"STREAM.UPDATE.{STREAM}", config | wanted)

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
            await self._jetstream.ask(verb, body)
        except LogRefused as exc:
            if exc.error_code != STREAM_NOT_FOUND:
                raise

    async def read(self, seq: Seq) -> bytes | None:
        """The envelope at a sequence, or None when it has been removed, as the leader has it. Raises `Unavailable`."""
        found = await self._jetstream.at_leader(STREAM, {"seq": seq})
        return None if found is None else found.data

    async def last_of(self, channel: ChannelId, *, up_to: Seq | None = None) -> Seq:
        """The sequence of a channel's newest message, at or below `up_to`; 0 when there is none. Raises `Unavailable`.

        Without `up_to` that is at or above whatever was acknowledged before. With it a follower that has not come so far says 0.
        """
        if up_to is None and self.replicas > 1:
            return await self._seq_at_leader({"last_by_subj": subjects.stored(channel)})
        found = await self.last_of_each([channel], up_to=up_to)
        return found.get(subjects.stored(channel), 0)

    async def _seq_at_leader(self, wanted: dict[str, Any]) -> Seq:
        """The sequence of the message that is wanted, 0 where there is none, as the leader has it. Raises `Unavailable`."""
        found = await self._jetstream.at_leader(STREAM, wanted)
        return 0 if found is None else found.seq

    async def last_of_each(
        self, channels: list[ChannelId], *, up_to: Seq | None = None, until: datetime | None = None
    ) -> dict[Subject, Seq]:
        """The newest sequence (at or below `up_to`, or stored before `until`) of each channel that has one, by its subject.

        At most 1,000 channels. Raises `Unavailable`.
        """
        wanted: dict[str, Any] = {"multi_last": [subjects.stored(channel) for channel in channels]}
        if up_to is not None:
            wanted["up_to_seq"] = up_to
        if until is not None:
            wanted["up_to_time"] = times.to_text(until)
        got = await self._jetstream.at_hand(STREAM, wanted) if up_to != 0 else []
        return {Subject(each.header(b"Nats-Subject")): seq_of(each) for each in got}

    async def after(self, channel: ChannelId, seq: Seq, *, most: int = BATCH_MESSAGES) -> list[Stored]:
        """The next messages of a channel above `seq`, oldest first: at most `most` and about a megabyte; none means level.

        The first one's `prev` is `seq` as given (None for 0), the caller's to know better. Raises `Unavailable`.
        """
        wanted = {"seq": seq + 1, "batch": most, "max_bytes": BATCH_BYTES, "next_by_subj": subjects.stored(channel)}
        found: list[Stored] = []
        prev = seq
        for each in await self._jetstream.at_hand(STREAM, wanted):
            at = seq_of(each)
            found.append(Stored(at, prev or None, each.data))
            prev = at
        return found

    async def level_after(self, channel: ChannelId, seq: Seq, *, most: int) -> list[Stored]:
        """As `after`, where none means that there was nothing more, on whichever copy, when this was asked."""
        for _ in range(LAG_TRIES):
            if (found := await self.after(channel, seq, most=most)) or self.replicas == 1 or await self.last_of(channel) <= seq:
                return found
            await asyncio.sleep(LAG_PAUSE_S)
        raise unreachable()

    async def all_after(self, seq: Seq, *, most: int = BATCH_MESSAGES) -> list[tuple[Seq, Subject, bytes]]:
        """The next messages of all channels above `seq`, in order, each with its subject; as `after` otherwise."""
        wanted = {"seq": seq + 1, "batch": most, "max_bytes": BATCH_BYTES, "next_by_subj": subjects.STORED}
        got = await self._jetstream.at_hand(STREAM, wanted)
        return [(seq_of(each), Subject(each.header(b"Nats-Subject")), each.data) for each in got]

    async def behind(self, channel: ChannelId, anchor: Seq, seq: Seq) -> tuple[list[Stored], bool]:
        """The next messages of a channel above `seq`, and whether nothing is missing between the two.

        That is known where the message at `anchor`, the newest up to `seq`, is still there: the oldest are removed first. The
        first message's `prev` is the anchor, None where that is not there. As `after` otherwise. Raises `Unavailable`.
        """
        for _ in range(LAG_TRIES):
            found = await self.after(channel, anchor - 1 if anchor else seq)
            if anchor and found and found[0].seq == anchor:
                return found[1:], True
            if not anchor or await self.read(anchor) is None:
                rest = [one for one in found if one.seq > seq]
                return [one._replace(prev=None) for one in rest[:1]] + rest[1:], False
            await asyncio.sleep(LAG_PAUSE_S)
        raise unreachable()

    async def before(self, channel: ChannelId, seq: Seq | None, *, most: int, most_bytes: int = BATCH_BYTES) -> list[Stored]:
        """The messages of a channel below `seq`, newest first; None: the newest. At most `most`, and once they have more than
        `most_bytes` no further ones. Raises `Unavailable`.

        NATS reads forward only, so each message is a request of its own: some 0.2 ms.
        """
        found: list[Stored] = []
        if seq is not None:
            state = await self.state()
            seq = seq if state is not None and seq <= state.last_seq else None  # NATS finds nothing up to what is not there yet
        if seq is None and self.replicas > 1:
            seq = await self.last_of(channel) + 1
        size = 0
        while len(found) < most and size <= most_bytes and seq != 1:
            got = await self._newest_below(channel, seq)
            if got is None:
                break
            seq = seq_of(got)
            found.append(Stored(seq, None, got.data))
            size += len(got.data)
        return found

    async def _newest_below(self, channel: ChannelId, seq: Seq | None) -> Incoming | None:
        """The channel's newest message below `seq`, or of all; None where there is none. Raises `Unavailable`."""
        wanted: dict[str, Any] = {"multi_last": [subjects.stored(channel)]}
        if seq is not None:
            wanted["up_to_seq"] = seq - 1
        for _ in range(LAG_TRIES):
            if got := await self._jetstream.at_hand(STREAM, wanted):
                return got[0]
            first = {"seq": 1, "next_by_subj": subjects.stored(channel)}
            if self.replicas == 1 or seq is None or not 0 < await self._seq_at_leader(first) < seq:
                return None
            await asyncio.sleep(LAG_PAUSE_S)
        raise unreachable()

    async def since(self, channel: ChannelId, time: datetime) -> Seq | None:
        """The sequence of a channel's first message stored at `time` or later; None when there is none. Raises `Unavailable`."""
        wanted = {"start_time": times.to_text(time), "batch": 1, "next_by_subj": subjects.stored(channel)}
        got = await self._jetstream.at_hand(STREAM, wanted)
        return seq_of(got[0]) if got else None

    def _noted(self, info: dict[str, Any]) -> LogState:
        metadata = info["config"].get("metadata", {})
        self.epoch = Epoch(metadata.get(EPOCH, ""))
        state, continues = info["state"], continues_of(metadata.get(CONTINUES, ""))
        return LogState(self.epoch, state["first_seq"], state["last_seq"], state["messages"], continues)


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
