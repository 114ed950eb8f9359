"""Storage of the audit: one stream of the platform's account with a subject for each chain, from which NATS removes nothing
(design, decision 12)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from artcafe.errors import LogRefused, NatsConnectionLost, NoResponder
from artcafe.fabric.nats.client import OutgoingMessage
from artcafe.fabric.nats.connection import NatsConnection, unreachable
from artcafe.fabric.nats.jetstream import LAG_PAUSE_S, JetStream, check_answer
from artcafe.model import Seq
from artcafe.rules import times
from artcafe.rules.subjects import AUDIT, Subject

STREAM: Final = "audit"
WRONG_LAST: Final = 10071
"""NATS's error code when the subject's last sequence differs from the expected one: another server has appended."""
TRIES: Final = 20
"""Attempts of one append. A failed attempt means a successful append by another server, a lost answer, or a node that knows no
leader of the stream: for one second then (`LAG_PAUSE_S`)."""
MOST_BYTES: Final = 1 << 20


class StoredEntry(NamedTuple):
    """An entry's text and its sequence, which rises within its chain and may skip numbers."""

    seq: Seq
    text: bytes


Compose = Callable[[bytes | None], bytes]
"""A callback that returns the next text of a chain, from its last one, or None for the first."""


class AuditLog:
    """The audit chains of all tenants and of the platform. Every method raises `Unavailable`."""

    def __init__(self, connection: NatsConnection, *, replicas: int = 1) -> None:
        """`connection` is in the platform's account. `replicas` applies if the stream is created now."""
        self._connection, self.replicas = connection, replicas
        self._jetstream = JetStream(connection)

    async def append(self, chain: Subject, compose: Compose) -> bytes:
        """Append the next text directly after the chain's last one, also while other servers append. Return the text, flushed to
        disk.

        `compose` is called again after another text was appended first. It must never return the same text twice, on any server.
        """
        await self._connection.wait_up()
        last = await self._last(chain)
        if last is None:
            await self._create()
        for _ in range(TRIES):
            text = compose(None if last is None else last.text)
            is_put = await self._put(chain, text, 0 if last is None else last.seq)
            if is_put:
                return text
            last = await self._last(chain)
            if is_put is None and last is not None and last.text == text:  # this append succeeded, and its answer was lost
                return text
        raise unreachable()

    async def after(self, chain: Subject, seq: Seq, most: int) -> list[StoredEntry]:
        """Return the next texts of a chain above a sequence, oldest first. An empty list means that the leader has none."""
        found = await self._jetstream.read_after(
            STREAM, chain, seq, most=most, most_bytes=MOST_BYTES, is_replicated=self.replicas > 1
        )
        return [StoredEntry(each.seq, each.data) for each in found]

    async def before(self, chain: Subject, seq: Seq | None, most: int) -> list[StoredEntry]:
        """Return the texts of a chain below a sequence (None: the newest), newest first."""
        found: list[StoredEntry] = []
        while len(found) < most and seq != 1:
            got = await self._jetstream.read_newest(STREAM, chain, seq, is_replicated=self.replicas > 1)
            if got is None:
                break
            seq = got.seq
            found.append(StoredEntry(seq, got.data))
        return found

    async def since(self, chain: Subject, time: datetime) -> Seq | None:
        """Return the sequence of the chain's first text stored at this time or later, or None."""
        found = await self._jetstream.get_from_leader(STREAM, {"start_time": times.to_text(time), "next_by_subj": chain})
        return None if found is None else found.seq

    async def _last(self, chain: Subject) -> StoredEntry | None:
        """Return the chain's last text from the leader, which has every acknowledged append."""
        found = await self._jetstream.get_from_leader(STREAM, {"last_by_subj": chain})
        return None if found is None else StoredEntry(found.seq, found.data)

    async def _put(self, chain: Subject, text: bytes, last: Seq) -> bool | None:
        """Return whether the text was stored, or None if nothing answered."""
        head = f"Nats-Expected-Last-Subject-Sequence: {last}\r\n"
        try:
            answer = msgspec.json.decode((await self._connection.request_last([OutgoingMessage(chain, head, text)])).data)
            check_answer(answer)
        except (TimeoutError, NatsConnectionLost):
            await self._connection.wait_up()
            return None
        except NoResponder:  # of this node: it hears of a new stream, and of a new leader, later than others
            await asyncio.sleep(LAG_PAUSE_S)
            return None
        except LogRefused as exc:
            if exc.error_code != WRONG_LAST:
                raise
            return False
        return True

    async def _create(self) -> None:
        """Create the stream. May be repeated, also concurrently."""
        config = {
            "name": STREAM,
            "subjects": [AUDIT],
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "num_replicas": self.replicas,
            "allow_direct": True,
            "deny_delete": True,
            "deny_purge": True,
        }
        await self._jetstream.create(config)

    async def raise_replicas(self) -> None:
        """Raise the stream's number of replicas, never lower it. Ignore a missing stream. May be repeated."""
        await self._jetstream.raise_replicas(STREAM, self.replicas)
