"""The client's half of one connection as a state machine: frames in, frames out, transitions as a table, and what its end means.

No sockets and no signing: `sdk.agent` carries the frames and `sdk.keys` signs.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final
from urllib.parse import unquote

from artcafe import errors
from artcafe.errors import ArtcafeError, ChallengeRefused
from artcafe.sdk.inbox import Inbox
from artcafe.sdk.outbox import Outbox, Reply
from artcafe.wire import frames, replies

log = logging.getLogger("artcafe")


class Phase(Enum):
    """How far the login has come."""

    NEW = "new"
    ASKED = "asked for a challenge"
    CHALLENGED = "has one to sign"
    SIGNED = "sent the proof"
    LIVE = "logged in"


NEXT: Final[Mapping[tuple[Phase, str], Phase]] = {
    (Phase.NEW, "ask"): Phase.ASKED,
    (Phase.ASKED, "challenge"): Phase.CHALLENGED,
    (Phase.CHALLENGED, "sign"): Phase.SIGNED,
    (Phase.SIGNED, "connect"): Phase.LIVE,
    (Phase.LIVE, "reply"): Phase.LIVE,
    (Phase.LIVE, "message"): Phase.LIVE,
    (Phase.LIVE, "gap"): Phase.LIVE,
}

LISTED: Final = 10
"""Channels of an error that its line in the log names."""

CHALLENGE_ID: Final = 0
CONNECT_ID: Final = 1

CHALLENGE: Final = re.compile(
    r"artcafe login 1 service=(?P<service>\S+) tenant=(?P<tenant>\S+) agent=(?P<agent>\S+) challenge=(?P<challenge>\S+)"
    r" nonce=[0-9a-f]{64} expires=\S+"
)


class ConnectionLost(Exception):
    """A connection that ended or did not come about: why, and whether another one can do better."""

    def __init__(self, error: ArtcafeError, *, should_reconnect: bool) -> None:
        super().__init__(str(error))
        self.error, self.should_reconnect = error, should_reconnect


class Session:
    """One connection of an agent, from the first frame on. A frame that has no place in the conversation raises `BadFrame`."""

    def __init__(
        self, tenant: str, agent: str, max_unacked: int | None, outbox: Outbox, inbox: Inbox, service: str | None = None
    ) -> None:
        """`service` is the only one whose challenge is signed; None: any, which stands there afterwards."""
        self.service = service
        self._tenant, self._agent, self._max_unacked = tenant, agent, max_unacked
        self._outbox, self._inbox = outbox, inbox
        self._challenge: replies.ChallengeReply | None = None
        self.phase = Phase.NEW
        self.limits: Mapping[str, int] = {}
        self._is_warned = False
        self._reported = ""
        self.told: ArtcafeError | None = None
        """The last error that the server told without its being an answer: why it closes, where it closes next."""

    # --- the login ---

    def ask(self) -> bytes:
        """The first frame: asks for a challenge."""
        self._go("ask")
        return frames.command("challenge", frames.Challenge(self._tenant, self._agent), CHALLENGE_ID)

    @property
    def to_sign(self) -> str | None:
        """The challenge's text, once it is there and until `prove`.

        Raises `ChallengeRefused` for a text that is no login of this agent: what is signed must be good for nothing else.
        """
        if self.phase is not Phase.CHALLENGED or self._challenge is None:
            return None
        posed = self._challenge
        self.service = check_challenge(posed.challenge, posed.challenge_id, self._tenant, self._agent, self.service)
        return posed.challenge

    def prove(self, signature: str) -> bytes:
        """The second frame: the armored signature of `to_sign`."""
        self._go("sign")
        assert self._challenge is not None
        proof = frames.Connect(challenge_id=self._challenge.challenge_id, signature=signature, max_unacked=self._max_unacked)
        return frames.command("connect", proof, CONNECT_ID)

    # --- after it ---

    def receive(self, payload: bytes, now: float) -> None:
        """A frame of the server; `now` is monotonic, in seconds.

        Raises `BadFrame` for one that has no place here, and `ConnectionLost` for a login that was refused.
        """
        frame = replies.parse_incoming(payload)
        if frame.error is not None:
            self._refused(frame.id, frame.error, now)
        elif frame.message is not None:
            self._go("message")
            self._inbox.message(frame.message)
        elif frame.gap is not None:
            self._go("gap")
            self._inbox.gap(frame.gap.channel, frame.gap, frame.gap.epoch)
        elif frame.challenge is not None:
            self._go("challenge")
            self._challenge = frame.challenge
        elif frame.connect is not None:
            self._go("connect")
            self.limits = frame.connect.limits
        else:
            self._answered(frame)

    def due(self, now: float) -> list[bytes]:
        """The frames to send now; they count as sent."""
        if self.phase is not Phase.LIVE:
            return []
        acks = self._inbox.acks(self._outbox.subscribing)  # Before a `subscribe`, whose place to begin they move.
        return [*acks, *self._outbox.due(now)]

    def _go(self, event: str) -> None:
        after = NEXT.get((self.phase, event))
        if after is None:
            raise errors.BadFrame(f"{event} is out of turn for an agent that {self.phase.value}", example="a frame in its turn")
        self.phase = after

    def _answered(self, frame: replies.Incoming) -> None:
        by_kind: dict[str, Reply | None] = {
            "publish": frame.publish,
            "subscribe": frame.subscribe,
            "unsubscribe": frame.unsubscribe,
            "status": frame.status,
            "history": frame.history,
        }
        for kind, reply in by_kind.items():
            if reply is not None and frame.id is not None:
                self._go("reply")
                self._outbox.answered(frame.id, kind, reply)
                return
        if frame.id is None and not self._is_warned:
            self._is_warned = True
            log.warning("the server sent a frame that this version of the SDK does not know; it was ignored")

    def _refused(self, id: int | None, body: replies.ErrorBody, now: float) -> None:
        error = errors.from_wire(body.code, body.message)
        if self.phase is not Phase.LIVE:
            raise ConnectionLost(
                error, should_reconnect=body.temporary or (error.close is not None and should_reconnect(error.close))
            )
        if id is None:
            self.told = error
            self._report(f"{error}{_listed(body.channels)}")
        else:
            self._outbox.refused(id, error, temporary=body.temporary, now=now)

    def _report(self, text: str) -> None:
        """Log an error push: nobody waits for it. Once in a row, since an ack of a paused channel is refused each time."""
        if text != self._reported:
            self._reported = text
            log.warning("the server reports: %s", text)


def _listed(channels: Sequence[str]) -> str:
    if not channels:
        return ""
    more = f" and {len(channels) - LISTED} more" if len(channels) > LISTED else ""
    return f" ({', '.join(channels[:LISTED])}{more})"


def check_challenge(text: str, challenge_id: str, tenant: str, agent: str, service: str | None = None) -> str:
    """Return the service that poses a challenge, once it is a login of this agent there, in the one form that there is.

    Raises `ChallengeRefused` for any other text, and for another service than `service` where that is given. A signature is good
    for the service that it names, whoever asked for it, so an agent that means another one must not give it.
    """
    form = CHALLENGE.fullmatch(text)
    if form is None:
        raise ChallengeRefused("it is not of the form that an ArtCafe login has")
    for name, expected in (("tenant", tenant), ("agent", agent), ("challenge", challenge_id), ("service", service)):
        found = unquote(form[name])  # Ids are percent-encoded there.
        if expected is not None and found != expected:
            raise ChallengeRefused(f"it names the {name} {found!r}, not {expected!r}")
    return unquote(form["service"])


# --- how a connection ends ---------------------------------------------------------------------------------------------

ENDS: Final[Mapping[int, type[ArtcafeError]]] = {
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

DISAGREEMENTS: Final = frozenset({1002, 1003, 1007, 1009, 1010})
"""The codes of RFC 6455, section 7.4.1, that say that the two ends do not speak alike: the next connection would end so too."""


def should_reconnect(code: int) -> bool:
    """Whether another connection can do better than one that was closed with this code. 1005 and 1006 mean: without one."""
    return code not in DISAGREEMENTS and not 4500 <= code <= 4999


def end(code: int, reason: str, told: ArtcafeError | None) -> ConnectionLost:
    """What it means that a connection was closed with `code`. `told` is the last error that the server pushed."""
    if told is not None and told.close == code:
        return ConnectionLost(told, should_reconnect=should_reconnect(code))
    if code in ENDS:
        error = _named(code, reason)
    elif 4000 <= code <= 4999 or code in DISAGREEMENTS:
        error = errors.UnknownError.from_text(f"the gateway closed the connection with {code}: {reason or 'no reason given'}")
    else:
        error = errors.Unavailable(f"the gateway (it closed with {code}{': ' + reason if reason else ''})")
    return ConnectionLost(error, should_reconnect=should_reconnect(code))


def _named(code: int, reason: str) -> ArtcafeError:
    """The error of a close code of ours, with the reason that the frame gives. A close frame has room for 123 bytes of it; where
    they are the beginning of a text that this end knows, it is that error, with the whole text."""
    alike = [kind for kind in errors.REGISTRY.values() if kind.close == code and "{" not in kind.text]
    if reason:
        known = next((kind for kind in alike if kind.text.startswith(reason)), None)
        return known() if known else ENDS[code].from_text(reason)
    return ENDS[code]() if ENDS[code] in alike else ENDS[code].from_text(f"the gateway closed with {code}")
