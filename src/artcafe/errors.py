"""Every error ArtCafe tells anyone, in one table: code, class, HTTP status, close code, and whether trying again can help.

An exception carries facts as attributes; its text is built from them. What happens on an error is decided by whoever
meets it (`rest.app`, `gateway.connection`, `sdk.agent`, `cli`); nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

REGISTRY: dict[str, type[ArtcafeError]] = {}


class ArtcafeError(Exception):
    """The root: something that ArtCafe can name.

    `code` is stable and for programs, `text` a template over the facts and for people. `status` answers over REST; `close`,
    where there is one, ends a WebSocket with that code, else the error answers the command alone. `temporary` says that the
    same call can succeed later unchanged.
    """

    code: ClassVar[str]
    text: ClassVar[str]
    status: ClassVar[int] = 400
    close: ClassVar[int | None] = None
    temporary: ClassVar[bool] = False
    _text_from_peer: str | None = None

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "code" in cls.__dict__:
            REGISTRY[cls.code] = cls

    def __str__(self) -> str:
        return self._text_from_peer if self._text_from_peer is not None else self.text.format_map(self.__dict__)

    def __repr__(self) -> str:
        # Not the dataclass's own: of a told error only the text is known.
        return f"{type(self).__name__}({str(self)!r})"

    @classmethod
    def from_text(cls, message: str) -> Self:
        """The same error as the other end told it: its text is known, its facts are not."""
        error = cls.__new__(cls)
        error._text_from_peer = message
        return error


def from_wire(code: str, message: str) -> ArtcafeError:
    """The error a peer named. A code this version does not know becomes `UnknownError` with the code in its text."""
    kind = REGISTRY.get(code)
    return kind.from_text(message) if kind else UnknownError.from_text(f"{code}: {message}")


class CallerFault(ArtcafeError):
    """The peer asked for something wrong; nothing was changed."""


class OurFault(ArtcafeError):
    """The platform could not do what was asked; the text says whether anything was changed."""

    status = 503
    temporary = True


class UnknownError(OurFault):
    """A code from a newer peer."""

    code, text, status, temporary = "unknown", "the other end named an error this version does not know", 500, False


# --- who is calling -------------------------------------------------------------------------------------------------


class BadCredentials(CallerFault):
    """Every failed login, alike for an unknown agent, a wrong key and a used challenge."""

    code, status, close = "bad_credentials", 401, 4500
    text = (
        "the login was refused: there may be no such agent in this tenant, or it is disabled, or the signature is not by its"
        " registered key, or the challenge was used before or is older than 5 minutes; check both ids and the key, and sign"
        " exactly the text of a new challenge"
    )


class Unauthenticated(CallerFault):
    code, status, close = "unauthenticated", 401, 4500
    text = (
        "there is no valid access token here (REST takes it as 'Authorization: Bearer TOKEN'): an agent gets one by logging in"
        " with its SSH key at /v1/auth/challenges, a person from the issuer that GET /v1 names, or on one machine from"
        " 'artcafe token'"
    )


class CredentialsExpired(CallerFault):
    code, status, close, temporary = "credentials_expired", 401, 4001, True
    text = "the access token has expired; log in again for a new one"


class TenantSuspended(CallerFault):
    code, status, close = "tenant_suspended", 403, 4506
    text = (
        "this tenant is suspended: its agents are out, and its people read what is in the tables and change nothing; whoever"
        " runs this service can say why, and resume it"
    )


@dataclass(eq=False, repr=False)
class TermsRequired(CallerFault):
    version: str
    code, status, close = "terms_required", 403, 4500
    text = "version {version} of the terms is not accepted yet: read it at GET /v1/terms, accept it by POST /v1/terms/acceptances"


class Revoked(CallerFault):
    code, status, close = "revoked", 401, 4503
    text = "this agent was deleted, disabled or given another key, or the key it used has ended; log in again with an active key"


class NotAMember(CallerFault):
    code, status, close = "no_member", 403, 4500
    text = "this person is in no such tenant; connect names one of their own as tenant_id, and GET /v1/me lists them"


class MembershipEnded(CallerFault):
    code, status, close = "membership_ended", 403, 4503
    text = "this person was removed from the tenant"


class RoleChanged(CallerFault):
    code, status, close, temporary = "role_changed", 403, 4001, True
    text = "this person's role in the tenant is another one now; connect again"


@dataclass(eq=False, repr=False)
class RateLimited(CallerFault):
    what: str
    wait_s: float
    whose: str = "from this address"
    code, status, close, temporary = "too_fast", 429, 4029, True
    text = "too many {what} {whose}; wait {wait_s:.3g} s and try again"


@dataclass(eq=False, repr=False)
class Forbidden(CallerFault):
    action: str
    who: str
    code, status = "forbidden", 403
    text = "{who} may not {action}"


# --- what does not exist, or not for the caller ----------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class NotFound(CallerFault):
    """An id that is absent, malformed, or another tenant's: told apart by nobody."""

    id: str
    status = 404
    text = "there is no such thing here: {id!r}"


