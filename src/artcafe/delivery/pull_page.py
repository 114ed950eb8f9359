"""One page of an agent's messages for a pull: those above its cursors, fairly over the channels, and the gaps before them.

Nothing is kept between two pages: any server reads the next one, from the cursors. A page of 200 messages of one channel takes
three requests to NATS: the log's state, the newest sequence of each channel, and the messages.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Final, NamedTuple

from artcafe.delivery.expiry import is_expired, runs
from artcafe.fabric.log_state import LogState
from artcafe.fabric.tenant_log import StoredMessage, TenantLog
from artcafe.model import ChannelId, Cursor, Epoch, Seq
from artcafe.observe.clock import Clock
from artcafe.rules import start_position, subjects
from artcafe.wire.envelopes import EXPIRING
from artcafe.wire.replies import Gap

PAGE_BYTES: Final = 512 * 1024
"""Size limit of a page's envelopes, except for a page of one larger message."""
EXPIRED_PAGE: Final = 200
MAX_EXPIRED_PAGES: Final = 20
"""The messages of a further page after one of expired messages only, and the most such pages of one pull: 4,000 messages, each
page three requests to NATS. An agent gets past more of them by acks of their gaps."""

RemovedToEach = Callable[[Sequence[ChannelId]], Awaitable[list[Cursor]]]
"""Read the cursor of the last removed message of each channel. It is valid for every earlier read of the log."""


class ChannelGap(NamedTuple):
    """Messages of a channel not received by the agent. Those above `after` follow; an ack of it acknowledges the gap."""

    channel_id: ChannelId
    gap: Gap
    after: Seq


class LogPage(NamedTuple):
    """Messages in the order of delivery, the gaps before them, and whether more messages follow."""

    messages: Sequence[tuple[ChannelId, StoredMessage]]
    gaps: Sequence[ChannelGap]
    has_more: bool
    epoch: Epoch | None
    """The epoch of the sequences; None if nothing was stored yet."""

    @property
    def ends_wait(self) -> bool:
        """Whether a waiting pull answers with it at once.

        A gap alone waits: it is in every answer until its ack, so that an agent with nothing to acknowledge would poll in a loop.
        """
        return bool(self.messages) or (bool(self.gaps) and self.has_more)


NO_PAGE: Final = LogPage((), (), has_more=False, epoch=None)


@dataclass(slots=True)
class _ChannelPosition:
    """The position of a page in one channel, and the messages found above it."""

    channel_id: ChannelId
    seq: Seq
    """Messages above it are due."""
    newest: Seq
    """The channel's newest known message; 0 if it has none."""
    gap: Gap | None
    found: list[StoredMessage] = field(default_factory=list)
    is_whole: bool = False
    """Whether nothing is missing between `seq` and `found`: the message at `seq` is stored, and the oldest are removed first."""

    @property
    def read_to(self) -> Seq:
        return self.found[-1].seq if self.found else self.seq

    @property
    def is_behind(self) -> bool:
        return self.newest > self.read_to


async def read_page(
    log: TenantLog,
    cursors: Mapping[ChannelId, Cursor],
    limit: int,
    removed_to: RemovedToEach,
    seen: Mapping[ChannelId, Seq],
) -> LogPage:
    """Return at most `limit` messages above the cursors: one of each channel in turn, beginning with any of them.

    The first channel is drawn, so that a small limit starves none. `seen` has the newest messages known to this server: a
    replica of the log may lack them. Raises `Unavailable`.
    """
    state = await state_for(log, cursors.values())
    if state is None or not cursors:
        return NO_PAGE
    positions = await _begin(log, state, cursors, removed_to)
    for position in positions:
        position.newest = max(position.newest, seen.get(position.channel_id, 0))
    first = random.randrange(len(positions))  # noqa: S311 (for fairness; nothing depends on a secret)
    positions = positions[first:] + positions[:first]
    due = [position for position in positions if position.is_behind][:limit]
    await _read_first(log, due, limit)
    await _find_gaps(log, state, [*due, *(position for position in positions if not position.newest)], removed_to)
    await _read_rest(log, due, limit)
    messages = _interleave(due, limit)
    shown = {channel_id: message.seq for channel_id, message in messages}
    has_more = any(position.newest > shown.get(position.channel_id, position.seq) for position in positions)
    gaps = [ChannelGap(position.channel_id, position.gap, position.seq) for position in positions if position.gap is not None]
    return LogPage(messages, gaps, has_more, state.epoch)


