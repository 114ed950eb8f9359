"""Routes for the console's sign-in with the local identity: create a code, and exchange it for a token."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import Field

from artcafe import errors
from artcafe.rest import problems
from artcafe.rest.auth import LoginKey
from artcafe.rest.bodies import SMALL_BODY_BYTES, json_body, request_schema
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.paging import Time
from artcafe.rest.principal import AnyPerson, NeedlessKey, TokenExpiry
from artcafe.rest.schemas import RequestModel, ResponseModel

router = APIRouter(prefix="/v1/auth", tags=["auth"])


class ConsoleCodeResponse(ResponseModel):
    """A code that signs its creator in to the console: once, until `expires_at`."""

    code: str
    expires_at: Time


class NewConsoleToken(RequestModel):
    """A code to exchange."""

    code: str = Field(min_length=1, max_length=256)


class ConsoleTokenResponse(ResponseModel):
    """An access token of a user."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 (the name of a scheme)
    expires_in: int = Field(description="Lifetime in seconds.", examples=[43200])


@router.post(
    "/console-codes",
    status_code=201,
    summary="Create a code for the console",
    responses=problems.responses(*problems.BEARER, errors.Forbidden, errors.Conflict),
)
async def create_console_code(
    services: ServicesDep, user: AnyPerson, token_expires_at: TokenExpiry, _key: NeedlessKey = None
) -> ConsoleCodeResponse:
    """Return a code that signs the caller in to the console once, within 60 seconds. Only with the local identity."""
    made = await services.console_codes.create(user, token_expires_at)
    return ConsoleCodeResponse(code=made.code, expires_at=made.expires_at)


@router.post(
    "/console-tokens",
    status_code=200,
    summary="Exchange a code of the console",
    responses=problems.responses(errors.BadCode, *problems.BODY),
    openapi_extra=request_schema(NewConsoleToken),
)
async def redeem_console_code(
    services: ServicesDep,
    body: Annotated[NewConsoleToken, Depends(json_body(NewConsoleToken, SMALL_BODY_BYTES))],
    _key: LoginKey = None,
) -> ConsoleTokenResponse:
    """Exchange a code for an access token of its creator, valid until the token expires that created the code. An attempt uses up
    the code, and all failures are answered alike."""
    token, expires_in_s = await services.console_codes.redeem(body.code)
    return ConsoleTokenResponse(access_token=token, expires_in=expires_in_s)
