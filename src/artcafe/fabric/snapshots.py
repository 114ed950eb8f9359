"""Snapshots of whole streams for backups, taken and restored by NATS itself: they keep sequences, times and message ids.

A snapshot contains the messages present when it began, except for some that are purged meanwhile. `cli.operate.backup` chooses
the streams and writes the file.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import msgspec
from nats.aio.msg import Msg

from artcafe.errors import LogRefused, NatsConnectionLost, NoResponder
from artcafe.fabric import counters, storage_probe
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.marks import moved_after
from artcafe.fabric.nats.account_claims import register_account
from artcafe.fabric.nats.client import OutgoingMessage
from artcafe.fabric.nats.cluster import replica_count
from artcafe.fabric.nats.connection import Credentials, NatsConnection, unreachable
from artcafe.fabric.nats.jetstream import JetStream, check_answer
from artcafe.fabric.queue_rewind import rewind_all
from artcafe.fabric.tenant_log import CONTINUES, EPOCH, TenantLog, new_epoch, parse_continues
from artcafe.model import Epoch, Seq, TenantId
from artcafe.rules.subjects import Subject

UP_S: Final = 10.0
CHUNK_BYTES: Final = 512 * 1024
"""Half of NATS's limit for one message."""
WORK_S: Final = 600.0
"""Timeout while NATS reads a whole stream before it answers: for the check before a snapshot, and for a restore."""
SILENCE_S: Final = 30.0
"""Timeout between two chunks of a snapshot. NATS itself gives up when a chunk is not acknowledged for 5 s."""
MAX_CONTINUED: Final = 16
"""How many restored logs a log remembers, newest first. A subscriber of an older log starts at this log's beginning."""


class StreamSnapshot(msgspec.Struct, frozen=True):
    """A stream's configuration and state, as NATS reports them, at the beginning of its snapshot."""

    config: dict[str, Any]
    state: dict[str, Any]
    moved: dict[str, Seq] = {}
    """In a log: the oldest message of each queue that became a dead letter since, by the name of its consumer. NATS reads
    the consumers last, so they may have ended messages whose letters are missing."""

    @property
    def name(self) -> str:
        return str(self.config["name"])

    @property
    def messages(self) -> int:
        return int(self.state["messages"])

    @property
    def last_seq(self) -> Seq:
        return int(self.state["last_seq"])

    @property
    def epoch(self) -> Epoch | None:
        """Its epoch, if it is a tenant's log."""
        epoch = self.config.get("metadata", {}).get(EPOCH)
        return Epoch(epoch) if epoch else None

    def as_continuation(self) -> StreamSnapshot:
        """Return the stream as a new log continuing this one after its last sequence. Return streams other than logs
        unchanged."""
        if self.epoch is None:
            return self
        metadata = self.config["metadata"]
        before = {self.epoch: self.last_seq}
        for epoch, seq in parse_continues(metadata.get(CONTINUES, "")).items():
            before.setdefault(epoch, min(seq, self.last_seq))
        text = " ".join(f"{epoch}:{seq}" for epoch, seq in list(before.items())[:MAX_CONTINUED])
        config = {**self.config, "metadata": {**metadata, EPOCH: new_epoch(), CONTINUES: text}}
        return msgspec.structs.replace(self, config=config)


