"""An agent's keys: lookups, keys valid for a login, and the successor of the primary key. `services.keys` changes them.

One rule decides the validity of a key for logins and for key claims: a line that registration would refuse today is not a key
(`admitted`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final

from artcafe.errors import BadKey
from artcafe.model import Agent, AgentKey, KeyId, KeyStatus
from artcafe.rules import ids
from artcafe.wire.sshkeys import PublicKey, parse_public_key

MAX_ADDITIONAL: Final = 5
"""Keys in addition to the primary one."""
FINGERPRINTS: Final = 4096
"""Fingerprints in the cache: about 0.3 KB each with an Ed25519 key's line, and 1.8 KB with one of RSA of 8192 bits."""


def key_id(line: str) -> KeyId:
    """Return the id of a key within its agent: the same for every spelling of its line."""
    return KeyId(ids.derived_id("key", canonical(line)))


def canonical(line: str) -> str:
    """Return a line without its comment, as in `PublicKey.line`; an older system stored lines as sent."""
    return " ".join(re.split(r"[ \t]+", line.strip(" \t\r\n"), maxsplit=2)[:2])


def admitted(line: str) -> PublicKey | None:
    """Return the key in a stored line; None for a line of an older system that registration would refuse today."""
    try:
        return parse_public_key(line)
    except BadKey:
        return None


@lru_cache(FINGERPRINTS)
def fingerprint(line: str) -> str | None:
    """Return the fingerprint of a stored line's key, or None if the line is not `admitted`.

    The cache key is the text of the line, so a changed key cannot get another key's fingerprint. Parsing takes 0.1 to 0.5 ms, and
    a page of agents has up to 200 lines.
    """
    key = admitted(line)
    return None if key is None else key.fingerprint


def is_key(stored: str, line: str) -> bool:
    """Return whether a stored line is the admitted key with the canonical line `line`.

    Lines written by ArtCafe are equal as text; only others are parsed, which takes up to 0.5 ms.
    """
    return stored == line or (canonical(stored) == line and admitted(stored) is not None)


def all_of(agent: Agent) -> tuple[AgentKey, ...]:
    """Return every key of the agent, the primary key first. The primary key is always active and never expires."""
    first = AgentKey(line=agent.public_key, added_at=agent.key_added_at or agent.created_at, serial=agent.key_serial)
    return (first, *agent.keys)


def has(agent: Agent, line: str) -> bool:
    """Return whether the agent has the key with this canonical line, active or not."""
    return any(is_key(key.line, line) for key in all_of(agent))


def find(agent: Agent, id: str) -> AgentKey | None:
    """Return the agent's key with this id, or None."""
    return next((key for key in all_of(agent) if key_id(key.line) == id), None)


def find_usable(agent: Agent, line: str, now: datetime) -> AgentKey | None:
    """Return the agent's key with this canonical line if it is valid for a login now, else None."""
    return next((key for key in all_of(agent) if is_key(key.line, line) and is_usable(key, now)), None)


def is_proof_valid(agent: Agent, serial: int, now: datetime) -> bool:
    """Return whether a proof by the key with this serial is still valid."""
    return any(key.serial == serial and is_usable(key, now) for key in all_of(agent))


def is_usable(key: AgentKey, now: datetime) -> bool:
    """Return whether the key is valid for a login now."""
    return key.status is KeyStatus.ACTIVE and (key.not_after is None or now < key.not_after)


def successor(agent: Agent) -> AgentKey | None:
    """Return the key to replace a removed primary key: the oldest other key that is active and never expires."""
    lasting = [key for key in agent.keys if key.status is KeyStatus.ACTIVE and key.not_after is None]
    return min(lasting, key=lambda key: key.serial, default=None)


def dropped_requests(agent: Agent, others: Sequence[AgentKey]) -> list[str]:
    """Return the requests that added keys missing from the agent once `others` are its additional keys."""
    kept = {key.request for key in others}
    return [key.request for key in agent.keys if key.request is not None and key.request not in kept]