class RouteNotFound(NotFound):
    code, text = "route_not_found", "there is nothing at {id!r}; GET /openapi.json lists every route"


@dataclass(eq=False, repr=False)
class MethodNotAllowed(CallerFault):
    method: str
    allowed: str
    code, status, text = "method_not_allowed", 405, "{method} is not possible here; this takes {allowed}"


class TenantNotFound(NotFound):
    code, text = "tenant_not_found", "no tenant {id!r} among yours; GET /v1/me lists them"


class MemberNotFound(NotFound):
    code, text = "member_not_found", "no member {id!r} in this tenant; a member is named by the user_id in the list"


class InvitationNotFound(NotFound):
    code, text = "invitation_not_found", "no invitation {id!r} in this tenant; it may have been used or revoked"


class AgentNotFound(NotFound):
    code, text = "agent_not_found", "no agent {id!r} in this tenant"


class KeyNotFound(NotFound):
    code, text = "key_not_found", "no key {id!r} of this agent; a key is named by its id (key_…)"


class ChannelNotFound(NotFound):
    code, text = "channel_not_found", "no channel {id!r} in this tenant; a channel is named by its id (chn_…), not its name"


class SubscriptionNotFound(NotFound):
    code, text = "subscription_not_found", "agent {id!r} has no subscription to this channel"


# --- what was asked is wrong -----------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class Invalid(CallerFault):
    """A field that is missing or wrong. `field` is its path (`public_key`, `capabilities[0]`), `problem` a phrase."""

    field: str
    problem: str
    code, status, text = "invalid", 422, "{field}: {problem}"


@dataclass(eq=False, repr=False)
class BadJson(CallerFault):
    problem: str
    code, status, text = "bad_json", 400, "the body is not the JSON this route takes: {problem}"


@dataclass(eq=False, repr=False)
class BadKey(CallerFault):
    """A public key that is refused when it is registered."""

    problem: str
    code, status = "bad_key", 422
    text = "public_key: {problem}; send the one line of a .pub file, for example from: ssh-keygen -t ed25519 -f agent_key -N ''"


@dataclass(eq=False, repr=False)
class KeyUnusable(CallerFault):
    """An agent's own SSH key that cannot sign where the agent runs; never sent to a peer."""

    problem: str
    code, text = "key_unusable", "the SSH key cannot be used: {problem}"


class KeyLocked(KeyUnusable):
    """A key that only its passphrase opens, and none was given."""


class SignatureInvalid(KeyUnusable):
    """A signature by ssh-agent that the key does not verify; of another challenge it may be valid."""

    temporary = True


@dataclass(eq=False, repr=False)
class ChallengeRefused(ArtcafeError):
    """A challenge that the SDK does not sign: a signature under it could be good for something else. Never sent to a peer."""

    problem: str
    code, text = "challenge_refused", "the server's challenge was not signed: {problem}; is this the server you meant?"


@dataclass(eq=False, repr=False)
class KeyTaken(CallerFault):
    agent: str
    code, status = "key_taken", 409
    text = "public_key: agent {agent} of this tenant has this key already; every agent needs its own"


@dataclass(eq=False, repr=False)
class Conflict(CallerFault):
    """What was asked does not go with what is there now."""

    problem: str
    code, status, text = "conflict", 409, "{problem}"


@dataclass(eq=False, repr=False)
class RowFull(CallerFault):
    """A row of the tables has no room for the change; `problem` says how large it would become."""

    problem: str
    most_bytes: int
    code, status = "row_full", 409
    text = (
        "nothing was changed: a row of this thing is full, since it may hold {most_bytes} bytes ({problem}); make what you send"
        " shorter, or have the operator remove from the row what an older system left there"
    )


class IdempotencyMismatch(CallerFault):
    code, status = "idempotency_mismatch", 409
    text = "this Idempotency-Key was used for another request; repeat a request unchanged, or take a new key for a new one"


