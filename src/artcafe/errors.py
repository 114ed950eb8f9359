"""Every error of ArtCafe in one table: code, class, text, HTTP status, close code, and whether a retry can help.

An exception carries facts as attributes, and its text is built from them. Its catcher decides what happens (`rest.app`,
`gateway.connection`, `sdk.agent`, `cli`). This module does no I/O.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Self

REGISTRY: dict[str, type[ArtcafeError]] = {}


class ArtcafeError(Exception):
    """The base class of ArtCafe's own errors.

    `code` is stable and for programs; `text` is a template over the attributes and for people. `status` is the HTTP status. An
    error with a `close` code ends a WebSocket with it; others only answer the command. `temporary` means that the same call,
    unchanged, can succeed later.
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
        # Not the dataclass's own, since an error from a peer's text has no attributes.
        return f"{type(self).__name__}({str(self)!r})"

    @classmethod
    def from_text(cls, message: str) -> Self:
        """Return an error from a peer's text, without its attributes."""
        error = cls.__new__(cls)
        error._text_from_peer = message
        return error


def from_wire(code: str, message: str) -> ArtcafeError:
    """Return the error that a peer sent. An unknown code becomes `UnknownError` with the code in its text."""
    kind = REGISTRY.get(code)
    return kind.from_text(message) if kind else UnknownError.from_text(f"{code}: {message}")


class CallerFault(ArtcafeError):
    """The request was wrong, and changed nothing."""


class OurFault(ArtcafeError):
    """The platform could not do what was requested; the text says whether anything was changed."""

    status = 503
    temporary = True


class UnknownError(OurFault):
    """A code from a newer peer."""

    code, status, temporary = "unknown", 500, False
    text = "the peer sent an error code that this version does not know; a newer version may name it"


# --- authentication ---------------------------------------------------------------------------------------------------


class BadCredentials(CallerFault):
    """A failed login: the same for an unknown agent, a wrong key and a used challenge."""

    code, status, close = "bad_credentials", 401, 4500
    text = (
        "the login was refused: the agent does not exist in this tenant or is disabled, or the signature is not from its"
        " registered key, or the challenge was used before or is older than 5 minutes; check both ids and the key, and sign"
        " exactly the text of a new challenge"
    )


class BadCode(CallerFault):
    """A failed sign-in to the console: the same for a used, an expired and an invented code."""

    code, status = "bad_code", 401
    text = (
        "the code was refused: it was used before, is older than 60 seconds, or was not made by this server; run"
        " 'artcafe console' again"
    )


@dataclass(eq=False, repr=False)
class SignInFailed(ArtcafeError):
    """A failed sign-in at the identity provider. Only the console's script raises it; here it is for the table of errors."""

    problem: str
    code, text = "sign_in_failed", "{problem}"


class Unauthenticated(CallerFault):
    code, status, close = "unauthenticated", 401, 4500
    text = (
        "there is no valid access token (REST takes it as 'Authorization: Bearer TOKEN'): an agent gets one by logging in"
        " with its SSH key at /v1/auth/challenges, a person from the issuer that GET /v1 names, or on a single machine from"
        " 'artcafe token'"
    )


class CredentialsExpired(CallerFault):
    code, status, close, temporary = "credentials_expired", 401, 4001, True
    text = "the access token has expired; log in again for a new one"


class TenantSuspended(CallerFault):
    code, status, close = "tenant_suspended", 403, 4506
    text = (
        "this tenant is suspended: its agents are disconnected, and its people can read the tables but change nothing; the"
        " operator of this service knows the reason and can resume it"
    )


@dataclass(eq=False, repr=False)
class TermsRequired(CallerFault):
    version: str
    code, status, close = "terms_required", 403, 4500
    text = (
        "version {version} of the terms has not been accepted: read it at GET /v1/terms and accept it with POST"
        " /v1/terms/acceptances"
    )


