"""Where the audit is kept: one stream of the platform's own account, a subject a chain, from which NATS removes nothing (design,
decision 12). What an entry says is not known here.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from artcafe.errors import LogRefused, NatsConnectionLost, NoResponder
from artcafe.fabric.nats.client import OutgoingMessage
from artcafe.fabric.nats.connection import NatsConnection, unreachable
from artcafe.fabric.nats.jetstream import JetStream, check_answer
from artcafe.model import Seq
from artcafe.rules import times
from artcafe.rules.subjects import AUDIT, Subject

STREAM: Final = "audit"
WRONG_LAST: Final = 10071
"""NATS's code where the subject's last sequence is another than was expected: somebody else has appended."""
TRIES: Final = 20
"""Of one append that meets others'; each try means that another server's went through, or that an answer was lost."""
MOST_BYTES: Final = 1 << 20


class StoredEntry(NamedTuple):
    """A text as it is kept, and its place, which rises in its chain and skips numbers."""

    seq: Seq
    text: bytes


Compose = Callable[[bytes | None], bytes]
"""Makes the next text of a chain from its last one, None where it is the first."""


class AuditLog:
    """The chains of all tenants, and the platform's. Every method raises `Unavailable`."""

    def __init__(self, connection: NatsConnection, *, replicas: int = 1) -> None:
        """`connection` is into the platform's account; `replicas` is how many copies there are where it is made now."""
        self._connection, self.replicas = connection, replicas
        self._jetstream = JetStream(connection)

    async def append(self, chain: Subject, compose: Compose) -> bytes:
        """Puts the next text behind the chain's last one, and nothing between the two, whichever servers append at once.

        Returns the text, which is on disk then. `compose` may be called again when another text came first; no two texts that
        it makes, here or on another server, may be equal.
        """
        await self._connection.wait_up()
        last = await self._last(chain)
        if last is None:
            await self._make()
        for _ in range(TRIES):
            text = compose(None if last is None else last.text)
            is_put = await self._put(chain, text, 0 if last is None else last.seq)
            if is_put:
                return text
            last = await self._last(chain)
            if is_put is None and last is not None and last.text == text:  # it was ours, and its answer was lost
                return text
        raise unreachable()

    async def after(self, chain: Subject, seq: Seq, most: int) -> list[StoredEntry]:
        """Return the next texts of a chain above a place, oldest first; none only if the leader has none either."""
        found = await self._jetstream.read_after(
            STREAM, chain, seq, most=most, most_bytes=MOST_BYTES, is_replicated=self.replicas > 1
        )
        return [StoredEntry(each.seq, each.data) for each in found]

    async def before(self, chain: Subject, seq: Seq | None, most: int) -> list[StoredEntry]:
        """The texts of a chain below a place, newest first; None: the newest."""
        found: list[StoredEntry] = []
        while len(found) < most and seq != 1:
            got = await self._jetstream.read_newest(STREAM, chain, seq, is_replicated=self.replicas > 1)
            if got is None:
                break
            seq = got.seq
            found.append(StoredEntry(seq, got.data))
        return found

    async def since(self, chain: Subject, time: datetime) -> Seq | None:
        """Return the place of the chain's first text that was stored at this time or later; None where there is none."""
        found = await self._jetstream.get_from_leader(STREAM, {"start_time": times.to_text(time), "next_by_subj": chain})
        return None if found is None else found.seq

    async def _last(self, chain: Subject) -> StoredEntry | None:
        """The chain's last text, as the leader has it, which knows of every append that was answered."""
        found = await self._jetstream.get_from_leader(STREAM, {"last_by_subj": chain})
        return None if found is None else StoredEntry(found.seq, found.data)

    async def _put(self, chain: Subject, text: bytes, last: Seq) -> bool | None:
        """Says whether it was put there, None where the answer was lost."""
        head = f"Nats-Expected-Last-Subject-Sequence: {last}\r\n"
        try:
            answer = msgspec.json.decode((await self._connection.request_last([OutgoingMessage(chain, head, text)])).data)
            check_answer(answer)
        except (TimeoutError, NatsConnectionLost):
            await self._connection.wait_up()
            return None
        except NoResponder as exc:
            raise unreachable() from exc
        except LogRefused as exc:
            if exc.error_code != WRONG_LAST:
                raise
            return False
        return True

    async def _make(self) -> None:
        """Makes the stream. May be repeated, and raced."""
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
        """Has the stream kept as often as it now should be, never less often; nothing where there is none. May be repeated."""
        await self._jetstream.raise_replicas(STREAM, self.replicas)
