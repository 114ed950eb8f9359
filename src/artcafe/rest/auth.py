"""Login of agents: a challenge to sign, and a token for its signature. What makes a proof good is `services.login`'s."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header
from pydantic import Field

from artcafe.errors import BadCredentials
from artcafe.rest import problems
from artcafe.rest.bodies import SMALL_BODY_BYTES, json_body, takes
from artcafe.rest.dependencies import Parts
from artcafe.rest.paging import Time
from artcafe.rest.schemas import RequestModel, ResponseModel

router = APIRouter(prefix="/v1/auth", tags=["auth"])


class NewChallenge(RequestModel):
    """Which agent wants to log in."""

    tenant_id: str = Field(examples=["ten_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    agent_id: str = Field(examples=["agt_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])


class ChallengeResponse(ResponseModel):
    """What to sign. It is good for one attempt, until `expires_at`."""

    challenge_id: str = Field(examples=["chl_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    challenge: str = Field(
        description='Sign exactly this text: printf %s "$challenge" | ssh-keygen -Y sign -n artcafe -f KEY',
        examples=["artcafe login 1 service=… tenant=ten_… agent=agt_… challenge=chl_… nonce=… expires=2026-11-22T16:55:57.123Z"],
    )
    expires_at: Time


class NewToken(RequestModel):
    """The signature of a challenge."""

    challenge_id: str = Field(examples=["chl_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    signature: str = Field(
        description="What ssh-keygen printed: an armored SSHSIG.",
        examples=["-----BEGIN SSH SIGNATURE-----\n…\n-----END SSH SIGNATURE-----\n"],
    )


class TokenResponse(ResponseModel):
    """An access token. It ends earlier when its agent is deleted, disabled or given another key."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 (the name of a scheme)
    expires_in: int = Field(description="Seconds.", examples=[900])


LoginKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description=(
            "Taken as on every POST, and without effect here: nobody is known yet whose key it could be, and a login that is"
            " repeated makes nothing twice. When an answer gets lost, begin again with a new challenge."
        ),
    ),
]


@router.post(
    "/challenges",
    status_code=201,
    summary="Begin an agent's login",
    responses=problems.responses(*problems.BODY),
    openapi_extra=takes(NewChallenge),
)
async def create_challenge(
    parts: Parts, body: Annotated[NewChallenge, Depends(json_body(NewChallenge, SMALL_BODY_BYTES))], _key: LoginKey = None
) -> ChallengeResponse:
    """An unknown agent gets an answer just like a known one."""
    posed = await parts.login.begin(body.tenant_id, body.agent_id)
    return ChallengeResponse(challenge_id=posed.id, challenge=posed.text, expires_at=posed.expires_at)


@router.post(
    "/tokens",
    status_code=200,
    summary="Finish an agent's login",
    responses=problems.responses(BadCredentials, *problems.BODY),
    openapi_extra=takes(NewToken),
)
async def create_token(
    parts: Parts, body: Annotated[NewToken, Depends(json_body(NewToken, SMALL_BODY_BYTES))], _key: LoginKey = None
) -> TokenResponse:
    """The challenge is spent by this attempt, also when it fails: every failure gets the same answer."""
    token, expires_in_s = await parts.login.redeem(body.challenge_id, body.signature)
    return TokenResponse(access_token=token, expires_in=expires_in_s)