async def read_unexpired(
    log: TenantLog,
    cursors: Mapping[ChannelId, Cursor],
    limit: int,
    removed_to: RemovedToEach,
    seen: Mapping[ChannelId, Seq],
    clock: Clock,
) -> LogPage:
    """Return a page as `read_page` does, with gaps in place of expired messages, which do not count towards the limit.

    A page without messages whose `has_more` is set has the gaps of `MAX_EXPIRED_PAGES`. Raises `Unavailable`.
    """
    page = _without_expired(await read_page(log, cursors, limit, removed_to, seen), clock)
    for _ in range(MAX_EXPIRED_PAGES):
        if page.messages or not page.gaps or not page.has_more:
            return page
        cursors = {**cursors, **{gap.channel_id: Cursor(epoch=page.epoch, seq=gap.after) for gap in page.gaps}}
        later = await read_page(log, cursors, max(limit, EXPIRED_PAGE), removed_to, seen)
        if later.epoch != page.epoch:  # The log was replaced meanwhile, and the gaps are of the last one.
            return page
        later = _without_expired(_cut(later, limit, clock), clock)
        page = later._replace(gaps=[*page.gaps, *later.gaps])
    return page


def _without_expired(page: LogPage, clock: Clock) -> LogPage:
    """Return a page with gaps in place of its expired messages."""
    if not any(message.envelope.startswith(EXPIRING) for _, message in page.messages):
        return page
    gaps, expired = list(page.gaps), set[Seq]()
    for channel_id in dict.fromkeys(channel_id for channel_id, _ in page.messages):
        for gap, run in runs([message for channel, message in page.messages if channel == channel_id], clock):
            if gap is not None:
                gaps.append(ChannelGap(channel_id, gap, run[-1].seq))
                expired.update(message.seq for message in run)
    return page._replace(messages=[each for each in page.messages if each[1].seq not in expired], gaps=gaps)


def _cut(page: LogPage, limit: int, clock: Clock) -> LogPage:
    """Return a page up to its `limit`-th message that has not expired."""
    now, left = clock(), limit
    for end, (_, message) in enumerate(page.messages, 1):
        left -= not is_expired(message.envelope, now)
        if not left:
            return page._replace(messages=page.messages[:end], has_more=page.has_more or end < len(page.messages))
    return page


async def state_for(log: TenantLog, cursors: Collection[Cursor]) -> LogState | None:
    """Return the log's state, with a new epoch if the log has lost acknowledged messages."""
    state = await log.state()
    for cursor in cursors:
        if state is not None and cursor.epoch == state.epoch and cursor.seq > state.last_seq:
            state = await log.state_for(cursor)
    return state


async def _begin(
    log: TenantLog, state: LogState, cursors: Mapping[ChannelId, Cursor], removed_to: RemovedToEach
) -> list[_ChannelPosition]:
    """Return the position of each cursor in the current log, with the gap of a cursor of another log."""
    newest = await newest_seqs(log, state, list(cursors))
    lineage = state.lineage
    others = [channel_id for channel_id, cursor in cursors.items() if lineage.last_shared_seq(cursor.epoch) is not None]
    removed = dict(zip(others, await removed_to(others), strict=True)) if others else {}
    positions = []
    for channel_id, cursor in cursors.items():
        seq, gap = cursor.seq, None
        if channel_id in removed:
            seq, gap = start_position.resolve("cursor", cursor, lineage, state.last_seq, removed[channel_id])
        positions.append(_ChannelPosition(channel_id, seq, newest.get(channel_id, 0), gap))
    return positions


