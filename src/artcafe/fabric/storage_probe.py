"""A storage check of NATS. It stores a message, since an answer alone proves neither the disk nor the quorum."""

from __future__ import annotations

from typing import Final

import msgspec

from artcafe.errors import NoResponder
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.nats.jetstream import JetStream, check_answer
from artcafe.rules.subjects import HEALTH

STREAM: Final = "health"


class StorageProbe:
    """A check by storing a message in a stream of the platform's account, which keeps the newest and is shared by all servers.

    The stream has as many replicas as the logs, so the check succeeds exactly when a publish would: flushed, and by a majority.
    After a full disk, a stream refuses every message until nats-server restarts, even with free space.
    """

    def __init__(self, connection: NatsConnection, *, replicas: int = 1) -> None:
        """`connection` is in the platform's account. `replicas` applies if the stream is created now."""
        self._connection, self.replicas = connection, replicas
        self._jetstream = JetStream(connection)

    async def store(self, timeout_s: float) -> None:
        """Store a message. Raise `TimeoutError` without a confirmation in time, or an `OurFault`."""
        await self._connection.wait_up(timeout_s / 2)
        try:
            await self._put(timeout_s)
        except NoResponder:
            await self._jetstream.create(self._config())
            await self._put(timeout_s)

    async def raise_replicas(self) -> None:
        """Raise the stream's number of replicas. May be repeated. Raise `Unavailable`."""
        await self._jetstream.raise_replicas(STREAM, self.replicas)

    async def _put(self, timeout_s: float) -> None:
        check_answer(msgspec.json.decode((await self._connection.request(HEALTH, b"", timeout_s=timeout_s)).data))

    def _config(self) -> dict[str, object]:
        return {
            "name": STREAM,
            "subjects": [HEALTH],
            "storage": "file",
            "retention": "limits",
            "discard": "old",
            "max_msgs": 1,
            "num_replicas": self.replicas,
        }
