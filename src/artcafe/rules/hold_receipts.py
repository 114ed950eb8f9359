"""Receipts of pulled queue messages: what any server needs to end the hold of one, sealed for the agent that pulled it."""

from __future__ import annotations

import msgspec

from artcafe.errors import BadCursor, Invalid
from artcafe.model import AgentId, ChannelId, Epoch, Seq, TenantId
from artcafe.rules import pages
from artcafe.rules.subjects import Subject


class HoldReceipt(msgspec.Struct, frozen=True, array_like=True):
    """One delivery of a queue message to a pull."""

    server: str
    """The server that pulled it, and knows whether it is still held."""
    channel: ChannelId
    seq: Seq
    deliveries: int
    """The number of the delivery: the receipt of an earlier one is not valid for a later one."""
    ack_subject: Subject
    epoch: Epoch | None
    """The log in which `ack_subject` has a meaning."""
    until_ms: int
    """The ack deadline in milliseconds since 1970, for when that server has ended."""


_decoder = msgspec.json.Decoder(HoldReceipt)


def seal(key: bytes, tenant_id: TenantId, agent_id: AgentId, receipt: HoldReceipt) -> str:
    """Return the receipt as opaque text, valid for this agent only. `key` has 32 bytes."""
    return pages.seal(key, tenant_id, _bound_to(agent_id), msgspec.json.encode(receipt).decode())


def open(key: bytes, tenant_id: TenantId, agent_id: AgentId, text: str) -> HoldReceipt:
    """Return the receipt in a text. Raises Invalid for any text but one from `seal` with the same key and agent."""
    try:
        return _decoder.decode(pages.open(key, tenant_id, _bound_to(agent_id), text))
    except BadCursor:
        raise Invalid("receipt", "is not one of a message that this agent has pulled") from None


def _bound_to(agent_id: AgentId) -> str:
    return f"receipt {agent_id}"