async def newest_seqs(log: TenantLog, state: LogState, channels: list[ChannelId]) -> dict[ChannelId, Seq]:
    """Return the newest sequence of each channel with messages, as the log's leader has it."""
    found, end = await log.last_seqs_and_end(channels)
    if end >= state.last_seq or log.replicas == 1 or not state.messages:
        return {channel_id: seq for channel_id in channels if (seq := found.get(subjects.stored(channel_id)))}
    # The answer came from a lagging replica, or it is empty, and then it does not say how far the replica is.
    return {channel_id: await log.last_seq_of(channel_id) for channel_id in channels}


async def _read_first(log: TenantLog, due: Sequence[_ChannelPosition], limit: int) -> None:
    """Read each channel's share of the page, from the message at its cursor on: if that exists, nothing after it was removed."""
    if not due:
        return
    share, count, size = max(1, limit // len(due)), 0, 0
    for position in due:
        found = await log.after(position.channel_id, max(0, position.seq - 1), most=share + 1)
        position.is_whole = bool(found) and found[0].seq == position.seq
        position.found = [one for one in found if one.seq > position.seq][:share]
        if not position.found:  # the answer came from a replica that lags
            position.found = await log.after(position.channel_id, position.seq, most=share)
            position.is_whole = False
        count += len(position.found)
        size += sum(len(one.envelope) for one in position.found)
        if count >= limit or size > PAGE_BYTES:
            return


async def _read_rest(log: TenantLog, due: Sequence[_ChannelPosition], limit: int) -> None:
    """Fill the page from the channels with more than their share."""
    while True:
        left = limit - sum(len(position.found) for position in due)
        behind = [position for position in due if position.found and position.is_behind]
        if left <= 0 or not behind:
            return
        share = max(1, left // len(behind))
        for position in behind[:left]:
            if sum(len(one.envelope) for each in due for one in each.found) > PAGE_BYTES:
                return
            found = await log.after(position.channel_id, position.read_to, most=share)
            position.found += found
            if not found:
                position.newest = position.read_to  # retention has removed the rest since


async def _find_gaps(log: TenantLog, state: LogState, positions: Sequence[_ChannelPosition], removed_to: RemovedToEach) -> None:
    """Find messages removed by retention above the positions, and the predecessors of the first messages.

    Called after the messages are read: retention records a removal before it removes anything.
    """
    unsure = [position for position in positions if not position.is_whole and (position.found or not position.newest)]
    if not unsure:
        return
    if state.is_complete:  # no message had been removed; and since then?
        now = await log.state()
        is_complete = now is not None and now.epoch == state.epoch and now.is_complete
    else:
        is_complete = False
    removed = [Cursor()] * len(unsure) if is_complete else await removed_to([position.channel_id for position in unsure])
    for position, cursor in zip(unsure, removed, strict=True):
        to = state.lineage.to_seq(cursor)
        if to > position.seq:
            position.gap = position.gap or Gap(position.seq + 1, to, start_position.RETENTION)
            position.found = [one for one in position.found if one.seq > to]
            position.seq, before = to, 0
        elif position.found:
            before = await log.last_seq_of(position.channel_id, up_to=position.seq)
        if position.found:
            position.found[0] = position.found[0]._replace(prev=before or None)


def _interleave(due: Sequence[_ChannelPosition], limit: int) -> list[tuple[ChannelId, StoredMessage]]:
    """Return one message of each channel in turn, up to the limits of a page."""
    taken: list[tuple[ChannelId, StoredMessage]] = []
    size = 0
    for turn in zip_longest(*(position.found for position in due)):
        for position, message in zip(due, turn, strict=True):
            if message is None:
                continue
            size += len(message.envelope)
            if taken and (len(taken) == limit or size > PAGE_BYTES):
                return taken
            taken.append((position.channel_id, message))
    return taken