class Revoked(CallerFault):
    code, status, close = "revoked", 401, 4503
    text = (
        "this agent was deleted, disabled or given another key, or its key was revoked or has expired; log in again with an"
        " active key"
    )


class NotAMember(CallerFault):
    code, status, close = "no_member", 403, 4500
    text = "this person is not a member of that tenant; name one of their own as tenant_id (GET /v1/me lists them)"


class MembershipEnded(CallerFault):
    code, status, close = "membership_ended", 403, 4503
    text = "this person was removed from the tenant"


class RoleChanged(CallerFault):
    code, status, close, temporary = "role_changed", 403, 4001, True
    text = "this person's role in the tenant has changed; connect again"


@dataclass(eq=False, repr=False)
class RateLimited(CallerFault):
    what: str
    wait_s: float
    whose: str = "from this address"
    code, status, temporary = "too_fast", 429, True
    close: ClassVar[int | None] = 4029
    text = "too many {what} {whose}; wait {wait_s:.3g} s and try again"


@dataclass(eq=False, repr=False)
class Forbidden(CallerFault):
    action: str
    who: str
    code, status = "forbidden", 403
    text = "{who} may not {action}"


@dataclass(eq=False, repr=False)
class OriginRefused(CallerFault):
    """A request of a web page that the operator has not allowed."""

    origin: str
    code, status = "origin_refused", 403
    text = (
        "web pages of the origin {origin!r} may not send requests here; programs send no Origin header, and the operator names"
        " the origins that may in ALLOWED_ORIGINS"
    )


# --- missing, or not visible to the caller ----------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class NotFound(CallerFault):
    """An id that is absent, malformed, or of another tenant; the answers do not differ."""

    id: str
    status = 404
    text = "{id!r} was not found"


class RouteNotFound(NotFound):
    code, text = "route_not_found", "no route matches {id!r}; GET /openapi.json lists all of them"


@dataclass(eq=False, repr=False)
class MethodNotAllowed(CallerFault):
    method: str
    allowed: str
    code, status, text = "method_not_allowed", 405, "method {method} is not allowed here; use {allowed}"


class TenantNotFound(NotFound):
    code, text = "tenant_not_found", "no tenant {id!r} among yours; GET /v1/me lists them"


class MemberNotFound(NotFound):
    code, text = "member_not_found", "no member {id!r} in this tenant; use the user_id from the list of members"


class InvitationNotFound(NotFound):
    code, text = "invitation_not_found", "no invitation {id!r} in this tenant; it may have been used or revoked"


class AgentNotFound(NotFound):
    code, text = "agent_not_found", "no agent {id!r} in this tenant"


class KeyNotFound(NotFound):
    code, text = "key_not_found", "this agent has no key {id!r}; use the key's id (key_…)"


class ChannelNotFound(NotFound):
    code = "channel_not_found"
    text = (
        "no channel {id!r} in this tenant; use the channel's handle or its id (chn_…), not its name; an agent also needs a"
        " subscription, which a member makes, if the channel is managed"
    )


class DeadLetterNotFound(NotFound):
    code = "dead_letter_not_found"
    text = (
        "no dead letter {id!r}: it was removed, or is of another queue; name it by its sequence in the dead-letter channel, whose"
        " messages you can read"
    )


class ScheduledNotFound(NotFound):
    code, text = (
        "scheduled_not_found",
        "no scheduled message {id!r} in this channel; the list of scheduled messages shows all that you may see",
    )


class MessageNotFound(NotFound):
    code = "message_not_found"
    text = "no message {id!r} is stored in this channel: messages are named by their sequence, and retention may have removed it"


class ChainNotFound(NotFound):
    code, text = "chain_not_found", "no chain {id!r} in this tenant within the last day; use the id in `chain` of its messages"


class SubscriptionNotFound(NotFound):
    code, text = "subscription_not_found", "the agent {id!r} has no subscription to this channel, or there is no such channel"


