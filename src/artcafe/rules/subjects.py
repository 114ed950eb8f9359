"""The NATS subjects in a tenant's account and in the platform's.

Subjects are built only here, and only from ids the server generated.
"""

from __future__ import annotations

import functools
import hashlib
import re
from typing import Final, NamedTuple, NewType

from artcafe.model import ChannelId, Seq, TenantId
from artcafe.rules import inboxes

Subject = NewType("Subject", str)
"""A subject without wildcards, or one of the constants below."""

STORED: Final = Subject("ch.>")
"""All subjects stored by the tenant's stream."""
EVERYTHING: Final = Subject(">")
"""All subjects of an account."""
LIVE: Final = Subject("live.ch.>")
"""The subjects of the stream's republished messages, and of messages in `live` channels."""
INBOXES: Final = Subject("ch.@.*")
"""The subjects of the stored messages of all inboxes. No channel's token is `@`."""
LIVE_INBOXES: Final = Subject("live.ch.@.*")
"""The subjects of the republished messages of all inboxes."""
DEAD_MARKS: Final = Subject("ch.*.dead.*")
"""The subjects of the marks at the moved messages of all queues."""
SCHEDULED: Final = Subject("later.>")
"""All subjects of scheduled messages, which the tenant's stream stores too, and does not republish."""
PRESENCE: Final = Subject("presence")
"""Presence updates: each server announces the agents connected to it."""
PRESENCE_ASK: Final = Subject("presence.ask")
"""Requests of a server for presence updates from all others."""
POSITIONS_ASK: Final = Subject("positions.ask")
"""Questions of a server that follows receipts: how far have the others delivered to these agents?"""
CHANGES: Final = Subject("changes")
"""In the platform's account: a server announces changed tenants."""

AUDIT: Final = Subject("audit.>")
"""In the platform's account: all subjects of the audit."""
AUDIT_OF_PLATFORM: Final = Subject("audit.platform")
"""Audit entries of no single tenant: people's terms, creation and deletion of tenants."""
HEALTH: Final = Subject("health")
"""In the platform's account: the storage check of the servers."""
CENSUS: Final = Subject("census")
"""In the platform's account: a server asks the others for their connections of a tenant."""
SERVERS_ASK: Final = Subject("servers.ask")
"""In the platform's account: a server asks the others for their reports about themselves."""
SCHEDULED_MINUTES: Final = Subject("wake.>")
"""In the platform's account: the minutes in which tenants have scheduled messages."""
RECENT_COUNTERS: Final = Subject("count.recent.>")
"""In the platform's account: all counters that expire within minutes."""
DAILY_COUNTERS: Final = Subject("count.daily.>")
"""In the platform's account: all counters that expire after a day without use."""

_SCHEDULED: Final = "later."
_QUEUE_CONSUMER: Final = "queue-"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")


def token(id: str) -> str:
    """Return an id as a subject token: itself, or a hash for an id of an older system with characters invalid in a subject."""
    if _TOKEN.fullmatch(id):
        return id
    return "h" + hashlib.sha256(id.encode()).hexdigest()


def _channel(channel: ChannelId) -> str:
    """Return a channel's token, or for an inbox `@` and the token of its agent."""
    owner = inboxes.owner_of(channel)
    return token(channel) if owner is None else f"@.{token(owner)}"


@functools.lru_cache(maxsize=4096)
def stored(channel: ChannelId) -> Subject:
    """Return the subject of a channel's stored messages. Cached, because every publish needs it."""
    return Subject(f"ch.{_channel(channel)}")


def is_stored(subject: Subject) -> bool:
    """Return whether a subject of the tenant's stream is that of a channel's stored messages, and not of scheduled ones."""
    return subject.startswith("ch.")


def channel_token(subject: Subject) -> str:
    """Return the token of a channel's id in the subject of its stored messages; for an inbox `@` and its agent's token."""
    return subject.removeprefix("ch.").replace("@.", inboxes.PREFIX, 1)


def scheduled(channel: ChannelId, message_id: str) -> Subject:
    """Return the subject of one scheduled message."""
    return Subject(f"{_SCHEDULED}{_channel(channel)}.{token(message_id)}")


def scheduled_of(channel: ChannelId) -> Subject:
    """Return the subjects of a channel's scheduled messages, with a wildcard: only to remove them."""
    return Subject(f"{_SCHEDULED}{_channel(channel)}.*")


def scheduled_id(subject: Subject) -> str:
    """Return the message id in the subject of a scheduled message."""
    return subject.rpartition(".")[2]


def delivered(scheduled: Subject) -> Subject:
    """Return the subject of the stored messages of a scheduled message's channel."""
    return Subject(f"ch.{scheduled.removeprefix(_SCHEDULED).rpartition('.')[0]}")


def marks(channel: ChannelId) -> Subject:
    """Return all subjects of the marks at a channel's messages, with a wildcard: they are stored beside its messages."""
    return Subject(f"ch.{token(channel)}.>")


def dead_mark(channel: ChannelId, seq: Seq) -> Subject:
    """Return the subject of the mark that a queue's message was moved to a dead-letter channel."""
    return Subject(f"ch.{token(channel)}.dead.{seq}")


