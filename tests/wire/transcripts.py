"""Transcripts of connections and every illegal order of frames, as data: `python -m tests.wire.transcripts` writes the vectors.

A client in another language reads `vectors/session.json`: docs/frames.md describes it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from artcafe.errors import (
    AckBeyondSent,
    AgentError,
    BadCommand,
    ChannelNotFound,
    LoopStopped,
    OutOfTurn,
    RequestCancelled,
)
from artcafe.wire import frames, receipts, replies, request_frames
from artcafe.wire.envelopes import ChainLink, channel_text, envelope, live_frame, message_frame, queue_frame
from artcafe.wire.session import CLIENT_RECEIVES, CLIENT_SENDS, SERVER_RECEIVES, ClientState, ServerState
from tests.wire.connection_pair import ConnectionPair

VECTORS: Final = Path(__file__).parent / "vectors" / "session.json"
CLIENT_CLOSE: Final = 1002
"""The code with which a client closes after a frame out of turn (RFC 6455, section 7.4.1)."""

TENANT, AGENT, CHANNEL, TIME = "ten_1", "agt_1", "chn_1", "2026-11-28T12:00:00.123Z"
CHALLENGE_TEXT: Final = (
    f"artcafe login 1 service=artcafe:test tenant={TENANT} agent={AGENT} challenge=chl_1"
    f" nonce={'0f' * 32} expires=2026-11-28T12:05:00Z"
)

COMMANDS: Final[dict[str, frames.Body]] = {
    "challenge": frames.Challenge(TENANT, AGENT),
    "connect": frames.Connect(challenge_id="chl_1", signature="-----BEGIN SSH SIGNATURE-----\n…", max_unacked=64),
    "publish": frames.Publish(CHANNEL, msgspec.Raw(b'{"text":"caf\xc3\xa9"}'), key="key-1", headers={"lang": "fr"}),
    "subscribe": frames.Subscribe(CHANNEL, "cursor", 64),
    "unsubscribe": frames.Unsubscribe(CHANNEL),
    "ack": frames.Ack(CHANNEL, 1),
    "nak": frames.Nak(CHANNEL, 1, 5.0),
    "extend": frames.Extend(CHANNEL, 1),
    "status": frames.Status("busy"),
    "history": frames.History(CHANNEL, before=9, limit=1),
    "watch": frames.Watch(presence=True),
    "unwatch": frames.Unwatch(presence=True),
    "request": frames.Request(AGENT, msgspec.Raw(b'{"task":1}'), 5.0, {"lang": "fr"}, 2),
    "reply": frames.Reply("ask_1", msgspec.Raw(b'{"text":"caf\xc3\xa9"}'), more=True),
    "cancel": frames.Cancel(1),
    "accept": frames.Accept(16),
}
LIMITS: Final = {"frame_bytes": 65536, "json_depth": 32, "subscriptions": 128}
REPLIES: Final[dict[str, msgspec.Struct]] = {
    "challenge": replies.ChallengeReply("chl_1", CHALLENGE_TEXT, "2026-11-28T12:05:00Z"),
    "connect": replies.ConnectReply(session_id="ses_1", agent_id=AGENT, tenant_id=TENANT, ping_s=25, limits=LIMITS),
    "publish": replies.PublishReply(2, "msg_2", duplicate=False, subscribers=2, connected=1),
    "subscribe": replies.SubscribeReply("E1", 0, 1),
    "unsubscribe": replies.UnsubscribeReply(CHANNEL),
    "nak": replies.NakReply(CHANNEL, 1),
    "extend": replies.ExtendReply(CHANNEL, 1, 30),
    "status": replies.StatusReply("busy"),
    "history": replies.HistoryReply([], replies.Gap(1, 8, "retention"), more=False, epoch="E1"),
    "watch": replies.WatchReply(presence=True),
    "unwatch": replies.UnwatchReply(presence=True),
    "reply": replies.ReplyReply("ask_1"),
    "accept": replies.AcceptReply(16),
}
TOKEN: Final = frames.Connect(access_token="eyJ…", tenant_id=TENANT)


def message(seq: int | None, link: ChainLink | None = None) -> bytes:
    """Return a message push. `seq` is None in a `live` channel; `link` is the place of an answer in its chain."""
    publish = frames.Publish(CHANNEL, msgspec.Raw(b"[1,2]"), headers={})
    stored = envelope(publish, message_id=f"msg_{seq or 'live'}", sender="agt_2", time=TIME, link=link)
    channel = channel_text(CHANNEL, None)
    return live_frame(channel, stored) if seq is None else message_frame(channel, seq, seq - 1 or None, stored)


def queued(deliveries: int) -> bytes:
    """Return a message push of a `queue` channel."""
    stored = envelope(
        frames.Publish(CHANNEL, msgspec.Raw(b'"task"'), headers={}), message_id="msg_1", sender="agt_2", time=TIME, link=None
    )
    return queue_frame(channel_text(CHANNEL, None), 1, deliveries, stored)


PUSHES: Final[dict[str, bytes]] = {
    "error": replies.error(AckBeyondSent.from_text("the ack is above the last sent message")),
    "message": message(1),
    "gap": replies.gap(CHANNEL, replies.Gap(3, 7, "retention")),
    "presence": replies.presence(replies.PresencePush(agent=AGENT, connected=True, status=None, since=TIME)),
    "moved": receipts.moved(receipts.MovedPush(channel=CHANNEL, epoch="E1", cursor=0, moves=1)),
    "receipt": receipts.receipt(
        receipts.ReceiptPush(
            channel=CHANNEL,
            seq=2,
            message_id="msg_2",
            receipt="acked",
            recipients=[receipts.Recipient(AGENT, "acked"), receipts.Recipient("agt_2", "away", TIME)],
            open=1,
            final=True,
            reason="deadline",
        )
    ),
    "limits": replies.limits(replies.LimitsPush("messages_a_minute", 600, 480, 120, TIME, 80)),
    "request": request_frames.push("ask_1", "agt_2", {"lang": "fr"}, TIME, msgspec.Raw(b'{"task":1}')),
    "cancel": request_frames.cancel(replies.CancelPush("ask_1", "timed_out")),
}


def server_frame(kind: str, id: int = 1) -> bytes:
    """Return a frame of the server: a reply with this id, or a push."""
    return PUSHES[kind] if kind in PUSHES else replies.reply(id, kind, REPLIES[kind])


class Recorder:
    """Runs a script on a connection pair, and writes a step for each frame, with both states after it."""

    def __init__(self) -> None:
        self.pair = ConnectionPair()
        self.steps: list[dict[str, object]] = []
        self._next_id = 0

    def command(self, kind: str, body: frames.Body | None = None) -> int | None:
        """Let the client send a command; return its id."""
        id = None if kind in frames.WITHOUT_ID else self._next_id
        self._next_id += 1
        frame = self.pair.send(kind, body or COMMANDS[kind], id)
        self._record("client", kind, frame)
        return id

    def answer(self, kind: str, frame: bytes) -> None:
        """Let the server send a frame."""
        self.pair.deliver_to_client(frame)
        assert self.pair.answers[-1][0] == (kind if kind != "unknown" else None)
        self._record("server", kind, frame)

    def exchange(self, kind: str, body: frames.Body | None = None) -> None:
        """Let the client send a command and the server reply to it."""
        id = self.command(kind, body)
        if id is not None:
            self.answer(kind, server_frame(kind, id))

    def push(self, kind: str, frame: bytes | None = None) -> None:
        """Let the server push a frame."""
        self.answer(kind, frame or PUSHES[kind])

    def _record(self, sender: str, kind: str, frame: bytes) -> None:
        client, server = self.pair.client.state.name.lower(), self.pair.server.state.name.lower()
        self.steps.append({"from": sender, "kind": kind, "frame": frame.decode(), "client": client, "server": server})


def agent_by_signature(on: Recorder) -> None:
    """An agent logs in by its key, subscribes, publishes, acknowledges, and learns of a gap."""
    for kind in ("challenge", "connect", "subscribe"):
        on.exchange(kind)
    on.push("message")
    on.command("ack")
    on.exchange("publish")
    on.push("message", message(2))
    on.push("gap")
    for kind in ("status", "history", "unsubscribe"):
        on.exchange(kind)


def publisher_with_a_receipt(on: Recorder) -> None:
    """An agent publishes a message and learns what became of it; then its own cursor is moved back."""
    for kind in ("challenge", "connect", "subscribe"):
        on.exchange(kind)
    on.push("message")
    on.command("ack")
    on.exchange("publish", frames.Publish(CHANNEL, msgspec.Raw(b"1"), receipt="acked", receipt_s=5.0))
    on.push("receipt")
    on.push("moved")
    on.push("message")


def agent_by_token_without_waiting(on: Recorder) -> None:
    """An agent connects by a token, and sends commands before the reply: the server answers in order."""
    ids = [on.command("connect", TOKEN), on.command("subscribe"), on.command("publish")]
    for kind, id in zip(("connect", "subscribe", "publish"), ids, strict=True):
        assert id is not None
        on.answer(kind, server_frame(kind, id))
    on.push("message", message(None))


def worker_of_a_queue(on: Recorder) -> None:
    """An agent gets a message of a queue, extends its deadline, gives it back, gets it again and acknowledges it."""
    for kind in ("challenge", "connect", "subscribe"):
        on.exchange(kind)
    on.push("message", queued(1))
    on.exchange("extend")
    on.exchange("nak")
    on.push("message", queued(2))
    on.command("ack")


def renewal_by_token(on: Recorder) -> None:
    """A connected agent connects again by a new token, while messages arrive."""
    on.exchange("connect", TOKEN)
    id = on.command("connect", TOKEN)
    on.push("message")
    on.command("ack")
    on.answer("connect", server_frame("connect", id or 0))


def renewal_by_signature(on: Recorder) -> None:
    """A connected agent requests a challenge and connects again by its signature."""
    on.exchange("connect", TOKEN)
    on.exchange("challenge")
    on.exchange("connect")
    on.exchange("publish")


def person_who_watches(on: Recorder) -> None:
    """A person connects by a token, and watches a channel and the presence of agents."""
    id = on.command("connect", TOKEN)
    who = replies.ConnectReply(session_id="ses_2", user_id="usr:ann", role="viewer", tenant_id=TENANT, ping_s=25, limits=LIMITS)
    on.answer("connect", replies.reply(id or 0, "connect", who))
    id = on.command("watch", frames.Watch(channel=CHANNEL))
    on.answer("watch", replies.reply(id or 0, "watch", replies.WatchReply(CHANNEL)))
    on.push("message")
    on.exchange("watch")
    on.push("presence")
    on.exchange("unwatch")


def errors_that_keep_the_connection(on: Recorder) -> None:
    """A challenge is refused and requested again; a command is refused; an ack is refused by a push."""
    id = on.command("challenge")
    on.answer("error", replies.error(BadCommand.from_text("too many open challenges"), id))
    on.exchange("challenge")
    on.exchange("connect")
    id = on.command("publish")
    on.answer("error", replies.error(ChannelNotFound.from_text("no such channel"), id))
    on.command("ack", frames.Ack(CHANNEL, 9))
    on.push("error")


def agents_that_answer_each_other(on: Recorder) -> None:
    """An agent answers a message, which is an answer itself, until the chain is stopped; then it begins a new one, and a rate
    limit of its tenant is nearly used."""
    on.exchange("connect", TOKEN)
    on.push("message", message(2, ChainLink("msg_1", 1, "msg_1")))
    on.exchange("publish", frames.Publish(CHANNEL, msgspec.Raw(b"3"), caused_by=frames.Cause(CHANNEL, 2, "msg_2")))
    id = on.command("publish", frames.Publish(CHANNEL, msgspec.Raw(b"4"), caused_by="msg_2"))
    on.answer("error", replies.error(LoopStopped("hops", 1, 2, chain="msg_1", hops=2), id))
    on.exchange("publish")
    on.push("limits")


def agents_that_ask_each_other(on: Recorder) -> None:
    """An agent asks another one and gets two answers; it is asked, and answers; a request times out, and one is cancelled."""
    on.exchange("connect", TOKEN)
    id = on.command("request") or 0
    on.answer("request", request_frames.answer(id, "ask_2", AGENT, msgspec.Raw(b"1"), has_more=True))
    on.answer("request", request_frames.answer(id, "ask_2", AGENT, None, has_more=False))
    on.push("request")
    on.exchange("reply")
    on.exchange("reply", frames.Reply("ask_1"))
    on.exchange("reply", frames.Reply("ask_3", error=frames.AgentFault("no_capacity", "try another agent")))
    id = on.command("request") or 0
    on.command("cancel", frames.Cancel(id))
    on.answer("error", replies.error(RequestCancelled(), id))
    on.answer("error", replies.error(AgentError("no_capacity", "try another agent"), on.command("request") or 0))
    on.exchange("accept")
    on.push("request")
    on.push("cancel")


def newer_server(on: Recorder) -> None:
    """A newer server sends a kind and fields that the client does not know: it ignores them."""
    on.exchange("connect", TOKEN)
    on.push("unknown", b'{"weather":{"channel":"chn_1","sunny":true}}')
    on.push("message", message(1)[:-1] + b',"trace":"7f3a"}')


SCRIPTS: Final[tuple[Callable[[Recorder], None], ...]] = (
    agent_by_signature,
    agent_by_token_without_waiting,
    worker_of_a_queue,
    publisher_with_a_receipt,
    renewal_by_token,
    renewal_by_signature,
    person_who_watches,
    errors_that_keep_the_connection,
    agents_that_answer_each_other,
    agents_that_ask_each_other,
    newer_server,
)

CLIENT_PATHS: Final[dict[ClientState, tuple[tuple[str, str], ...]]] = {
    ClientState.FRESH: (),
    ClientState.CHALLENGE_REQUESTED: (("client", "challenge"),),
    ClientState.CHALLENGED: (("client", "challenge"), ("server", "challenge")),
    ClientState.CONNECT_SENT: (("client", "connect"),),
    ClientState.CONNECTED: (("client", "connect"), ("server", "connect")),
    ClientState.RENEWING: (("client", "connect"), ("server", "connect"), ("client", "connect")),
}
"""The shortest way to each state of a client that is not closed."""
SERVER_PATHS: Final[dict[ServerState, tuple[str, ...]]] = {ServerState.FRESH: (), ServerState.CONNECTED: ("connect",)}


def command_frame(kind: str) -> bytes:
    """Return a frame of the client, whatever its session allows."""
    return frames.command(kind, COMMANDS[kind], None if kind in frames.WITHOUT_ID else 1)


def illegal_for_client() -> list[dict[str, Any]]:
    """Return every frame of a server that a client must refuse, with the frames that lead to its state."""
    return [
        {
            "state": state.name.lower(),
            "path": [
                {"from": sender, "frame": (command_frame(kind) if sender == "client" else server_frame(kind)).decode()}
                for sender, kind in path
            ],
            "kind": kind,
            "frame": server_frame(kind).decode(),
            "close": CLIENT_CLOSE,
        }
        for state, path in CLIENT_PATHS.items()
        for kind in replies.KINDS
        if (state, kind) not in CLIENT_RECEIVES
    ]


def illegal_for_server() -> list[dict[str, Any]]:
    """Return every command that a server must refuse, with the commands that lead to its state."""
    return [
        {
            "state": state.name.lower(),
            "path": [{"from": "client", "frame": command_frame(kind).decode()} for kind in path],
            "kind": kind,
            "frame": command_frame(kind).decode(),
            "code": OutOfTurn.code,
            "close": OutOfTurn.close,
        }
        for state, path in SERVER_PATHS.items()
        for kind in frames.KINDS
        if (state, kind) not in SERVER_RECEIVES
    ]


def transcript(script: Callable[[Recorder], None]) -> dict[str, object]:
    """Run a script and return its transcript."""
    recorder = Recorder()
    script(recorder)
    return {"name": script.__name__, "about": inspect.getdoc(script), "steps": recorder.steps}


def rows(table: Any) -> list[dict[str, str]]:
    """Return a table of `wire.session` as rows, sorted."""
    found = ({"state": state.name.lower(), "kind": kind, "next": after.name.lower()} for (state, kind), after in table.items())
    return sorted(found, key=lambda row: (row["state"], row["kind"]))


def vectors() -> str:
    """Return the text of `vectors/session.json`."""
    document = {
        "about": "Made by `python -m tests.wire.transcripts`; docs/frames.md describes it.",
        "subprotocol": frames.SUBPROTOCOL,
        "client": {"sends": rows(CLIENT_SENDS), "receives": rows(CLIENT_RECEIVES)},
        "server": {"receives": rows(SERVER_RECEIVES)},
        "transcripts": [transcript(script) for script in SCRIPTS],
        "illegal_for_client": illegal_for_client(),
        "illegal_for_server": illegal_for_server(),
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    VECTORS.write_text(vectors())