# --- invalid requests -------------------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class Invalid(CallerFault):
    """A missing or invalid field. `field` is its path (`public_key`, `capabilities[0]`), `problem` a phrase."""

    field: str
    problem: str
    code, status, text = "invalid", 422, "{field}: {problem}"


@dataclass(eq=False, repr=False)
class BadJson(CallerFault):
    problem: str
    code, status, text = "bad_json", 400, "the request body is not the JSON that this route takes: {problem}"


@dataclass(eq=False, repr=False)
class BadKey(CallerFault):
    """A public key that is refused at registration."""

    problem: str
    code, status = "bad_key", 422
    text = (
        "public_key: {problem}; send the single line of a .pub file, for example from: ssh-keygen -t ed25519 -f agent_key -N ''"
    )


@dataclass(eq=False, repr=False)
class KeyUnusable(CallerFault):
    """An agent's own SSH key that cannot sign where the agent runs. Never sent to a peer."""

    problem: str
    code, text = "key_unusable", "the SSH key cannot be used: {problem}"


class KeyLocked(KeyUnusable):
    """An encrypted key without its passphrase."""


class SignatureInvalid(KeyUnusable):
    """A signature by ssh-agent that does not verify with the key. One of another challenge may be valid."""

    temporary = True


@dataclass(eq=False, repr=False)
class PayloadMismatch(CallerFault):
    """A message whose data does not match the type that the program expects. `received` is the message. Never sent to a peer."""

    channel: str
    message_id: str
    problem: str
    received: object
    code, text = "payload_mismatch", "the data of message {message_id} of {channel} does not match the expected type: {problem}"


@dataclass(eq=False, repr=False)
class ChallengeRefused(ArtcafeError):
    """A challenge that the SDK does not sign: the signature could be valid for another purpose. Never sent to a peer."""

    problem: str
    code, text = "challenge_refused", "the server's challenge was not signed: {problem}; check that this is the intended server"


@dataclass(eq=False, repr=False)
class KeyTaken(CallerFault):
    agent: str
    code, status = "key_taken", 409
    text = "public_key: agent {agent} of this tenant already has this key; every agent needs its own"


@dataclass(eq=False, repr=False)
class HandleTaken(CallerFault):
    kind: str
    handle: str
    code, status = "handle_taken", 409
    text = "handle: another {kind} of this tenant has the handle {handle!r}, or has it as its id; choose another one"


@dataclass(eq=False, repr=False)
class Conflict(CallerFault):
    """The request conflicts with the current state."""

    problem: str
    code, status, text = "conflict", 409, "{problem}"


@dataclass(eq=False, repr=False)
class RowFull(CallerFault):
    """A table row has no space for the change; `problem` is the size that it would have."""

    problem: str
    most_bytes: int
    code, status = "row_full", 409
    text = (
        "nothing was changed: the row would be larger than the limit of {most_bytes} bytes ({problem}); shorten the values,"
        " or have the operator remove data that an older system left in the row"
    )


class IdempotencyMismatch(CallerFault):
    code, status = "idempotency_mismatch", 409
    text = "this Idempotency-Key was used for another request; repeat a request unchanged, or use a new key for a new one"


class LastOwner(CallerFault):
    code, status = "last_owner", 409
    text = "this is the tenant's last owner, who cannot leave: make another member an owner first, or delete the tenant"


class InvitationRefused(CallerFault):
    """An invalid invitation: the same for an unknown, used, revoked and expired token."""

    code, status = "invitation_refused", 403
    text = (
        "this invitation is not valid: it may have been used or revoked, or be older than 72 hours, or its sender may no"
        " longer invite; ask for a new one, and pass on the whole of it"
    )


@dataclass(eq=False, repr=False)
class AddressUnproven(CallerFault):
    problem: str
    code, status = "address_unproven", 403
    text = "an invitation is valid for one e-mail address, which must be verified: {problem}"


@dataclass(eq=False, repr=False)
class TermsChanged(CallerFault):
    version: str
    code, status = "terms_changed", 409
    text = "this is not the current version of the terms, which is {version}; read that at GET /v1/terms (nothing was accepted)"


