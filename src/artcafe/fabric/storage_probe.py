"""Whether NATS stores anything now. It is tried with an empty message: an answer alone says nothing of its disk or its quorum."""

from __future__ import annotations

from typing import Final

import msgspec

from artcafe.errors import NoResponder
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.nats.jetstream import JetStream, check_answer
from artcafe.rules.subjects import HEALTH

STREAM: Final = "health"


class StorageProbe:
    """Stores messages in a stream of the platform's account, which keeps the newest and is shared by all servers.

    It has as many copies as the logs, so a message is stored exactly when a publish would be: flushed, and by a majority. A
    stream that met a full disk refuses everything until its nats-server starts anew, also when there is room again.
    """

    def __init__(self, connection: NatsConnection, *, replicas: int = 1) -> None:
        """`connection` is into the platform's account; `replicas` is how many copies there are where the stream is made now."""
        self._connection, self.replicas = connection, replicas
        self._jetstream = JetStream(connection)

    async def store(self, timeout_s: float) -> None:
        """Store a message. Raises `TimeoutError` when NATS does not confirm it within the time, and any of our faults."""
        await self._connection.wait_up(timeout_s / 2)
        try:
            await self._put(timeout_s)
        except NoResponder:
            await self._jetstream.create(self._config())
            await self._put(timeout_s)

    async def raise_replicas(self) -> None:
        """Keep the stream as often as it now should be. May be repeated. Raises `Unavailable`."""
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
