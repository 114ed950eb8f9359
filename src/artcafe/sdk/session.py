"""The agent's half of one connection, without I/O: the login, the frames in both directions, and the meaning of its end.

The order of frames is checked by `wire.session.ClientSession`. `sdk.connection` carries the frames and `sdk.keys` signs.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Final, Protocol
from urllib.parse import unquote

from artcafe import errors
from artcafe.errors import ArtcafeError, ChallengeRefused
from artcafe.sdk.inbox import Inbox
from artcafe.sdk.outbox import Outbox, Reply
from artcafe.wire import faults, frames, replies
from artcafe.wire.session import ClientSession, ClientState

log = logging.getLogger("artcafe")

MAX_LISTED_CHANNELS: Final = 10
"""Channels of an error that its log line names."""

CHALLENGE_ID: Final = 0
CONNECT_ID: Final = 1

CHALLENGE: Final = re.compile(
    r"artcafe login 1 service=(?P<service>\S+) tenant=(?P<tenant>\S+) agent=(?P<agent>\S+) challenge=(?P<challenge>\S+)"
    r" nonce=[0-9a-f]{64} expires=\S+"
)


class ConnectionLost(Exception):
    """A connection ended or could not be opened: `error` is the reason, `should_reconnect` whether a new one can succeed."""

    def __init__(self, error: ArtcafeError, *, should_reconnect: bool) -> None:
        super().__init__(str(error))
        self.error, self.should_reconnect = error, should_reconnect


class PushedRequests(Protocol):
    """The handler of the requests that the server pushes."""

    @property
    def max_requests(self) -> int:
        """How many requests without an answer the connection takes."""

    def on_push(self, frame: replies.Incoming) -> None:
        """Handle a `request` or `cancel` push."""

    def on_connection_lost(self) -> None:
        """Stop answering: a new connection cannot answer the requests of an older one."""


class Session:
    """One connection of an agent, from its first frame. A frame out of turn raises `BadFrame`."""

    def __init__(
        self,
        tenant: str,
        agent: str,
        max_unacked: int | None,
        outbox: Outbox,
        inbox: Inbox,
        service: str | None = None,
        answering: PushedRequests | None = None,
        takes_queues: bool = True,
    ) -> None:
        """`service` is the only service to sign a challenge of; None accepts any service, and records it here. `answering`
        handles requests of others; without it, none are taken. `takes_queues`: whether messages of queues are delivered."""
        self.service = service
        self._tenant, self._agent, self._max_unacked = tenant, agent, max_unacked
        self._outbox, self._inbox, self._answering, self._takes_queues = outbox, inbox, answering, takes_queues
        self._wire = ClientSession()
        self._challenge: replies.ChallengeReply | None = None
        self.limits: Mapping[str, int] = {}
        self._is_warned = False
        self._last_reported = ""
        self.last_error: ArtcafeError | None = None
        """The last error that the server pushed: the reason of a close that follows with its code."""

    @property
    def is_connected(self) -> bool:
        """Whether the login has succeeded."""
        return self._wire.state is ClientState.CONNECTED

    # --- the login ---

    def request_challenge(self) -> bytes:
        """Return the first frame, a `challenge` command."""
        return self._wire.send("challenge", frames.Challenge(self._tenant, self._agent), CHALLENGE_ID)

    @property
    def to_sign(self) -> str | None:
        """The text of the challenge, from its arrival until `prove`.

        Raises `ChallengeRefused` for a text that is not a login of this agent: the signature must not be usable for anything
        else.
        """
        if self._wire.state is not ClientState.CHALLENGED or self._challenge is None:
            return None
        reply = self._challenge
        self.service = check_challenge(reply.challenge, reply.challenge_id, self._tenant, self._agent, self.service)
        return reply.challenge

    def prove(self, signature: str) -> bytes:
        """Return the second frame, a `connect` command with the armored signature of `to_sign`."""
        assert self._challenge is not None, "the challenge has arrived"
        proof = frames.Connect(
            challenge_id=self._challenge.challenge_id,
            signature=signature,
            max_unacked=self._max_unacked,
            max_requests=0 if self._answering is None else self._answering.max_requests,
            queues=self._takes_queues,
        )
        return self._wire.send("connect", proof, CONNECT_ID)

    # --- after the login ---

    def receive(self, payload: bytes, now: float) -> None:
        """Handle a frame of the server. `now` is monotonic, in seconds.

        Raises `BadFrame` for a frame that is malformed or out of turn, and `ConnectionLost` for a refused login.
        """
        was_connected = self.is_connected
        kind, frame = self._wire.receive(payload)
        if frame.error is not None:
            self._on_error(frame.id, frame.error, now, is_login=not was_connected)
        elif frame.message is not None:
            self._inbox.on_message(frame.message)
        elif frame.gap is not None:
            self._inbox.on_gap(frame.gap.channel, frame.gap, frame.gap.epoch)
        elif frame.receipt is not None:
            self._outbox.receipts.on_push(frame.receipt)
        elif frame.moved is not None:
            self._inbox.on_moved(frame.moved)
        elif frame.challenge is not None:
            self._challenge = frame.challenge
        elif frame.connect is not None:
            self.limits = frame.connect.limits
        elif frame.limits is not None:
            self._outbox.limits[frame.limits.name] = frame.limits
        elif frame.id is None and self._answering is not None and (frame.request or frame.cancel):
            self._answering.on_push(frame)
        else:
            self._on_reply(kind, frame)

    def due(self, now: float) -> list[bytes]:
        """Return the frames to send now, and count them as sent. Empty before the login has succeeded."""
        if not self.is_connected:
            return []
        # Acks leave before a `subscribe`: they move the cursor at which its delivery begins.
        acks = [self._wire.send("ack", ack) for ack in self._inbox.acks(self._outbox.subscribing)]
        acks += [self._wire.send("cancel", cancel) for cancel in self._outbox.cancels()]
        return acks + [self._wire.send(command.kind, command.body, command.id) for command in self._outbox.due(now)]

    def _on_reply(self, kind: str | None, frame: replies.Incoming) -> None:
        reply: Reply | None = frame.publish or frame.subscribe or frame.unsubscribe or frame.status or frame.history
        reply = reply or frame.nak or frame.extend or frame.request or frame.reply or frame.accept
        if kind is not None and reply is not None and frame.id is not None:
            self._outbox.on_reply(frame.id, kind, reply)
        elif frame.id is None and not self._is_warned:
            self._is_warned = True
            log.warning("the server sent a frame that this version of the SDK does not know; it was ignored")

    def _on_error(self, id: int | None, body: replies.ErrorBody, now: float, *, is_login: bool) -> None:
        error = faults.fault_of(
            body.code, body.message, body.limit, body.chain, body.hops, body.retry_after_s, body.delivered, body.agent_code
        )
        if body.limit is not None:
            self._outbox.limits[body.limit.name] = body.limit
        if is_login:
            can_help = body.temporary or (error.close is not None and should_reconnect(error.close))
            raise ConnectionLost(error, should_reconnect=can_help)
        if id is None:
            self.last_error = error
            self._report(f"{error}{_listed(body.channels)}")
        else:
            self._outbox.on_error(id, error, temporary=body.temporary, now=now)

    def _report(self, text: str) -> None:
        """Log a pushed error, since no call waits for it. Repeats are skipped: each ack of a paused channel causes the same
        one."""
        if text != self._last_reported:
            self._last_reported = text
            log.warning("the server reports: %s", text)


def _listed(channels: Sequence[str]) -> str:
    if not channels:
        return ""
    more = f" and {len(channels) - MAX_LISTED_CHANNELS} more" if len(channels) > MAX_LISTED_CHANNELS else ""
    return f" ({', '.join(channels[:MAX_LISTED_CHANNELS])}{more})"


def check_challenge(text: str, challenge_id: str, tenant: str, agent: str, service: str | None = None) -> str:
    """Return the service of a challenge, after checking that its text is a login of this agent at this service.

    Raises `ChallengeRefused` for any other text, and for another service than `service` if that is given. A signature is valid
    for the service in the text, whoever passed the challenge on, so an agent must not sign for a service that it does not mean.
    """
    form = CHALLENGE.fullmatch(text)
    if form is None:
        raise ChallengeRefused("it does not have the form of an ArtCafe login")
    for name, expected in (("tenant", tenant), ("agent", agent), ("challenge", challenge_id), ("service", service)):
        found = unquote(form[name])  # The text has ids percent-encoded.
        if expected is not None and found != expected:
            raise ChallengeRefused(f"it names the {name} {found!r}, not {expected!r}")
    return unquote(form["service"])


# --- the end of a connection --------------------------------------------------------------------------------------------

CLOSE_ERRORS: Final[Mapping[int, type[ArtcafeError]]] = {
    4000: errors.ShuttingDown,
    4001: errors.CredentialsExpired,
    4008: errors.SlowConsumer,
    4012: errors.NoPong,
    4029: errors.RateLimited,
    4500: errors.BadCredentials,
    4501: errors.BadFrame,
    4502: errors.ConnectTimeout,
    4503: errors.Revoked,
    4504: errors.ConnectionLimit,
    4506: errors.TenantSuspended,
}

PROTOCOL_ERRORS: Final = frozenset({1002, 1003, 1007, 1009, 1010})
"""Close codes of RFC 6455, section 7.4.1, for a disagreement about the protocol: a new connection would end alike."""


def should_reconnect(code: int) -> bool:
    """Return whether a new connection can succeed after this close code. 1005 and 1006 stand for a connection without one."""
    return code not in PROTOCOL_ERRORS and not 4500 <= code <= 4999


def lost_by_close(code: int, reason: str, last_error: ArtcafeError | None) -> ConnectionLost:
    """Return the meaning of a close frame. `last_error` is the last error that the server pushed."""
    if last_error is not None and last_error.close == code:
        return ConnectionLost(last_error, should_reconnect=should_reconnect(code))
    if code in CLOSE_ERRORS:
        error = _error_of_close(code, reason)
    elif 4000 <= code <= 4999 or code in PROTOCOL_ERRORS:
        error = errors.UnknownError.from_text(f"the gateway closed the connection with {code}: {reason or 'no reason given'}")
    else:
        error = errors.Unavailable(f"the gateway (it closed with {code}{': ' + reason if reason else ''})")
    return ConnectionLost(error, should_reconnect=should_reconnect(code))


def _error_of_close(code: int, reason: str) -> ArtcafeError:
    """Return the error of one of our close codes, with the reason of the frame.

    A close frame has room for 123 bytes of reason. If these are the beginning of a text that this version knows, return that
    error with its whole text.
    """
    candidates = [kind for kind in errors.REGISTRY.values() if kind.close == code and "{" not in kind.text]
    default = CLOSE_ERRORS[code]
    if reason:
        known = next((kind for kind in candidates if kind.text.startswith(reason)), None)
        return known() if known else default.from_text(reason)
    return default() if default in candidates else default.from_text(f"the gateway closed with {code}")