@dataclass(eq=False, repr=False)
class LimitFault(CallerFault):
    """A refusal by a limit of the tenant: of its plan, or its own.

    `limit` is the limit's name, as in `GET …/limits`, `most` its number, and `used` what is used or was asked for; None is
    unknown. `resets_at` is the time (RFC 3339) at which a limit of a period begins again.
    """

    limit: str = ""
    most: int | None = None
    used: int | None = None
    resets_at: str | None = None


class RateExceeded(RateLimited, LimitFault):
    """A rate limit of the tenant is reached: nothing was done. It has the code of `RateLimited`, but ends no connection.

    `wait_s` is the time until some of the limit is free again.
    """

    close = None
    text = (
        "this tenant's limit {limit} of {most} is reached, with {used} used; nothing was done: wait {wait_s:.3g} s and try again,"
        " or get a higher limit (GET …/limits shows all of them)"
    )

    def __init__(self, limit: str, most: int | None, used: int | None, resets_at: str | None, wait_s: float) -> None:
        super().__init__(limit, wait_s, "in this tenant")
        self.limit, self.most, self.used, self.resets_at = limit, most, used, resets_at


class LimitReached(LimitFault):
    """A count has reached its limit."""

    code, status = "limit_reached", 402
    text = (
        "this tenant's limit of {most} {limit} is reached; delete some, or get a higher limit: GET …/limits shows all of them, an"
        " owner can choose another plan, and the operator of this service can give more"
    )


class LimitExceeded(LimitReached):
    """A size above its limit. It has the code of `LimitReached`."""

    text = (
        "{limit} would be {used}, and this tenant's limit is {most}; nothing was changed: ask for less, or get a higher limit: an"
        " owner can choose another plan, and the operator of this service can give more"
    )


@dataclass(eq=False, repr=False)
class InvitationLimit(CallerFault):
    limit: int
    code, status = "invitation_limit", 409
    text = "this tenant has {limit} open invitations, the most that it may have; revoke some, or wait until they expire"


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
    text = "this agent has reached its limit of {limit} keys beside its first one; revoke one that is no longer used"


class BadCursor(CallerFault):
    code, status = "bad_cursor", 400
    text = "cursor: not from an answer of this list; start again without it, and pass each answer's next_cursor unchanged"


@dataclass(eq=False, repr=False)
class BadEventId(CallerFault):
    problem: str
    code, status = "bad_event_id", 400
    text = "Last-Event-ID {problem}; open the stream without it, and then pass on the id of its last event unchanged"


@dataclass(eq=False, repr=False)
class TooLarge(CallerFault):
    what: str
    limit_bytes: int
    code, status, close, text = "too_large", 413, 4501, "{what} is larger than {limit_bytes} bytes; nothing was stored"


@dataclass(eq=False, repr=False)
class RequestTimeout(CallerFault):
    deadline_s: float
    code, status, temporary = "request_timeout", 408, True
    text = "the request body did not arrive within {deadline_s:g} s; nothing was changed, send it again"


@dataclass(eq=False, repr=False)
class BadRequest(CallerFault):
    """A request whose head or framing violates HTTP/1.1. The connection is closed, since the start of the next request is
    uncertain."""

    problem: str
    code, status = "bad_request", 400
    text = "this is not a valid HTTP/1.1 request: {problem}; nothing was done, and the connection is closed"


# --- frames of the gateway --------------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class BadFrame(CallerFault):
    """An unreadable frame. The connection is closed, since its commands can no longer be identified."""

    problem: str
    code, close, text = "bad_frame", 4501, "bad frame: {problem}; send one JSON object per text frame, such as {example}"
    example: str = '{"id":2,"publish":{"channel":"chn_…","data":{}}}'


@dataclass(eq=False, repr=False)
class BadCommand(CallerFault):
    """A JSON frame with an id but no valid command. It is answered, and the connection continues."""

    problem: str
    code, text = "bad_command", "{problem}"


