"""The errors that a peer sent, as exceptions."""

from __future__ import annotations

from artcafe.errors import (
    AgentError,
    AlreadyDelivered,
    ArtcafeError,
    LimitFault,
    LoopStopped,
    RateExceeded,
    RateLimited,
    RequestFault,
    from_wire,
)
from artcafe.wire.replies import LimitState


def fault_of(
    code: str,
    message: str,
    limit: LimitState | None,
    chain: str | None = None,
    hops: int | None = None,
    retry_after_s: float | None = None,
    delivered: bool | None = None,
    agent_code: str | None = None,
    seq: int | None = None,
) -> ArtcafeError:
    """Return the error that a peer sent, over REST or in a frame, with the limit, chain, request or message that it is about."""
    if code == RateLimited.code:
        return _rate_fault(message, limit, retry_after_s or 0.0)
    fault = from_wire(code, message)
    if limit is not None and isinstance(fault, LimitFault):
        fault.limit, fault.most, fault.used, fault.resets_at = limit.name, limit.limit, limit.used, limit.resets_at
    if isinstance(fault, LoopStopped):
        fault.chain, fault.hops = chain or "", hops or 0
    if isinstance(fault, AlreadyDelivered):
        fault.seq = seq or 0
    if isinstance(fault, RequestFault):
        fault.was_delivered = delivered
    if isinstance(fault, AgentError):
        fault.agent_code, fault.message = agent_code or "", message
    return fault


def _rate_fault(message: str, limit: LimitState | None, wait_s: float) -> RateLimited:
    fault = RateLimited.from_text(message) if limit is None else RateExceeded.from_text(message)
    fault.wait_s = wait_s
    if limit is not None and isinstance(fault, RateExceeded):
        fault.limit, fault.most, fault.used, fault.resets_at = limit.name, limit.limit, limit.used, limit.resets_at
    return fault