class LastOwner(CallerFault):
    code, status = "last_owner", 409
    text = "this is the tenant's last owner, who stays: make another member an owner first, or delete the tenant"


class InvitationRefused(CallerFault):
    """Every token that opens nothing, alike for one that never was, was used, was revoked or has expired."""

    code, status = "invitation_refused", 403
    text = (
        "this invitation opens nothing: it may have been used or revoked, or is older than 72 hours, or whoever made it may"
        " invite nobody any more; ask for another one, and hand over the whole of it"
    )


@dataclass(eq=False, repr=False)
class AddressUnproven(CallerFault):
    problem: str
    code, status = "address_unproven", 403
    text = "an invitation is for one e-mail address, which must be proven: {problem}"


@dataclass(eq=False, repr=False)
class TermsChanged(CallerFault):
    version: str
    code, status = "terms_changed", 409
    text = "this is not the current version of the terms, which is {version}: read that at GET /v1/terms; nothing was accepted"


@dataclass(eq=False, repr=False)
class LimitReached(CallerFault):
    what: str
    limit: int
    code, status = "limit_reached", 409
    text = "this tenant's limit of {limit} {what} is reached; delete some, or ask for a higher limit"


@dataclass(eq=False, repr=False)
class TenantLimit(CallerFault):
    limit: int
    how: str
    code, status = "tenant_limit", 409
    text = "the limit of {limit} tenants {how} is reached; delete one that is not needed, or ask the operator for a higher limit"


@dataclass(eq=False, repr=False)
class KeyLimit(CallerFault):
    limit: int
    code, status = "key_limit", 409
    text = "this agent has {limit} keys beside its first one, which is all it may have; revoke one that is not used any more"


class BadCursor(CallerFault):
    code, status = "bad_cursor", 400
    text = "cursor: not one this list gave; start again without it and pass on each answer's next_cursor unchanged"


@dataclass(eq=False, repr=False)
class TooLarge(CallerFault):
    what: str
    limit_bytes: int
    code, status, close, text = "too_large", 413, 4501, "{what} is larger than {limit_bytes} bytes; nothing was stored"


@dataclass(eq=False, repr=False)
class RequestTimeout(CallerFault):
    deadline_s: float
    code, status, temporary = "request_timeout", 408, True
    text = "the request's body did not arrive within {deadline_s:g} s; nothing was changed, send it again"


@dataclass(eq=False, repr=False)
class BadRequest(CallerFault):
    """A request whose head or framing HTTP/1.1 forbids. The connection ends: where the next request begins is uncertain."""

    problem: str
    code, status = "bad_request", 400
    text = "this is no request of HTTP/1.1: {problem}; nothing was done, and the connection is closed"


# --- the gateway's frames --------------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class BadFrame(CallerFault):
    """A frame that could not be read at all: the connection ends, since its commands can no longer be told apart."""

    problem: str
    code, close, text = "bad_frame", 4501, "bad frame: {problem}; send one JSON object a text frame, such as {example}"
    example: str = '{"id":2,"publish":{"channel":"chn_…","data":{}}}'


@dataclass(eq=False, repr=False)
class BadCommand(CallerFault):
    """A frame that is JSON with an id but not a command: answered, and the connection goes on."""

    problem: str
    code, text = "bad_command", "{problem}"


@dataclass(eq=False, repr=False)
class OutOfTurn(CallerFault):
    command: str
    code, close = "out_of_turn", 4501
    text = "{command} is out of turn: before connect comes nothing but challenge"


class ConnectTimeout(CallerFault):
    code, close = "connect_timeout", 4502
    text = "no successful connect within 10 s of opening the socket"


class SlowConsumer(CallerFault):
    code, close, temporary = "slow_consumer", 4008, True
    text = "this socket took no bytes for 10 s while messages waited; nothing is lost: connect again and go on from the cursor"


class NoPong(CallerFault):
    code, close, temporary = "no_pong", 4012, True
    text = "no answer to a WebSocket ping; connect again and it goes on from the cursor"


@dataclass(eq=False, repr=False)
class ConnectionLimit(CallerFault):
    whose: str
    limit: int
    code, status, close = "connection_limit", 409, 4504
    text = "this {whose}'s limit of {limit} connections to one server is reached; close some first"