@dataclass(eq=False, repr=False)
class OutOfTurn(CallerFault):
    command: str
    code, close = "out_of_turn", 4501
    text = "{command} is not possible yet: before connect, only challenge is"


class ConnectTimeout(CallerFault):
    code, close = "connect_timeout", 4502
    text = "no successful connect within 10 s of opening the socket; connect again"


class SlowConsumer(CallerFault):
    code, close, temporary = "slow_consumer", 4008, True
    text = "this socket read no bytes for 10 s while messages waited; nothing is lost: connect again and continue from the cursor"


class NoPong(CallerFault):
    code, close, temporary = "no_pong", 4012, True
    text = "no answer to a WebSocket ping; connect again and continue from the cursor"


class ConnectionLimit(LimitFault):
    """Too many open connections, of the tenant or of one agent or person."""

    code, status, close = "connection_limit", 402, 4504
    text = "the limit {limit} is reached: {used} of {most} connections are open; close some first"


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


@dataclass(eq=False, repr=False)
class NotHeld(CallerFault):
    channel: str
    seq: int
    code, status = "not_held", 409
    text = (
        "this connection does not hold message {seq} of {channel}: its ack deadline has passed, it was given back, or another"
        " subscriber holds it; nothing was changed, and the message may be delivered again"
    )


class PullNotHeld(NotHeld):
    """An entry about a message of a pull. It has the code of `NotHeld`."""

    text = (
        "this agent does not hold message {seq} of {channel} by that receipt: its ack deadline has passed, or it was acknowledged"
        " or given back; nothing was changed, and the message may be delivered again"
    )


class AckBeyondLog(AckBeyondSent):
    """An ack without a connection. It has the code of `AckBeyondSent`."""

    text = "ack of {seq} on {channel}: the channel has no message above {sent}; the cursor has not moved"


# --- publishing -------------------------------------------------------------------------------------------------------


class KeyReused(CallerFault):
    code, status = "key_reused", 409
    text = "this key was used within 10 minutes for a message with other content; nothing was stored: use a new key"


class CauseNotFound(CallerFault):
    """A message named as the cause of another: missing, removed, or not visible to the publisher; the answers do not differ."""

    code, status = "cause_not_found", 422
    text = (
        "caused_by: there is no such message that you may receive or have published, or it is not kept any more; nothing was"
        " stored. Name a stored message by its channel and seq, or publish without caused_by if this message answers none"
    )


@dataclass(eq=False, repr=False)
class LoopStopped(LimitFault):
    """A message that answers others, in a chain that has reached a limit. `hops` is the number of messages before it."""

    chain: str = ""
    hops: int = 0
    code, status = "loop_stopped", 402
    text = (
        "the chain of answers {chain} has reached its limit of {most} {limit}, because agents keep answering each other; nothing"
        " was stored, and a repeat is refused too: a member of the tenant can release the chain ('artcafe chain release {chain}')"
    )


@dataclass(eq=False, repr=False)
class QuotaFull(LimitFault):
    """The tenant's messages take all the space that its limit `storage_bytes` gives them."""

    limit: str = "storage_bytes"
    code, status, temporary = "quota_full", 402, True
    text = (
        "the tenant's storage is full (its limit is storage_bytes); this message was not stored, and no older one was removed:"
        " wait until retention removes some, delete a channel, or get a higher limit"
    )


@dataclass(eq=False, repr=False)
class ScheduledLimit(CallerFault):
    limit: int
    code, status = "scheduled_limit", 409
    text = (
        "this tenant has {limit} scheduled messages, the most that it may have; nothing was stored: cancel some, or wait until"
        " some are delivered"
    )


@dataclass(eq=False, repr=False)
class AlreadyDelivered(CallerFault):
    """The cancellation of a scheduled message that came too late. `seq` is the message's in its channel."""

    seq: int
    code, status = "already_delivered", 409
    text = "the message was delivered before it could be cancelled; it is the channel's message {seq}"