class AccountConnector:
    """Connections to the accounts of one NATS server or cluster, for commands."""

    def __init__(self, urls: Sequence[str], accounts: Accounts, tls: ssl.SSLContext | None = None) -> None:
        """`tls` verifies NATS's certificates; None uses the system's authorities."""
        self._urls, self._accounts, self._tls = urls, accounts, tls

    @asynccontextmanager
    async def connect(self, tenant_id: TenantId | None) -> AsyncIterator[NatsConnection]:
        """Connect to the tenant's account, after registering it with NATS if necessary; None: to the platform's account. Raise
        `Unavailable`."""
        if tenant_id is None:
            credentials, admit = self._accounts.platform_user, None
        else:
            credentials, admit = partial(self._accounts.user, tenant_id), partial(self._admit, tenant_id)
        async with self._connected(f"backup of {tenant_id or 'the platform'}", credentials, admit) as connection:
            yield connection

    async def replica_count(self) -> int:
        """Return the number of replicas of a stream here. Raise `Unavailable`."""
        async with self._connected("backup", self._system_user) as system:
            return await replica_count(system, within_s=UP_S)

    async def _admit(self, tenant_id: TenantId) -> None:
        async with self._connected("backup", self._system_user) as system:
            await register_account(system, self._accounts.account_jwt(tenant_id))

    def _system_user(self) -> Credentials:
        return self._accounts.system_user()

    @asynccontextmanager
    async def _connected(
        self, name: str, credentials: Callable[[], Credentials], admit: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncIterator[NatsConnection]:
        connection = NatsConnection(name, self._urls, credentials, admit, tls=self._tls)
        async with asyncio.TaskGroup() as group:
            group.create_task(connection.run())
            try:
                await connection.wait_up(UP_S)
                yield connection
            finally:
                connection.close()


async def stream_names(connection: NatsConnection) -> list[str]:
    """Return the names of the account's streams to back up: not the storage check and the counters. Raise `Unavailable`."""
    answer = await JetStream(connection).request("STREAM.NAMES", {}, timeout_s=UP_S)
    return [name for name in answer.get("streams") or [] if name not in (storage_probe.STREAM, *counters.STREAMS)]


async def save(connection: NatsConnection, stream: str, write: Callable[[bytes], object]) -> StreamSnapshot:
    """Pass a stream's snapshot to `write`, in chunks, while the stream stays in use.

    NATS verifies every message first. Raise `LogRefused` if one is damaged, and `Unavailable`.
    """
    chunks: asyncio.Queue[Msg] = asyncio.Queue()
    inbox = Subject(f"_INBOX.{secrets.token_hex(8)}")
    subscription = await connection.subscribe(inbox, chunks.put)
    try:
        wanted = {"deliver_subject": inbox, "no_consumers": False, "jsck": True, "chunk_size": CHUNK_BYTES}
        answer = await JetStream(connection).request(f"STREAM.SNAPSHOT.{stream}", wanted, timeout_s=WORK_S)
        while (chunk := await _next(chunks)).data:
            write(chunk.data)
            if chunk.reply:  # NATS waits for acknowledgements before it sends much more.
                await connection.send(OutgoingMessage(Subject(chunk.reply), "", b""))
    except NatsConnectionLost as exc:
        raise unreachable() from exc
    finally:
        await connection.unsubscribe(subscription)
    headers = chunk.headers or {}
    if headers.get("Status", "204") != "204":
        raise LogRefused(int(headers["Status"]), headers.get("Description", ""))
    saved = StreamSnapshot(answer["config"], answer["state"])
    if saved.epoch is None:
        return saved
    log = TenantLog(connection, replicas=saved.config.get("num_replicas", 1))
    return msgspec.structs.replace(saved, moved=await moved_after(log, saved.last_seq))


async def current(connection: NatsConnection, stream: str) -> StreamSnapshot | None:
    """Return the stream's present configuration and state, or None if it does not exist. Raise `Unavailable`."""
    info = await JetStream(connection).info(stream)
    return None if info is None else StreamSnapshot(info["config"], info["state"])


async def remove(connection: NatsConnection, stream: str) -> None:
    """Delete a stream. Raise `Unavailable`, or `LogRefused` if it does not exist."""
    await JetStream(connection).request(f"STREAM.DELETE.{stream}", {}, timeout_s=UP_S)


async def restore(connection: NatsConnection, saved: StreamSnapshot, chunks: Iterable[bytes]) -> StreamSnapshot:
    """Create a stream from a snapshot with the configuration of `saved`. Return its state. It must not exist yet. Consumers
    that are ahead of a tenant's log, or have ended messages whose dead letters it lacks, are rewound.

    NATS knows the keys of its messages again after a restart. Raise `Unavailable`, and `LogRefused` for instance for a damaged
    snapshot; the stream does not exist then.
    """
    begun = {"config": saved.config, "state": saved.state}
    answer = await JetStream(connection).request(f"STREAM.RESTORE.{saved.name}", begun, timeout_s=UP_S)
    to = Subject(answer["deliver_subject"])
    for chunk in chunks:
        await _send_chunk(connection, to, chunk)
    made = await _send_chunk(connection, to, b"")
    restored = StreamSnapshot(made["config"], made["state"])
    if restored.epoch is not None:
        await rewind_all(connection, restored.last_seq, saved.moved)
    return restored


async def _next(chunks: asyncio.Queue[Msg]) -> Msg:
    try:
        async with asyncio.timeout(SILENCE_S):
            return await chunks.get()
    except TimeoutError:
        raise unreachable() from None


async def _send_chunk(connection: NatsConnection, to: Subject, chunk: bytes) -> dict[str, Any]:
    """Send a chunk of a stream and return the answer: empty for each chunk, and the stream's state after the last one."""
    try:
        answer = await connection.request(to, chunk, timeout_s=WORK_S)
    except (TimeoutError, NoResponder, NatsConnectionLost) as exc:
        raise unreachable() from exc
    answer_body: dict[str, Any] = msgspec.json.decode(answer.data) if answer.data else {}
    check_answer(answer_body)
    return answer_body
