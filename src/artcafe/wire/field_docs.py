"""One sentence for each field of a frame, for authors of clients: docs/frames.md and /asyncapi.json show them.

A key is a field's name on the wire, or `Struct.field` for a field with another meaning in that struct.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FIELD_DOCS: Final[Mapping[str, str]] = {
    "access_token": "An agent's or a person's token. Do not combine it with `challenge_id` and `signature`.",
    "ack_wait_s": "The seconds from now in which the message must be acknowledged or extended again.",
    "after": "Oldest first, above this sequence, or stored from this RFC 3339 time on. Without it newest first.",
    "agent": "The agent's id.",
    "Request.agent": "The handle or id of the agent to ask.",
    "agent_code": "In `agent_error`: the code that the agent chose. Otherwise absent.",
    "agent_id": "The agent's id.",
    "ConnectReply.agent_id": "The connected agent; absent for a person.",
    "before": "Only messages below this sequence, or stored before this RFC 3339 time.",
    "caused_by": "The id of the message that this one answers; absent if it answers none.",
    "Publish.caused_by": (
        "The message that this one answers: its channel and sequence, or its id. It must be one that the publisher may receive or"
        " has published."
    ),
    "chain": "The id of the first message of the chain of answers; absent for that message itself.",
    "ErrorBody.chain": "In `loop_stopped`: the id of the chain. Otherwise absent.",
    "ErrorBody.hops": "In `loop_stopped`: the number of messages before the refused one. Otherwise absent.",
    "Cause.channel": "The channel of the answered message.",
    "Cause.message_id": "The id that the message must have; a restored log may have another one at this sequence.",
    "Cause.seq": "The sequence of the answered message.",
    "challenge": "The text to sign, exactly as it is.",
    "challenge_id": "The challenge's id. It is valid for one attempt on the connection that requested it.",
    "Connect.challenge_id": "The signed challenge, one of this connection's.",
    "channel": "The channel's id or handle, not its name.",
    "Message.channel": "The channel's id.",
    "PastMessage.channel": "The channel's id.",
    "GapPush.channel": "The channel's id.",
    "SubscribeReply.channel": "The channel's id.",
    "UnsubscribeReply.channel": "The channel's id.",
    "channel_handle": "The channel's handle at present; absent for a channel of an older system without one.",
    "Watch.channel": "A channel whose new messages are pushed. Give either this or `presence`.",
    "Unwatch.channel": "A channel to stop watching. Give either this or `presence`.",
    "WatchReply.channel": "The watched channel; absent for the presence of agents.",
    "UnwatchReply.channel": "The channel that is not watched any more; absent for the presence of agents.",
    "channels": "In a `subscription_limit` push: the subscriptions that this connection does not deliver. Otherwise absent.",
    "AgentFault.code": "The agent's own code; the asker gets it as `agent_code`.",
    "AgentFault.message": "The error's description; the asker gets it as the `message` of `agent_error`.",
    "connected": "Whether the agent is connected now, to any server.",
    "PublishReply.connected": "How many of these agents are connected now, to any server; null if it is not known.",
    "code": "The error code, for programs (docs/errors.md).",
    "cursor": "Delivery continues after this sequence. Null for a `live` and a `queue` channel.",
    "data": "Any JSON, with numbers below 1.8e308; it is stored and delivered as the same text.",
    "dead": "Whether the message moves to the dead-letter channel, and is not delivered again.",
    "dead_letter": "The message of a queue that this dead letter was, and why it was moved. Absent in other messages.",
    "DeadLetter.channel": "The queue.",
    "DeadLetter.seq": "The message's sequence in the queue.",
    "DeadLetter.message_id": "The message's id in the queue.",
    "DeadLetter.reason": "`max_deliveries`, `rejected` (by its holder) or `expired`.",
    "DeadLetter.deliveries": "How often the message was delivered.",
    "DeadLetter.time": "The time of the move.",
    "deliver_at": "The time at which the message was to be delivered; absent if it was not scheduled.",
    "Publish.deliver_at": (
        "An RFC 3339 time, at most 30 days ahead, at which the message is delivered to the channel. Until then it has no `seq`,"
        " and can be listed and cancelled over REST. Not in a `live` channel."
    ),
    "delay_s": (
        "The seconds until the message is delivered again, at most 86,400; 0: at once. Absent or null: the channel's `back_off`."
    ),
    "deliveries": (
        "In a `queue` channel: how often the message was delivered, this time included; the connection holds it. Absent"
        " otherwise."
    ),
    "Request.data": "Any JSON, with numbers below 1.8e308; it is passed on as the same text.",
    "RequestPush.data": "The request's or answer's JSON; absent in an answer that only ends the answers.",
    "Reply.data": "The answer, any JSON as in a publish. Without `data` and `error`, a reply ends the answers.",
    "deadline": "In a push: the time from which on no answer counts. Absent in an answer.",
    "delivered": (
        "In errors of requests: true if the agent was sent the request, so it may have acted on it; false if it certainly was"
        " not. Absent if that is unknown."
    ),
    "duplicate": "Whether a message with this key was stored before; then nothing was stored now.",
    "error": "The error with which the agent answers instead of `data`.",
    "epoch": "The epoch of the tenant's log, in which the sequences are valid; null before its first message.",
    "SubscribeReply.epoch": (
        "The epoch of the tenant's log, in which the sequences are valid; null before its first message, and for a `live` and a"
        " `queue` channel."
    ),
    "GapPush.epoch": "The epoch of the new log, if the log was replaced.",
    "ChallengeReply.expires_at": "The end of the challenge's validity.",
    "expires_at": "The time from which the message is not delivered any more; absent if it does not expire.",
    "Publish.expires_at": (
        "An RFC 3339 time from which the message is not delivered any more: a gap with the reason `expired` takes its place. Not"
        " in a `live` channel."
    ),
    "from": "The publisher, as authenticated by the server: an agent's id, or `usr:` and a person.",
    "from_handle": "The agent's handle when it published, for display; absent for a person, or without one.",
    "RequestPush.from": "The sender of the request, or in an answer the agent: an agent's id, or `usr:` and a person.",
    "Gap.from": "The first missing sequence.",
    "GapPush.from": "The first missing sequence.",
    "Subscribe.from": (
        "The start of delivery: `cursor` (after the last acknowledged message), `new` (after the newest message), `first` (the"
        " oldest stored message), or a sequence. A `queue` channel accepts only `cursor`."
    ),
    "gap": "The missing part of the requested range; null if nothing is missing.",
    "headers": "Text by name, passed on unchanged.",
    "RequestPush.headers": "In a push: text by name, passed on unchanged. Absent in an answer.",
    "Cancel.id": "The id of the `request` command to cancel.",
    "hops": "The number of messages before this one in its chain of answers; absent for the first message, which has none.",
    "key": "Idempotency key: a repeat by the same agent in the same channel within 10 minutes stores nothing.",
    "last": "The sequence of the channel's newest message, or 0. Null for a `live` and a `queue` channel.",
    "left": "What is left of the limit; null if it is unknown or unlimited.",
    "limit": "The maximum number of messages.",
    "ErrorBody.limit": "The limit that refused the command, in errors of limits. Otherwise absent.",
    "LimitState.limit": "The limit's number; null if it is unlimited, or unknown in an error.",
    "limits": "The limits of this connection: `frame_bytes`, `json_depth` and `subscriptions`.",
    "max_unacked": (
        "Maximum number of unacknowledged messages; the server then waits for an ack. Null: it does not wait; in a `queue`"
        " channel, 1."
    ),
    "max_replies": "The most answers with data; the one of this number is the last.",
    "max_requests": "Maximum number of requests without a last answer that this connection is sent; 0: none.",
    "queues": (
        "Whether this connection is sent messages of `queue` channels; true if it is absent. An agent that pulls them says false."
        " A further `connect` does not change it."
    ),
    "Connect.max_requests": "As in `accept`; 64 if it is absent. A further `connect` does not change it.",
    "Connect.max_unacked": "`max_unacked` of subscriptions whose delivery starts at `connect`, without a `subscribe`.",
    "message": "The error's description, for people.",
    "message_id": "The message's id.",
    "PublishReply.message_id": "The message's id; null for a repeat if the first message was removed since.",
    "messages": "The page's messages.",
    "more": "Whether there is a next page: above the last message's `seq`, or below it if the newest came first.",
    "Reply.more": "Whether further answers follow.",
    "RequestPush.more": "In an answer: whether further answers follow. Absent in a push.",
    "moves": "How often requests have moved this cursor. A client ignores a number that it has received before.",
    "name": "The limit's name, as in `GET …/limits`.",
    "percent": "The share that is used: 80 or 100. Each is pushed once in a window of the limit.",
    "ping_s": "The interval of the server's pings, in seconds.",
    "WatchReply.presence": "True if the presence of the tenant's agents is watched.",
    "UnwatchReply.presence": "True if the presence of the tenant's agents is not watched any more.",
    "presence": "True for the presence of the tenant's agents. Give either this or `channel`.",
    "prev": "The sequence of the previous message in the channel; null if there is none, or none any more, and in a queue.",
    "reason": "The reason: `retention`, `epoch` or `expired`. A newer server may have more.",
    "CancelPush.reason": "`cancelled`, `asker_away`, `timed_out` or `max_replies`.",
    "request_id": "The request's id.",
    "redriven": "In a queue: the dead letter that this message was, if it was sent back. Absent otherwise.",
    "Redriven.channel": "The dead-letter channel.",
    "Redriven.seq": "The sequence of the dead letter.",
    "Redriven.message_id": "The id of the message that failed in the queue.",
    "Redriven.times": "How often the message was sent back.",
    "Redriven.by": "The person who sent it back, as `usr:` and an id.",
    "Redriven.time": "The time at which it was sent back.",
    "reply_to": "Where the sender expects an answer; agents define its meaning.",
    "resets_at": "The time at which a limit of a period begins again; null for other limits.",
    "retry_after_s": "In errors of rate limits: the seconds after which the same command can succeed. Otherwise absent.",
    "role": "The person's role in the tenant; absent for an agent.",
    "PastMessage.seq": "The message's sequence, which rises in a channel and may skip numbers.",
    "seq": "The message's sequence, which rises in a channel and may skip numbers; null in a `live` channel.",
    "Ack.seq": "Every message of the channel up to here is acknowledged; in a `queue` channel, this one.",
    "session_id": "The id of this login, to quote to an operator.",
    "MovedPush.cursor": "Delivery continues after this sequence.",
    "final": "Whether this is the last push about the message; then `reason` says why.",
    "last_seen": "When an agent that is away was last known to be connected; absent if that is unknown.",
    "ReceiptPush.message_id": "The message's id; null for a repeat if the first message was removed since.",
    "open": "The number of recipients that have not reached what the publisher waits for; null if it is unknown.",
    "ReceiptPush.reason": "In the final push: `reached`, `deadline`, `too_many` (recipients) or `unavailable`. Else null.",
    "Recipient.agent": (
        "The agent's id; of a message of a queue, the agent that holds it or has acknowledged it, null if there is none or it is"
        " unknown."
    ),
    "Recipient.reason": "Of a dead letter of a queue: `max_deliveries`, `expired` or `rejected`; absent if it is not known.",
    "queue": "True for a message of a queue, which has one state: `recipients` has the present one. Absent in other channels.",
    "receipt": "What the publisher waits for: `stored`, `delivered` or `acked`.",
    "Publish.receipt": (
        "Request `receipt` pushes, for each recipient: one after the message is stored (`stored`), or until all have been sent it"
        " (`delivered`) or have acknowledged it (`acked`)."
    ),
    "receipt_s": "The seconds until the final `receipt` push, at most 300; without it 30.",
    "recipients": "The recipients whose state changed since the last push, at most 200; the final push repeats the open ones.",
    "state": (
        "`pending`, `delivered` (sent to a socket), `acked`, `dead_lettered`, `expired`, `skipped` (its subscription"
        " ended, or its cursor was moved over the message), `away` (not connected) or `unknown` (its server does not answer)."
        " In a queue, `pending`: no agent holds the message; `delivered`: this agent holds it now."
    ),
    "subscribers": "The number of active subscriptions that receive the channel; null if it is not known at this moment.",
    "signature": "The armored SSHSIG of the challenge's text.",
    "since": "The time since which the agent has been connected without a break; null if it is not connected.",
    "status": "What the agent is doing, on one line; null for nothing.",
    "temporary": "Whether the same command can succeed later.",
    "tenant_id": "The tenant's id.",
    "Connect.tenant_id": (
        "The tenant. Required with a person's token. Optional with an agent's token; if given, it must be the token's tenant."
    ),
    "time": "The time at which the server accepted the message.",
    "user_id": "The connected person; absent for an agent.",
    "used": "What is used, or what a refused size would have been; null if it is unknown.",
    "timeout_s": "How long the request may wait for its last answer, in seconds: 1 to 120.",
    "to": "The last missing sequence; null if it is unknown.",
}


def of(struct: str, field: str) -> str:
    """Return the sentence for a field of a struct. Raises `KeyError` for an undocumented field."""
    return FIELD_DOCS.get(f"{struct}.{field}") or FIELD_DOCS[field]