class NotStored(OurFault):
    code = "not_stored"
    text = "the message was not stored; publish it again"


class OutcomeUnknown(OurFault):
    code, status = "outcome_unknown", 504
    text = "whether the message was stored is unknown; publishing it again with the same key is safe"


# --- requests between agents ------------------------------------------------------------------------------------------


class RequestFault(ArtcafeError):
    """A request to an agent that got no answer from it.

    `was_delivered`: True if the agent was sent the request, so it may have acted on it; False if it certainly was not; None if
    that is unknown. Nothing is repeated by itself: a repeat is a second request.
    """

    was_delivered: bool | None = None


@dataclass(eq=False, repr=False)
class AgentAway(RequestFault):
    """The agent is not connected to any server, or no connection of it takes requests."""

    agent: str
    code, status, temporary = "agent_away", 503, True
    text = "agent {agent!r} is not connected, or takes no requests; the request was not delivered"
    was_delivered = False


class AgentLeft(AgentAway):
    """The connection that had the request ended before its answer. It has the code of `AgentAway`."""

    text = "agent {agent!r} disconnected before it answered; whether it has acted on the request is unknown"
    was_delivered = True


@dataclass(eq=False, repr=False)
class AgentBusy(RequestFault):
    agent: str
    code, status, temporary = "agent_busy", 503, True
    text = "agent {agent!r} has as many requests as it takes at once; the request was not delivered, try again later"
    was_delivered = False


@dataclass(eq=False, repr=False)
class RequestTimedOut(RequestFault):
    timeout_s: float
    code, status, temporary = "timed_out", 504, True
    text = "no answer within {timeout_s:g} s; whether the agent has acted on the request is unknown"


@dataclass(eq=False, repr=False)
class RequestLost(RequestFault):
    """The way of the answer was lost. `problem` is a clause."""

    problem: str
    code, status, temporary = "request_lost", 503, True
    text = "{problem}; whether the agent has acted on the request is unknown"


class RequestCancelled(RequestFault):
    code, status = "cancelled", 409
    text = "the request was cancelled by its sender; whether the agent has acted on it is unknown"


class AnswersUnread(RequestFault):
    code, status = "answers_unread", 409
    text = "this connection does not read the answers to its request as fast as they arrive; the request was cancelled"
    was_delivered = True


@dataclass(eq=False, repr=False)
class AgentError(RequestFault):
    """The agent answered with an error of its own: its `agent_code` and message, which the server does not interpret."""

    agent_code: str
    message: str
    code, status, text = "agent_error", 502, "{message}"
    was_delivered = True


class NotPending(CallerFault):
    code, status = "not_pending", 409
    text = (
        "this socket has no such request to answer: it was answered, cancelled, timed out, or sent to another socket; nothing was"
        " passed on"
    )


@dataclass(eq=False, repr=False)
class TooManyPending(CallerFault):
    whose: str
    limit: int
    code, status, temporary = "too_many_pending", 429, True
    text = "{whose} has {limit} requests without an answer, the most at once; nothing was sent: wait for an answer and try again"


# --- the platform -----------------------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class Unavailable(OurFault):
    what: str
    code, text = "unavailable", "{what} cannot be reached now; nothing was changed, try again"


class Unanswered(Unavailable):
    """A write without an answer in time: it may have been done, and then completely. A retry is safe in either case."""

    text = "{what} did not answer in time; whether anything was changed is unknown, try again"


class TablesDenied(Unavailable):
    """The server lacks a permission on the tables, which its log names: the same call fails until its operator grants it."""

    text = "{what} deny this to the server, whose operator must grant it a permission; nothing was changed"


@dataclass(eq=False, repr=False)
class Overloaded(OurFault):
    what: str
    code, text = "overloaded", "this server has reached its limit of {what}; nothing was changed, try again"