@dataclass(eq=False, repr=False)
class SubscriptionLimit(CallerFault):
    limit: int
    code, status = "subscription_limit", 409
    text = "the limit of {limit} live subscriptions on one connection is reached; unsubscribe from some"


@dataclass(eq=False, repr=False)
class NotSubscribed(CallerFault):
    channel: str
    code, text = "not_subscribed", "this socket does not receive {channel!r}; subscribe to it first"


@dataclass(eq=False, repr=False)
class AckBeyondSent(CallerFault):
    channel: str
    seq: int
    sent: int
    code = "ack_beyond_sent"
    text = "ack of {seq} on {channel}: this socket was sent nothing above {sent}; the cursor has not moved"


# --- publishing ------------------------------------------------------------------------------------------------------


class KeyReused(CallerFault):
    code, status = "key_reused", 409
    text = "this key was used within 10 minutes for a message with other content; nothing was stored: take a new key"


class QuotaFull(CallerFault):
    code, status, temporary = "quota_full", 507, True
    text = "the tenant's storage is full; this message was not stored, and nothing older was dropped"


class NotStored(OurFault):
    code = "not_stored"
    text = "the message was not stored; publish it again"


class OutcomeUnknown(OurFault):
    code, status = "outcome_unknown", 504
    text = "whether the message was stored is unknown; publishing it again with the same key is safe"


# --- the platform ----------------------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class Unavailable(OurFault):
    what: str
    code, text = "unavailable", "{what} cannot be reached now; nothing was changed, try again"


class Unanswered(Unavailable):
    """Of a write whose answer did not come: it may have been made, and if so, whole. Asking again is safe all the same."""

    text = "{what} did not answer in time; whether anything was changed is unknown, try again"


@dataclass(eq=False, repr=False)
class Overloaded(OurFault):
    what: str
    code, text = "overloaded", "this server holds as many {what} as it may; nothing was changed, try again"


class NatsConnectionLost(OurFault):
    """The connection to NATS ended before its answer came: whether anything happened is unknown."""

    code, text = "link_lost", "the connection to the message log was lost before its answer came; whether it acted is unknown"


class NoResponder(OurFault):
    """NATS answered that nobody serves this subject now: nothing happened."""

    code, text = "no_responder", "the message log does not answer this request now; nothing was changed, try again"


@dataclass(eq=False, repr=False)
class LogRefused(OurFault):
    """NATS refused a request about a log, for a reason that only an operator can mend."""

    error_code: int
    description: str
    code, text = "log_refused", "the message log refused it: {description} ({error_code}); nothing was changed"


class ShuttingDown(OurFault):
    code, close = "shutting_down", 4000
    text = "this server is shutting down; connect again"


class LogRenewed(OurFault):
    code, close = "log_renewed", 4000
    text = "the message log was restored or begun anew; connect again: what is gone is told by a gap, and the rest is delivered"


class Internal(OurFault):
    code, status, temporary, close = "internal", 500, False, 4000
    text = "an error of ours, logged under this request's id; whether anything was changed is unknown"


# --- starting up (never sent to a peer) ------------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class StartRefused(ArtcafeError):
    """The server does not start; `problem` and `remedy` are whole clauses for the person at the terminal."""

    problem: str
    remedy: str
    code, text = "start_refused", "{problem}\n  {remedy}"


class FolderInUse(StartRefused):
    """Another process holds the data folder."""


@dataclass(eq=False, repr=False)
class ChainBroken(ArtcafeError):
    number: int
    problem: str
    code, text = "chain_broken", "entry {number} of the audit {problem}"


@dataclass(eq=False, repr=False)
class ArchiveRefused(ArtcafeError):
    """No backup is made, or none restored; nothing was changed. The two facts are whole clauses, as above."""

    problem: str
    remedy: str
    code, text = "archive_refused", "{problem}\n  {remedy}"


@dataclass(eq=False, repr=False)
class TablesRefused(ArtcafeError):
    """An operator's command on the tables did not do what it was asked. The two facts are whole clauses, as above."""

    problem: str
    remedy: str
    code, text = "tables_refused", "{problem}\n  {remedy}"


@dataclass(eq=False, repr=False)
class TablesUnreachable(OurFault):
    """As above, where trying again can help."""

    problem: str
    remedy: str
    code, text = "tables_unreachable", "{problem}\n  {remedy}"


@dataclass(eq=False, repr=False)
class SettingInvalid(ArtcafeError):
    name: str
    problem: str
    code, text = "setting_invalid", "setting {name}: {problem}"
