"""Whole streams as bytes, and back, for backups: by NATS's own snapshots, which keep sequences, times and message ids.

A snapshot holds the messages that were there when it began (some of what is purged meanwhile may be missing). What is taken when,
and where it is put, is `cli.operate.backup`'s.
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
from artcafe.fabric import storage_probe
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.nats.account_claims import register_account
from artcafe.fabric.nats.client import OutgoingMessage
from artcafe.fabric.nats.cluster import replica_count
from artcafe.fabric.nats.connection import Credentials, NatsConnection, unreachable
from artcafe.fabric.nats.jetstream import JetStream, check_answer
from artcafe.fabric.tenant_log import CONTINUES, EPOCH, new_epoch, parse_continues
from artcafe.model import Epoch, Seq, TenantId
from artcafe.rules.subjects import Subject

UP_S: Final = 10.0
CHUNK_BYTES: Final = 512 * 1024
"""Half of what NATS carries in one message."""
WORK_S: Final = 600.0
"""NATS reads a whole stream before it answers: to check it before a snapshot, and to take it over after a restore."""
SILENCE_S: Final = 30.0
"""Between two pieces of a snapshot; NATS itself gives up when one is not acknowledged for 5 s."""
MOST_CONTINUED: Final = 16
"""A log remembers so many that it was restored from, the newest first: whoever was away for longer begins at its beginning."""


class StreamSnapshot(msgspec.Struct, frozen=True):
    """A stream as it was when its snapshot began: its configuration and state, as NATS tells them."""

    config: dict[str, Any]
    state: dict[str, Any]

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
        """Its epoch, where it is a tenant's log."""
        epoch = self.config.get("metadata", {}).get(EPOCH)
        return Epoch(epoch) if epoch else None

    def as_continuation(self) -> StreamSnapshot:
        """The same stream as another log, which knows up to where it continues this one. Others than logs stay as they are."""
        if self.epoch is None:
            return self
        metadata = self.config["metadata"]
        before = {self.epoch: self.last_seq}
        for epoch, seq in parse_continues(metadata.get(CONTINUES, "")).items():
            before.setdefault(epoch, min(seq, self.last_seq))
        text = " ".join(f"{epoch}:{seq}" for epoch, seq in list(before.items())[:MOST_CONTINUED])
        return StreamSnapshot({**self.config, "metadata": {**metadata, EPOCH: new_epoch(), CONTINUES: text}}, self.state)


class AccountConnector:
    """The accounts of one NATS server, or of a cluster, entered one at a time."""

    def __init__(self, urls: Sequence[str], accounts: Accounts, tls: ssl.SSLContext | None = None) -> None:
        """`tls` checks NATS's certificates; None: as the system does."""
        self._urls, self._accounts, self._tls = urls, accounts, tls

    @asynccontextmanager
    async def enter(self, tenant_id: TenantId | None) -> AsyncIterator[NatsConnection]:
        """A connection into the tenant's account, which NATS is told of first; None: the platform's own. Raises `Unavailable`."""
        if tenant_id is None:
            credentials, admit = self._accounts.platform_user, None
        else:
            credentials, admit = partial(self._accounts.user, tenant_id), partial(self._admit, tenant_id)
        async with self._linked(f"backup of {tenant_id or 'the platform'}", credentials, admit) as connection:
            yield connection

    async def replica_count(self) -> int:
        """How many copies a stream has here. Raises `Unavailable`."""
        async with self._linked("backup", self._system_user) as system:
            return await replica_count(system, within_s=UP_S)

    async def _admit(self, tenant_id: TenantId) -> None:
        async with self._linked("backup", self._system_user) as system:
            await register_account(system, self._accounts.account_jwt(tenant_id))

    def _system_user(self) -> Credentials:
        return self._accounts.system_user()

    @asynccontextmanager
    async def _linked(
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
    """The streams of the account that hold anything to be kept. Raises `Unavailable`."""
    answer = await JetStream(connection).request("STREAM.NAMES", {}, timeout_s=UP_S)
    return [name for name in answer.get("streams") or [] if name != storage_probe.STREAM]


async def save(connection: NatsConnection, stream: str, write: Callable[[bytes], object]) -> StreamSnapshot:
    """Hands a stream's snapshot to `write`, in pieces; it goes on being used meanwhile.

    NATS checks every message first. Raises `LogRefused` where one is damaged, and `Unavailable`.
    """
    pieces: asyncio.Queue[Msg] = asyncio.Queue()
    inbox = Subject(f"_INBOX.{secrets.token_hex(8)}")
    follow = await connection.subscribe(inbox, pieces.put)
    try:
        wanted = {"deliver_subject": inbox, "no_consumers": False, "jsck": True, "chunk_size": CHUNK_BYTES}
        answer = await JetStream(connection).request(f"STREAM.SNAPSHOT.{stream}", wanted, timeout_s=WORK_S)
        while (piece := await _next(pieces)).data:
            write(piece.data)
            if piece.reply:  # NATS waits for it before it sends much more.
                await connection.send(OutgoingMessage(Subject(piece.reply), "", b""))
    except NatsConnectionLost as exc:
        raise unreachable() from exc
    finally:
        await connection.unsubscribe(follow)
    headers = piece.headers or {}
    if headers.get("Status", "204") != "204":
        raise LogRefused(int(headers["Status"]), headers.get("Description", ""))
    return StreamSnapshot(answer["config"], answer["state"])


async def current(connection: NatsConnection, stream: str) -> StreamSnapshot | None:
    """The stream as it is now, or None where there is none. Raises `Unavailable`."""
    info = await JetStream(connection).info(stream)
    return None if info is None else StreamSnapshot(info["config"], info["state"])


async def remove(connection: NatsConnection, stream: str) -> None:
    """Removes a stream with everything in it. Raises `Unavailable`, and `LogRefused` where there is none."""
    await JetStream(connection).request(f"STREAM.DELETE.{stream}", {}, timeout_s=UP_S)


async def restore(connection: NatsConnection, saved: StreamSnapshot, pieces: Iterable[bytes]) -> StreamSnapshot:
    """Makes a stream of a snapshot, under the configuration of `saved`, and returns what it is. It must not be there yet.

    The keys in its messages are known again once NATS was started anew. Raises `LogRefused`, also where the snapshot is damaged,
    and then there is no such stream; and `Unavailable`.
    """
    begun = {"config": saved.config, "state": saved.state}
    answer = await JetStream(connection).request(f"STREAM.RESTORE.{saved.name}", begun, timeout_s=UP_S)
    to = Subject(answer["deliver_subject"])
    for piece in pieces:
        await _hand_over(connection, to, piece)
    made = await _hand_over(connection, to, b"")
    return StreamSnapshot(made["config"], made["state"])


async def _next(pieces: asyncio.Queue[Msg]) -> Msg:
    try:
        async with asyncio.timeout(SILENCE_S):
            return await pieces.get()
    except TimeoutError:
        raise unreachable() from None


async def _hand_over(connection: NatsConnection, to: Subject, piece: bytes) -> dict[str, Any]:
    """What is answered to a piece of a stream: nothing but that it has come, and behind the last one what the stream is now."""
    try:
        answer = await connection.request(to, piece, timeout_s=WORK_S)
    except (TimeoutError, NoResponder, NatsConnectionLost) as exc:
        raise unreachable() from exc
    told: dict[str, Any] = msgspec.json.decode(answer.data) if answer.data else {}
    check_answer(told)
    return told
