"""The NATS subjects inside a tenant's account, and the platform's. The only place where one is built, and only from ids that the
server made."""

from __future__ import annotations

import functools
import hashlib
import re
from typing import Final, NewType

from artcafe.model import ChannelId, TenantId

Subject = NewType("Subject", str)
"""A subject without wildcards, or one of the constants below."""

STORED: Final = Subject("ch.>")
"""Everything the tenant's stream stores."""
LIVE: Final = Subject("live.ch.>")
"""Where the stream repeats what it stored, and where `live` channels are published."""
PRESENCE: Final = Subject("presence")
"""Where each server says which of the tenant's agents it holds."""
PRESENCE_ASK: Final = Subject("presence.ask")
"""Where a server asks the others to say it now."""
CHANGES: Final = Subject("changes")
"""In the platform's own account: where a server says which tenants have changed."""

AUDIT: Final = Subject("audit.>")
"""In the platform's own account: everything that the audit keeps."""
AUDIT_OF_PLATFORM: Final = Subject("audit.platform")
"""What happened to no one tenant: people's terms, tenants that came and went."""
HEALTH: Final = Subject("health")
"""In the platform's own account: where servers try whether anything is stored."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")


def token(id: str) -> str:
    """An id as one token of a subject: itself, or for an id of an older system that cannot stand in one, a hash of it."""
    if _TOKEN.fullmatch(id):
        return id
    return "h" + hashlib.sha256(id.encode()).hexdigest()


@functools.lru_cache(maxsize=4096)
def stored(channel: ChannelId) -> Subject:
    """Where a channel's messages are stored. Cached, since every publish needs it."""
    return Subject(f"ch.{token(channel)}")


def live(channel: ChannelId) -> Subject:
    """Where a channel's stored messages are repeated."""
    return Subject(f"live.ch.{token(channel)}")


def audit(tenant_id: TenantId) -> Subject:
    """Where the audit of a tenant is kept."""
    return Subject(f"audit.tenant.{token(tenant_id)}")


def dedupe_id(channel: ChannelId, sender: str, key: str) -> str:
    """The `Nats-Msg-Id` of a keyed message. NATS compares it in the whole stream, so it names the channel and the sender too:
    nobody's key suppresses another's message."""
    parts = (channel, sender, key)
    return hashlib.sha256(b"".join(len(p.encode()).to_bytes(4, "big") + p.encode() for p in parts)).hexdigest()[:32]
