"""What each field of a frame means, in a phrase for whoever writes a client: for docs/frames.md and /asyncapi.json.

A key is a field's name on the wire, or that behind its struct's where it means something else there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FIELD_DOCS: Final[Mapping[str, str]] = {
    "access_token": "An agent's or a person's token. With it neither `challenge_id` nor `signature`.",
    "after": "Oldest first, above this sequence, or stored from this RFC 3339 time on. Without it newest first.",
    "agent": "The agent's id.",
    "agent_id": "The agent's id.",
    "ConnectReply.agent_id": "The agent that is connected; left out for a person.",
    "before": "Only what is below this sequence, or was stored before this RFC 3339 time.",
    "challenge": "The text to sign, exactly as it is.",
    "challenge_id": "The challenge's id. It is good for one attempt on the connection that asked for it.",
    "Connect.challenge_id": "The challenge that was signed, one of this connection's.",
    "channel": "The channel's id; names are for people.",
    "Watch.channel": "A channel whose messages are pushed as they come. Either this or `presence`.",
    "Unwatch.channel": "A channel that is watched no more. Either this or `presence`.",
    "WatchReply.channel": "The channel that is watched; left out for the presence of agents.",
    "UnwatchReply.channel": "The channel that is watched no more; left out for the presence of agents.",
    "channels": "The subscriptions that this connection leaves out, where `subscription_limit` is pushed; else left out.",
    "connected": "Whether it is connected now, on whichever server.",
    "code": "What went wrong, for programs (docs/errors.md).",
    "cursor": "Delivery goes on behind this sequence. Null for a `live` channel.",
    "data": "Any JSON, with numbers below 1.8e308; it is stored and delivered as the text it was.",
    "duplicate": "Whether the key had stored the message before; then nothing was stored now.",
    "epoch": "The life of the tenant's log that the sequences are in; null before its first message.",
    "GapPush.epoch": "The life of the log that is read from here on, where it is another one.",
    "expires_at": "Until when the challenge is good.",
    "from": "Who published it, as the server proved it: an agent's id, or `usr:` and a person.",
    "Gap.from": "The first sequence that will not come.",
    "GapPush.from": "The first sequence that will not come.",
    "Subscribe.from": (
        "Where delivery begins: `cursor` (behind what was acknowledged), `new` (behind the newest message), `first` (the oldest"
        " that is kept), or a sequence."
    ),
    "gap": "What is gone of what was asked for; null where nothing is.",
    "headers": "Text by name, passed on as it is.",
    "key": "Within 10 minutes one key of one agent in one channel stores one message.",
    "last": "The sequence of the channel's newest message, 0 where there is none. Null for a `live` channel.",
    "limit": "At most so many messages.",
    "limits": "What this connection may: `frame_bytes`, `json_depth` and `subscriptions`.",
    "max_unacked": "How many messages may be unacknowledged before the server waits. Null: it does not wait.",
    "Connect.max_unacked": "`max_unacked` of the subscriptions that start by themselves.",
    "message": "What went wrong, for people.",
    "message_id": "The message's id.",
    "PublishReply.message_id": "The message's id; null for a repeat whose first message has been removed since.",
    "messages": "The page's messages.",
    "more": "Whether there is a next page: above the last message's `seq`, or below it where the newest came first.",
    "ping_s": "How often the server pings, in seconds.",
    "presence": "Whether it is about the presence of the tenant's agents. Either true, or a `channel`.",
    "prev": "The sequence of the message before it in its channel; null where there is none, or none any more.",
    "reason": "Why: `retention` or `epoch`. A newer server may have more.",
    "reply_to": "Where an answer is awaited; its meaning is the agents' own.",
    "role": "The person's role in the tenant; left out for an agent.",
    "seq": "The message's place, which rises in a channel and may skip numbers; null in a `live` channel.",
    "Ack.seq": "Everything in the channel up to here is done with.",
    "session_id": "A name for this login, to tell an operator.",
    "signature": "The armored SSHSIG of the challenge's text.",
    "since": "Since when it has been connected without a break; null when it is not.",
    "status": "What the agent is doing, on one line; null for nothing.",
    "temporary": "Whether the same command can succeed a little later.",
    "tenant_id": "The tenant's id.",
    "Connect.tenant_id": (
        "The tenant. An agent's token may leave it out, and it must be the token's; a person says with it in which of theirs."
    ),
    "time": "When the server took it in.",
    "user_id": "The person that is connected; left out for an agent.",
    "to": "The last sequence that will not come; null where nobody knows how many there were.",
}


def of(struct: str, field: str) -> str:
    """What a field of the struct means. Raises `KeyError` for one that nobody told of."""
    return FIELD_DOCS.get(f"{struct}.{field}") or FIELD_DOCS[field]
