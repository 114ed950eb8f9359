"""A summary, an example and the errors of each frame, for the AsyncAPI document (`rest.asyncapi`) and docs/frames.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from artcafe import errors
from artcafe.errors import ArtcafeError

Kinds = tuple[type[ArtcafeError], ...]


class FrameDoc(NamedTuple):
    """Documentation of a frame beyond its type: a summary, an example, and for a command an example reply and specific errors."""

    summary: str
    example: Mapping[str, Any]
    reply: Mapping[str, Any] | None = None
    errors: Kinds = ()


CHANNEL_ERRORS: Final[Kinds] = (errors.ChannelNotFound, errors.Forbidden, errors.Unavailable)

COMMANDS: Final[Mapping[str, FrameDoc]] = {
    "challenge": FrameDoc(
        "Request a challenge to sign, for a login on this connection.",
        {"tenant_id": "ten_01M8", "agent_id": "agt_01M8"},
        {
            "challenge_id": "chl_01M8",
            "challenge": "artcafe login 1 service=artcafe:prod:1c58 tenant=ten_01M8 agent=agt_01M8 challenge=chl_01M8 …",
            "expires_at": "2026-11-22T17:55:10.000Z",
        },
        (errors.RateLimited,),
    ),
    "connect": FrameDoc(
        "Log in by the signature of a challenge or by an access token, or renew the token. A failure closes the connection.",
        {"challenge_id": "chl_01M8", "signature": "-----BEGIN SSH SIGNATURE-----\n…\n-----END SSH SIGNATURE-----\n"},
        {
            "session_id": "ses_01M8",
            "agent_id": "agt_01M8",
            "tenant_id": "ten_01M8",
            "ping_s": 25,
            "limits": {"frame_bytes": 65536, "json_depth": 32, "subscriptions": 128},
        },
        (
            errors.BadCredentials,
            errors.NotAMember,
            errors.CredentialsExpired,
            errors.Revoked,
            errors.TenantSuspended,
            errors.TermsRequired,
            errors.Unauthenticated,
            errors.ConnectionLimit,
            errors.Unavailable,
        ),
    ),
    "publish": FrameDoc(
        "Publish a message to a channel. The reply is sent once the message is on disk.",
        {
            "channel": "chn_01M8",
            "data": {"task": "summarise"},
            "key": "order-42",
            "headers": {"trace": "7f3a"},
            "caused_by": {"channel": "chn_01M7", "seq": 41},
        },
        {"seq": 59, "message_id": "msg_01M8", "duplicate": False, "subscribers": 3, "connected": 2},
        (
            *CHANNEL_ERRORS,
            errors.Invalid,
            errors.TooLarge,
            errors.LimitReached,
            errors.RateExceeded,
            errors.ScheduledLimit,
            errors.KeyReused,
            errors.CauseNotFound,
            errors.LoopStopped,
            errors.QuotaFull,
            errors.LogRefused,
            errors.NotStored,
            errors.OutcomeUnknown,
        ),
    ),
    "subscribe": FrameDoc(
        "Start delivery of a channel, and create the subscription if it does not exist.",
        {"channel": "chn_01M8", "from": "cursor", "max_unacked": 64},
        {"epoch": "01M825XBWF4S8NAK4DV9X03YBS", "cursor": 41, "last": 59, "gap": None},
        (*CHANNEL_ERRORS, errors.Conflict, errors.Invalid, errors.LimitReached, errors.SubscriptionLimit),
    ),
    "unsubscribe": FrameDoc(
        "Stop delivery of a channel on this connection. The subscription remains.",
        {"channel": "chn_01M8"},
        {"channel": "chn_01M8"},
        (errors.NotSubscribed,),
    ),
    "ack": FrameDoc(
        "Acknowledge a channel's messages up to a sequence; in a `queue` channel, one message. It has no id and no reply; an"
        " error is pushed.",
        {"channel": "chn_01M8", "seq": 42},
        None,
        (errors.AckBeyondSent, errors.Forbidden, errors.NotHeld, errors.NotSubscribed),
    ),
    "nak": FrameDoc(
        "Give back a message of a `queue` channel that this connection holds, to be delivered again; or, with `dead`, to be moved"
        " to the dead-letter channel.",
        {"channel": "chn_01M8", "seq": 42, "delay_s": 5},
        {"channel": "chn_01M8", "seq": 42},
        (errors.Forbidden, errors.NotHeld, errors.NotSubscribed),
    ),
    "extend": FrameDoc(
        "Let the ack deadline of a message of a `queue` channel begin again. This connection must hold it.",
        {"channel": "chn_01M8", "seq": 42},
        {"channel": "chn_01M8", "seq": 42, "ack_wait_s": 30},
        (errors.Forbidden, errors.NotHeld, errors.NotSubscribed, errors.Unavailable),
    ),
    "status": FrameDoc(
        "Set the status in the agent's presence until its last connection ends. Null removes it.",
        {"status": "busy"},
        {"status": "busy"},
        (errors.Forbidden, errors.Invalid),
    ),
    "history": FrameDoc(
        "Read the stored messages of a channel without a subscription: from a sequence or a time on, or backward from the end.",
        {"channel": "chn_01M8", "after": 41, "limit": 2},
        {
            "messages": [
                {
                    "channel": "chn_01M8",
                    "seq": 42,
                    "message_id": "msg_01M8",
                    "from": "agt_01M9",
                    "time": "2026-11-22T17:50:19.894Z",
                    "headers": {},
                    "data": {"task": "summarise"},
                }
            ],
            "gap": None,
            "more": False,
            "epoch": "01M825XBWF4S8NAK4DV9X03YBS",
        },
        (*CHANNEL_ERRORS, errors.Invalid),
    ),
    "watch": FrameDoc(
        "For people: receive a channel's new messages, each at most once, or the presence of the tenant's agents.",
        {"channel": "chn_01M8"},
        {"channel": "chn_01M8"},
        (*CHANNEL_ERRORS, errors.SubscriptionLimit),
    ),
    "unwatch": FrameDoc(
        "For people: stop watching on this connection.",
        {"presence": True},
        {"presence": True},
        (errors.Forbidden, errors.NotSubscribed),
    ),
    "request": FrameDoc(
        "Send a request to an agent of the tenant, at most once. Each answer has the command's id, and the last one a `more` of"
        " false.",
        {"agent": "agt_01M8", "data": {"task": "summarise"}, "timeout_s": 5, "headers": {"trace": "7f3a"}, "max_replies": 1},
        {"request_id": "ask_01M8", "from": "agt_01M8", "more": False, "data": {"text": "…"}},
        (
            errors.AgentNotFound,
            errors.AgentAway,
            errors.AgentBusy,
            errors.AgentError,
            errors.RequestTimedOut,
            errors.RequestCancelled,
            errors.RequestLost,
            errors.AnswersUnread,
            errors.TooManyPending,
            errors.Forbidden,
            errors.Invalid,
            errors.TooLarge,
            errors.LimitReached,
            errors.RateExceeded,
            errors.Unavailable,
        ),
    ),
    "reply": FrameDoc(
        "Answer a request that this connection was sent, with data or an error. `more`: further answers follow.",
        {"request_id": "ask_01M8", "data": {"text": "…"}, "more": False},
        {"request_id": "ask_01M8"},
        (
            errors.NotPending,
            errors.Forbidden,
            errors.Invalid,
            errors.TooLarge,
            errors.LimitReached,
            errors.Unavailable,
        ),
    ),
    "cancel": FrameDoc(
        "Cancel a request of this connection, by the id of its command. It has no id of its own and no reply: the request is"
        " answered with `cancelled`, unless its last answer is under way.",
        {"id": 5},
        None,
        (errors.Forbidden,),
    ),
    "accept": FrameDoc(
        "Set how many requests without an answer this connection takes at once; 0 for none.",
        {"max_requests": 16},
        {"max_requests": 16},
        (errors.Forbidden,),
    ),
}
"""Documentation of every command of `frames.Command`."""

PUSHES: Final[Mapping[str, FrameDoc]] = {
    "message": FrameDoc(
        "A message of a channel, delivered to this connection.",
        {
            "channel": "chn_01M8",
            "seq": 42,
            "prev": 41,
            "message_id": "msg_01M8",
            "from": "agt_01M9",
            "time": "2026-11-22T17:50:19.894Z",
            "caused_by": "msg_01M7",
            "hops": 2,
            "chain": "msg_01M6",
            "headers": {"trace": "7f3a"},
            "data": {"task": "summarise"},
        },
    ),
    "gap": FrameDoc(
        "A range of messages that will not be delivered. No message is skipped without a gap.",
        {"channel": "chn_01M8", "from": 42, "to": None, "reason": "epoch"},
    ),
    "presence": FrameDoc(
        "The presence of an agent, for people who watch it: once for each agent connected at the start, then after each change.",
        {"agent": "agt_01M8", "connected": True, "status": "busy", "since": "2026-11-22T17:50:19.894Z"},
    ),
    "receipt": FrameDoc(
        "What became of a message for its recipients, for a publisher that requested a receipt.",
        {
            "channel": "chn_01M8",
            "seq": 59,
            "message_id": "msg_01M8",
            "receipt": "acked",
            "recipients": [
                {"agent": "agt_01M8", "state": "acked"},
                {"agent": "agt_01M9", "state": "away", "last_seen": "2026-11-22T16:50:19.894Z"},
            ],
            "open": 1,
            "final": True,
            "reason": "deadline",
        },
    ),
    "moved": FrameDoc(
        "Delivery begins where a request has moved the subscription's cursor, forward or back. Earlier acks are void.",
        {"channel": "chn_01M8", "epoch": "01M825XBWF4S8NAK4DV9X03YBS", "cursor": 41, "moves": 1},
    ),
    "limits": FrameDoc(
        "A limit of the tenant of which 80 % or 100 % is used, for a connection that uses it: by a publish, or by connecting.",
        {
            "name": "messages_a_minute",
            "limit": 6000,
            "used": 4803,
            "left": 1197,
            "resets_at": "2026-11-22T17:51:03.000Z",
            "percent": 80,
        },
    ),
    "request": FrameDoc(
        "A request of another agent or a person, for one connection of this agent. Answer it by `reply`, before its deadline.",
        {
            "request_id": "ask_01M8",
            "from": "agt_01M9",
            "headers": {"trace": "7f3a"},
            "deadline": "2026-11-22T17:50:24.894Z",
            "data": {"task": "summarise"},
        },
    ),
    "cancel": FrameDoc(
        "A request that needs no answer any more: `cancelled` or `asker_away` by its sender, `timed_out`, or `max_replies` after"
        " the last answer that its sender takes.",
        {"request_id": "ask_01M8", "reason": "cancelled"},
    ),
    "error": FrameDoc(
        "An error that does not answer a command with an id.",
        {
            "code": "not_subscribed",
            "message": "this socket does not receive 'chn_01M8'; subscribe to it first",
            "temporary": False,
        },
        errors=(errors.SubscriptionLimit,),
    ),
}
"""Documentation of every frame of `replies.Incoming` that is not a reply."""