def end_marks(channel: ChannelId) -> Subject:
    """Return the subject of the marks that name ended messages with keys of a queue channel."""
    return Subject(f"ch.{token(channel)}.ends")


def live_marks(channel: ChannelId) -> Subject:
    """Return all subjects of the republished marks at a channel's messages, with a wildcard."""
    return Subject(f"live.ch.{token(channel)}.>")


def redriven_mark(channel: ChannelId, seq: Seq) -> Subject:
    """Return the subject of the mark that a dead letter was sent back to its queue."""
    return Subject(f"{_redriven(channel)}{seq}")


def redriven_marks(channel: ChannelId) -> Subject:
    """Return the subjects of the marks of all redriven dead letters of a channel, with a wildcard."""
    return Subject(f"{_redriven(channel)}*")


def _redriven(channel: ChannelId) -> str:
    return f"ch.{token(channel)}.redriven."


class ParsedMark(NamedTuple):
    """The parts of a mark's subject: the subject of its channel's messages, `dead` or `redriven`, and the marked sequence."""

    stored: Subject
    kind: str
    seq: Seq


def parse_mark(subject: Subject) -> ParsedMark | None:
    """Return the parts of the subject of a mark, or None for a subject of messages."""
    parts = subject.rsplit(".", 2)
    if len(parts) < 3 or parts[1] not in ("dead", "redriven"):
        return None
    return ParsedMark(Subject(parts[0]), parts[1], int(parts[2]))


def marked_seq(mark: Subject) -> Seq:
    """Return the sequence of the message that a mark is at."""
    return int(mark.rpartition(".")[2])


def live(channel: ChannelId) -> Subject:
    """Return the subject of a channel's republished messages."""
    return Subject(f"live.ch.{_channel(channel)}")


def queue_consumer(channel: ChannelId) -> str:
    """Return the name of the JetStream consumer that shares a queue channel's messages."""
    return f"{_QUEUE_CONSUMER}{token(channel)}"


def consumer_of_mark(mark: Subject) -> str:
    """Return the name of the consumer of the queue with a marked message."""
    return f"{_QUEUE_CONSUMER}{mark.split('.')[1]}"


def is_queue_consumer(name: str) -> bool:
    """Return whether a JetStream consumer has the name of a queue's."""
    return name.startswith(_QUEUE_CONSUMER)


def queue_pull(stream: str, consumer: str) -> Subject:
    """Return the subject of requests for a consumer's next messages."""
    return Subject(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}")


def audit(tenant_id: TenantId) -> Subject:
    """Return the subject of a tenant's audit."""
    return Subject(f"audit.tenant.{token(tenant_id)}")


def census_answers(server: str) -> Subject:
    """Return the subject of the answers to a server's questions. `server` is a name that the server made for itself."""
    return Subject(f"census.answers.{server}")


def requests(server: str) -> Subject:
    """Return the subject, in the tenant's account, of the requests to the agents on a server. `server` as in `census_answers`."""
    return Subject(f"requests.{server}")


def outcomes(server: str) -> Subject:
    """Return the subject, in the tenant's account, of questions to a server about messages of queues. `server` as in
    `census_answers`."""
    return Subject(f"outcomes.{server}")


def scheduled_minute(tenant_id: TenantId, minute: int) -> Subject:
    """Return the subject that says that a tenant has messages scheduled in a minute, counted since 1970."""
    return Subject(f"wake.{token(tenant_id)}.{minute}")


def holds(server: str) -> Subject:
    """Return the subject of acks, in the platform's account, of messages that a server has pulled from queues for agents."""
    return Subject(f"holds.{server}")


def rate_counter(tenant_id: TenantId, limit: str, slot: int) -> Subject:
    """Return the counter of a tenant's use of a rate limit in one slot of time. `limit` is a name of `rules.plans.Limit`."""
    return Subject(f"count.recent.{token(tenant_id)}.{limit}.{slot}")


def chain_counter(tenant_id: TenantId, chain: str) -> Subject:
    """Return the counter of the messages of a chain, which is named by the id of its first message."""
    return Subject(f"count.daily.{token(tenant_id)}.chain.{token(chain)}")


def chain_release_counter(tenant_id: TenantId, chain: str) -> Subject:
    """Return the counter of the releases of a chain by members."""
    return Subject(f"count.daily.{token(tenant_id)}.release.{token(chain)}")


def chain_stop_counter(tenant_id: TenantId, chain: str, releases: int) -> Subject:
    """Return the counter of the recorded stops of a chain since its last release, the one of this number."""
    return Subject(f"count.daily.{token(tenant_id)}.stop.{token(chain)}.{releases}")


def dedupe_id(channel: ChannelId, sender: str, key: str) -> str:
    """Return the `Nats-Msg-Id` of a keyed message.

    NATS compares it in the whole stream, so it includes the channel and the sender: a key never suppresses another sender's
    message.
    """
    parts = (channel, sender, key)
    return hashlib.sha256(b"".join(len(p.encode()).to_bytes(4, "big") + p.encode() for p in parts)).hexdigest()[:32]
