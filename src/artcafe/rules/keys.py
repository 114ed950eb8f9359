"""An agent's keys: which are its own, which may prove it now, and which takes the first one's place. Changing them is
`services.keys`'.

One rule decides what proves an agent and what it claims: a line that could not be registered today is no key (`admitted`).
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
"""Keys beside the first one."""
FINGERPRINTS: Final = 4096
"""Fingerprints in the cache: about 0.3 KB each with an Ed25519 key's line, and 1.8 KB with one of RSA of 8192 bits."""


def key_id(line: str) -> KeyId:
    """The id of a key in an agent: the same for every spelling of its line."""
    return KeyId(ids.derived_id("key", canonical(line)))


def canonical(line: str) -> str:
    """A line without its comment, as `PublicKey.line` has it; an older system kept it as it was sent."""
    return " ".join(re.split(r"[ \t]+", line.strip(" \t\r\n"), maxsplit=2)[:2])


def admitted(line: str) -> PublicKey | None:
    """Return the key in a stored line; None where an older system kept one that could not be registered today."""
    try:
        return parse_public_key(line)
    except BadKey:
        return None


@lru_cache(FINGERPRINTS)
def fingerprint(line: str) -> str | None:
    """Return the fingerprint of a stored line's key, or None where `admitted` does.

    The cache is keyed by the line's text, so a changed key cannot get another's fingerprint. Parsing takes 0.1 to 0.5 ms, and a
    page of agents has up to 200 lines.
    """
    key = admitted(line)
    return None if key is None else key.fingerprint


def is_key(stored: str, line: str) -> bool:
    """Return whether a stored line is the admitted key whose canonical line is `line`.

    Lines that ArtCafe wrote are equal as text; only others are parsed, which takes up to 0.5 ms.
    """
    return stored == line or (canonical(stored) == line and admitted(stored) is not None)


def all_of(agent: Agent) -> tuple[AgentKey, ...]:
    """Every key of the agent, its first one in front. That one is always active, and has no end."""
    first = AgentKey(line=agent.public_key, added_at=agent.key_added_at or agent.created_at, serial=agent.key_serial)
    return (first, *agent.keys)


def has(agent: Agent, line: str) -> bool:
    """Whether the agent has the key of this canonical line, active or not."""
    return any(is_key(key.line, line) for key in all_of(agent))


def find(agent: Agent, id: str) -> AgentKey | None:
    """The agent's key of that id."""
    return next((key for key in all_of(agent) if key_id(key.line) == id), None)


def find_usable(agent: Agent, line: str, now: datetime) -> AgentKey | None:
    """The agent's key of this canonical line, if it may prove the agent now."""
    return next((key for key in all_of(agent) if is_key(key.line, line) and is_usable(key, now)), None)


def is_proof_valid(agent: Agent, serial: int, now: datetime) -> bool:
    """Whether what the key of this serial has proven still holds."""
    return any(key.serial == serial and is_usable(key, now) for key in all_of(agent))


def is_usable(key: AgentKey, now: datetime) -> bool:
    """Whether the key may prove its agent now."""
    return key.status is KeyStatus.ACTIVE and (key.not_after is None or now < key.not_after)


def successor(agent: Agent) -> AgentKey | None:
    """The key that takes the first one's place when that goes: the oldest other one that is active and has no end."""
    lasting = [key for key in agent.keys if key.status is KeyStatus.ACTIVE and key.not_after is None]
    return min(lasting, key=lambda key: key.serial, default=None)


def dropped_requests(agent: Agent, others: Sequence[AgentKey]) -> list[str]:
    """Return the requests that added a key which is not among the agent's keys once `others` stand beside its first one."""
    kept = {key.request for key in others}
    return [key.request for key in agent.keys if key.request is not None and key.request not in kept]
