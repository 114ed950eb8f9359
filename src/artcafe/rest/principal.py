"""Who is calling: a bearer token becomes a person or an agent, and with the tenant in the path a principal. Fails closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Final

import structlog
from fastapi import Depends, Header, Path, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from artcafe.errors import ArtcafeError, Forbidden, Unauthenticated
from artcafe.model import AgentPrincipal, Principal, UserId
from artcafe.rest.dependencies import Parts
from artcafe.services.authentication import Caller

LONGEST_PATH: Final = 256
"""Characters of a refused request's path in the audit: its own ids fit in."""

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="bearer",
    bearerFormat="JWT",
    description="An agent's token from POST /v1/auth/tokens, or a person's from the identity provider.",
)


async def caller(parts: Parts, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> Caller:
    """Raises Unauthenticated, CredentialsExpired, Revoked or Unavailable. The two kinds of token have different issuers and keys,
    so that no token is good for both."""
    if credentials is None:
        raise Unauthenticated
    return await parts.authentication.caller(credentials.credentials)


AnyCaller = Annotated[Caller, Depends(caller)]


async def any_person(parts: Parts, who: AnyCaller) -> UserId:
    """A person, also one who has not accepted the terms. Raises Forbidden for an agent: it belongs to one tenant for its life."""
    if isinstance(who, AgentPrincipal):
        refused = Forbidden("do what is a person's: accept terms, enter, list or make tenants", "an agent")
        parts.audit.counters.count_refusal(who, refused)
        raise refused
    return who


AnyPerson = Annotated[UserId, Depends(any_person)]


async def person(parts: Parts, who: AnyPerson) -> UserId:
    """A person who has accepted the terms. Raises TermsRequired for one who has not."""
    await parts.terms.check(who)
    return who


Person = Annotated[UserId, Depends(person)]
TenantPath = Annotated[str, Path(description="The tenant, one of the caller's own.", examples=["ten_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])]


async def principal(request: Request, parts: Parts, who: AnyCaller, tenant_id: TenantPath) -> AsyncIterator[Principal]:
    """Yield the caller as a principal of the tenant in the path, and count a refusal of what they ask then in its audit.

    Raises TenantNotFound for a tenant that is not the caller's, whether or not it exists, and before that TermsRequired.
    """
    proven = await parts.authentication.principal(who, tenant_id)
    structlog.contextvars.bind_contextvars(tenant=proven.tenant_id, principal=proven.sender)
    try:
        yield proven
    except ArtcafeError as exc:
        path = request.scope["raw_path"][:LONGEST_PATH].decode("ascii", "replace")
        parts.audit.counters.count_refusal(proven, exc, request=f"{request.method} {path}")
        raise


InTenant = Annotated[Principal, Depends(principal)]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description=(
            "A text of your choice, new for every new request. The same request with the same key changes nothing more and gets"
            " the first answer again; another request with it is refused, and so is a repeat for 72 hours after what it made was"
            " deleted."
        ),
        examples=["0d8f6d0e-3f54-4a53-9a1d-6f1f0b7c9f11"],
    ),
]
NeedlessKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Taken as on every POST, and without effect here: what is repeated is done once and answered alike.",
    ),
]
AgentPath = Annotated[str, Path(description="The agent's id.", examples=["agt_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])]
ChannelPath = Annotated[str, Path(description="The channel's id.", examples=["chn_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])]