class NatsConnectionLost(OurFault):
    """The connection to NATS was lost before the answer: whether the request took effect is unknown."""

    code = "link_lost"
    text = "the connection to the message log was lost before the answer arrived; whether the request took effect is unknown"


class NoResponder(OurFault):
    """NATS reported no responder for this subject: the request had no effect."""

    code, text = "no_responder", "the message log cannot answer this request now; nothing was changed, try again"


@dataclass(eq=False, repr=False)
class LogRefused(OurFault):
    """NATS refused a request about a log, for a reason that only an operator can remove."""

    error_code: int
    description: str
    code, text = "log_refused", "the message log refused the request: {description} ({error_code}); nothing was changed"


class ShuttingDown(OurFault):
    code, close = "shutting_down", 4000
    text = "this server is shutting down; connect again"


class LogRenewed(OurFault):
    code, close = "log_renewed", 4000
    text = "the message log was restored or created again; connect again: a gap reports lost messages, and the rest is delivered"


class EpochEnded(LogRenewed):
    """An ack of a message of an earlier log. It has the code of `LogRenewed`."""

    temporary = False
    text = (
        "the message log was restored or created again, and this ack may be of a message of the earlier one; the cursor has not"
        " moved: pull again, and send the epoch of that answer with its acks"
    )


class Internal(OurFault):
    code, status, temporary, close = "internal", 500, False, 4000
    text = "the server failed unexpectedly, and logged it under this request's id; whether anything was changed is unknown"


# --- starting up (never sent to a peer) -------------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class StartRefused(ArtcafeError):
    """The server does not start. `problem` and `remedy` are whole clauses for the person at the terminal."""

    problem: str
    remedy: str
    code, text = "start_refused", "{problem}\n  {remedy}"


class FolderInUse(StartRefused):
    """Another process holds the data folder."""


class PlansInvalid(StartRefused):
    """A catalogue of plans with faults, each a clause that begins with the place in the file."""

    def __init__(self, source: str, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        listed = "".join(f"\n  - {fault}" for fault in faults)
        super().__init__(
            f"{source} cannot be used:{listed}",
            "correct the file ('artcafe plans check FILE' reads it again), or unset ARTCAFE_PLANS_FILE for the shipped plans",
        )


@dataclass(eq=False, repr=False)
class ChainBroken(ArtcafeError):
    number: int
    problem: str
    code, text = "chain_broken", "entry {number} of the audit {problem}"


@dataclass(eq=False, repr=False)
class ArchiveRefused(ArtcafeError):
    """A backup or a restore was refused; nothing was changed. Both attributes are whole clauses, as in `StartRefused`."""

    problem: str
    remedy: str
    code, text = "archive_refused", "{problem}\n  {remedy}"


@dataclass(eq=False, repr=False)
class TablesRefused(ArtcafeError):
    """An operator's command on the tables was refused. Both attributes are whole clauses, as in `StartRefused`."""

    problem: str
    remedy: str
    code, text = "tables_refused", "{problem}\n  {remedy}"


@dataclass(eq=False, repr=False)
class TablesUnreachable(OurFault):
    """The same, if a retry can help."""

    problem: str
    remedy: str
    code, text = "tables_unreachable", "{problem}\n  {remedy}"


@dataclass(eq=False, repr=False)
class SettingInvalid(ArtcafeError):
    name: str
    problem: str
    code, text = "setting_invalid", "setting {name}: {problem}"


_RENAMED: Final = {"NoMember": "NotAMember", "TooFast": "RateLimited"}
"""Deprecated names, and the names that replace them."""


if not TYPE_CHECKING:  # A type checker that saw this function would accept any name.

    def __getattr__(name: str) -> object:
        """Return the error of a deprecated name, with a DeprecationWarning."""
        if name not in _RENAMED:
            raise AttributeError(f"module 'artcafe.errors' has no attribute {name!r}")
        warnings.warn(f"errors.{name} is deprecated: use errors.{_RENAMED[name]}", DeprecationWarning, stacklevel=2)
        return globals()[_RENAMED[name]]
