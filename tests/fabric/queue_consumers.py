"""Consumers of queue channel A, in states that only a fault brings about."""

from __future__ import annotations

import msgspec

from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.tenant_log import STREAM
from artcafe.rules import subjects
from artcafe.rules.subjects import Subject
from tests.fabric.nats_env import A


async def put_ahead(connection: NatsConnection, delivered: int) -> None:
    """Create the consumer as NATS leaves it when the log loses messages: it has delivered more than the log has."""
    name = subjects.queue_consumer(A)
    ahead = {"durable_name": name, "filter_subject": subjects.stored(A), "ack_policy": "explicit"}
    start = {"deliver_policy": "by_start_sequence", "opt_start_seq": delivered + 1}
    body = msgspec.json.encode({"stream_name": STREAM, "config": {**ahead, **start}})
    await connection.request(Subject(f"$JS.API.CONSUMER.CREATE.{STREAM}.{name}.{subjects.stored(A)}"), body)
