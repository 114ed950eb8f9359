"""The headers `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-09), in the syntax of RFC 9651.

Both are lists of strings with parameters: a policy has the quota `q` and the window `w` in seconds, its state what remains (`r`)
and the seconds `t` until more is free.
"""

from __future__ import annotations

import math
from typing import Final

from starlette.types import Scope

from artcafe.model import TenantId
from artcafe.rules.plans import Limit
from artcafe.rules.rate_window import WINDOW_S
from artcafe.services.rate_limits import RateLimits

_STATE: Final = "rate_limits"


def show(scope: Scope, limits: RateLimits, tenant_id: TenantId, kind: Limit) -> None:
    """Show a tenant's limit in the headers of this request's response, also of a refusal."""
    scope["state"].setdefault(_STATE, []).append((limits, tenant_id, kind))


def headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response: of each limit that applied to the request and is finite."""
    policies, states = [], []
    for limits, tenant_id, kind in scope["state"].get(_STATE, ()):
        usage = limits.peek(tenant_id, kind)
        if usage is None:
            continue
        policies.append(f'"{kind}";q={usage.limit};w={WINDOW_S}')
        states.append(f'"{kind}";r={usage.left};t={math.ceil(max(0.0, usage.resets_at - limits.now()))}')
    if not policies:
        return []
    return [(b"ratelimit-policy", ", ".join(policies).encode()), (b"ratelimit", ", ".join(states).encode())]
