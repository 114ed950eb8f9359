"""Whole streams as bytes, and back, for backups: by NATS's own snapshots, which keep sequences, times and message ids.

A snapshot holds the messages that were there when it began (some of what is purged meanwhile may be missing). What is taken when,
and where it is put, is `cli.backup`'s.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import msgspec
from nats.aio.msg import Msg

from artcafe.errors import LinkLost, LogRefused, NoResponder
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.client import Incoming, Outgoing
from artcafe.fabric.cluster import copies
from artcafe.fabric.fabric import CLAIMS_UPDATE, tell_system
from artcafe.fabric.link import Credentials, Link, unreachable
from artcafe.fabric.streams import CONTINUES, EPOCH, STREAM_NOT_FOUND, continues_of, new_epoch, refusal
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


class Saved(msgspec.Struct, frozen=True):
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

    def renewed(self) -> Saved:
        """The same stream as another log, which knows up to where it continues this one. Others than logs stay as they are."""
        if self.epoch is None:
            return self
        metadata = self.config["metadata"]
        before = {self.epoch: self.last_seq}
        for epoch, seq in continues_of(metadata.get(CONTINUES, "")).items():
            before.setdefault(epoch, min(seq, self.last_seq))
        text = " ".join(f"{epoch}:{seq}" for epoch, seq in list(before.items())[:MOST_CONTINUED])
        return Saved({**self.config, "metadata": {**metadata, EPOCH: new_epoch(), CONTINUES: text}}, self.state)


class Vault:
    """The accounts of one NATS server, or of a cluster, entered one at a time."""

    def __init__(self, urls: Sequence[str], accounts: Accounts) -> None:
        self._urls, self._accounts = list(urls), accounts

    @asynccontextmanager
    async def enter(self, tenant_id: TenantId | None) -> AsyncIterator[Link]:
        """A link of the tenant's account, made known to NATS where it is not; None: the platform's own. Raises `Unavailable`."""
        if tenant_id is None:
            credentials, admit = self._accounts.platform_user, None
        else:
            credentials, admit = partial(self._accounts.user, tenant_id), partial(self._admit, tenant_id)
        async with self._linked(Link(f"backup of {tenant_id or 'the platform'}", self._urls, credentials, admit)) as link:
            yield link

    async def copies(self) -> int:
        """How many copies a stream has here. Raises `Unavailable`."""
        async with self._linked(Link("backup", self._urls, self._system_user)) as system:
            return await copies(system, within_s=UP_S)

    async def _admit(self, tenant_id: TenantId) -> None:
        async with self._linked(Link("backup", self._urls, self._system_user)) as system:
            await tell_system(system, CLAIMS_UPDATE, self._accounts.account_jwt(tenant_id))

    def _system_user(self) -> Credentials:
        return self._accounts.system_user()

    @staticmethod
    @asynccontextmanager
    async def _linked(link: Link) -> AsyncIterator[Link]:
        async with asyncio.TaskGroup() as group:
            group.create_task(link.run())
            try:
                await link.wait_up(UP_S)
                yield link
            finally:
                link.close()


async def names(link: Link) -> list[str]:
    """The streams of the account. Raises `Unavailable`."""
    answer = await _ask(link, "STREAM.NAMES", {})
    return list(answer.get("streams") or [])


async def save(link: Link, stream: str, write: Callable[[bytes], object]) -> Saved:
    """Hands a stream's snapshot to `write`, in pieces; it goes on being used meanwhile.

    NATS checks every message first. Raises `LogRefused` where one is damaged, and `Unavailable`.
    """
    pieces: asyncio.Queue[Msg] = asyncio.Queue()
    inbox = Subject(f"_INBOX.{secrets.token_hex(8)}")
    follow = await link.subscribe(inbox, pieces.put)
    try:
        wanted = {"deliver_subject": inbox, "no_consumers": False, "jsck": True, "chunk_size": CHUNK_BYTES}
        answer = await _ask(link, f"STREAM.SNAPSHOT.{stream}", wanted, WORK_S)
        while (piece := await _next(pieces)).data:
            write(piece.data)
            if piece.reply:  # NATS waits for it before it sends much more.
                await link.send(Outgoing(Subject(piece.reply), "", b""))
    except LinkLost as exc:
        raise unreachable() from exc
    finally:
        await link.unsubscribe(follow)
    headers = piece.headers or {}
    if headers.get("Status", "204") != "204":
        raise LogRefused(int(headers["Status"]), headers.get("Description", ""))
    return Saved(answer["config"], answer["state"])


async def standing(link: Link, stream: str) -> Saved | None:
    """The stream as it is now, or None where there is none. Raises `Unavailable`."""
    try:
        info = await _ask(link, f"STREAM.INFO.{stream}", {})
    except LogRefused as exc:
        if exc.error_code == STREAM_NOT_FOUND:
            return None
        raise
    return Saved(info["config"], info["state"])


async def remove(link: Link, stream: str) -> None:
    """Removes a stream with everything in it. Raises `Unavailable`, and `LogRefused` where there is none."""
    await _ask(link, f"STREAM.DELETE.{stream}", {})


async def load(link: Link, saved: Saved, pieces: Iterable[bytes]) -> Saved:
    """Makes a stream of a snapshot, under the configuration of `saved`, and returns what it is. It must not be there yet.

    The keys in its messages are known again once NATS was started anew. Raises `LogRefused`, also where the snapshot is damaged,
    and then there is no such stream; and `Unavailable`.
    """
    answer = await _ask(link, f"STREAM.RESTORE.{saved.name}", {"config": saved.config, "state": saved.state})
    to = Subject(answer["deliver_subject"])
    for piece in pieces:
        _refuse(await _request(link, to, piece, WORK_S))
    made = _refuse(await _request(link, to, b"", WORK_S))
    return Saved(made["config"], made["state"])


async def _next(pieces: asyncio.Queue[Msg]) -> Msg:
    try:
        async with asyncio.timeout(SILENCE_S):
            return await pieces.get()
    except TimeoutError:
        raise unreachable() from None


async def _ask(link: Link, verb: str, body: dict[str, Any], timeout_s: float = UP_S) -> dict[str, Any]:
    answer = await _request(link, Subject(f"$JS.API.{verb}"), msgspec.json.encode(body), timeout_s)
    return _refuse(answer)


async def _request(link: Link, subject: Subject, body: bytes, timeout_s: float) -> Incoming:
    try:
        return await link.request(subject, body, timeout_s=timeout_s)
    except (TimeoutError, NoResponder, LinkLost) as exc:
        raise unreachable() from exc


def _refuse(answer: Incoming) -> dict[str, Any]:
    """What was answered; an empty answer says that a piece has come. Raises `LogRefused`."""
    if not answer.data:
        return {}
    told: dict[str, Any] = msgspec.json.decode(answer.data)
    refusal(told)
    return told
