"""docs/gateway.md against the code: frames, limits, close codes and errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from artcafe.delivery.peer import MAX_SUBSCRIPTIONS, PING_S
from artcafe.errors import REGISTRY
from artcafe.fabric.presence_registry import LEASE_S
from artcafe.fabric.tenant_log import BATCH_MESSAGES
from artcafe.gateway.agent_requests import MAX_UNREAD_BYTES
from artcafe.gateway.client_socket import LIMITS
from artcafe.gateway.connection import MAX_IN_FLIGHT, MAX_IN_FLIGHT_BYTES, WRITE_HIGH_BYTES
from artcafe.gateway.listener import CONNECT_S, STALL_S
from artcafe.gateway.login_handshake import MAX_CHALLENGES
from artcafe.gateway.opening_handshake import MAX_BYTES_BEFORE_CONNECT
from artcafe.plan_catalogue import shipped
from artcafe.rules import fields
from artcafe.rules.plans import Limit
from artcafe.services.requests import MAX_PENDING_OF_SENDER
from artcafe.services.shares import MAX_COMMANDS_PER_TURN, MAX_CONCURRENT_PER_AGENT
from artcafe.wire import frames, replies

PAGE = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text()
SENT = re.findall(r"^ {4,6}> (\{.*)$", PAGE, re.MULTILINE)
PUSHED = re.findall(r"^ {4,6}< (\{.*)$", PAGE, re.MULTILINE)


def rows(head: str) -> list[list[str]]:
    """Return the cells of the table with this heading row."""
    (table,) = re.findall(rf"^\| {re.escape(head)} \|.*\n\| --- .*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]


def codes(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


@pytest.mark.parametrize("frame", SENT)
def test_server_parses_every_client_frame_of_the_page(frame: str) -> None:
    frames.parse(frame.encode())


def test_page_shows_every_command() -> None:
    assert {frames.parse(frame.encode())[1] for frame in SENT} == set(frames.KINDS)


@pytest.mark.parametrize("frame", PUSHED)
def test_client_parses_every_server_frame_of_the_page(frame: str) -> None:
    parsed = replies.parse_incoming(frame)
    (kind,) = [name for name in msgspec.json.decode(frame) if name != "id"]
    fields = getattr(parsed, kind).__struct_encode_fields__
    assert msgspec.json.decode(frame)[kind].keys() <= set(fields)


def test_page_shows_every_kind_of_server_frame() -> None:
    shown = {name for frame in PUSHED for name in msgspec.json.decode(frame)}
    assert shown == set(replies.Incoming.__struct_fields__)


def test_limits_on_the_page_match_the_code() -> None:
    listed = {what: float(re.split(r"[^\d,]", limit)[0].replace(",", "")) for what, limit, _ in rows("what | limit")}
    assert listed == {
        "a client's frame, all fragments together": frames.MAX_FRAME_BYTES,
        "all frames before `connect`": MAX_BYTES_BEFORE_CONNECT,
        "`data`, nesting": frames.MAX_DEPTH,
        "`key`": fields.IDEMPOTENCY_KEY_CHARS,
        "`headers`, number": frames.MAX_HEADERS,
        "`headers`, a name": fields.NAME_CHARS,
        "`headers`, a value": frames.MAX_HEADER_CHARS,
        "`reply_to`": fields.REPLY_TO_CHARS,
        "`max_unacked`": get_args(get_args(frames.MaxUnacked)[0])[1].le,
        "`status`": fields.NAME_CHARS,
        "an id, a status or a time": get_args(frames.Name)[1].max_length,
        "`timeout_s` of a request": frames.MIN_TIMEOUT_S,
        "`max_replies`": frames.MAX_REPLIES,
        "`max_requests`": frames.MAX_REQUESTS,
        "an agent's error: its code, its message": frames.AGENT_CODE_CHARS,
        "requests without a last answer": MAX_PENDING_OF_SENDER,
        "bytes that wait for a socket when an answer with `more` arrives": MAX_UNREAD_BYTES,
        "messages in a page of history": frames.HISTORY_MESSAGES,
        "live subscriptions of a connection": MAX_SUBSCRIPTIONS,
        "commands of all active tenants started in one turn of the server's event loop": MAX_COMMANDS_PER_TURN,
        "an agent's commands other than publishes, running at once": MAX_CONCURRENT_PER_AGENT,
        "unanswered challenges of a connection": MAX_CHALLENGES,
        "connections of an agent": shipped().limit_of(None, Limit.AGENT_CONNECTIONS),
        "connections of a tenant": shipped().limit_of(None, Limit.CONNECTIONS),
        "messages read from the log at once for a slow socket": BATCH_MESSAGES,
        "bytes that wait for a socket": WRITE_HIGH_BYTES,
        "commands in flight": MAX_IN_FLIGHT,
        "bytes of commands in flight": MAX_IN_FLIGHT_BYTES,
        "time until `connect` has succeeded": CONNECT_S,
        "time in which a socket accepts no byte while messages wait": STALL_S,
    }


def test_presence_lease_on_the_page_matches_the_code() -> None:
    assert f"for up to {LEASE_S:g} s more" in PAGE.replace("\n", " ")


def test_connect_reply_shows_the_current_ping_interval_and_limits() -> None:
    shown = [body for frame in PUSHED if (body := replies.parse_incoming(frame).connect)]
    assert [(body.ping_s, body.limits) for body in shown] == [(PING_S, LIMITS)] * 2


def test_page_lists_every_close_code_of_the_server() -> None:
    listed = {int(code) for cell, *_ in rows("code | why") for code in re.findall(r"\b4\d{3}\b", cell)}
    assert listed == {kind.close for kind in REGISTRY.values() if kind.close is not None}


def test_every_error_code_on_the_page_exists() -> None:
    named = [code for cell, *_ in rows("code | stored?") for code in codes(cell)]
    named += [code for *_, cell in rows("what | limit") for code in codes(cell)]
    named += [code for _, cell, _ in rows("code | why") for code in codes(cell) if code != "connect"]
    assert set(named) <= REGISTRY.keys()
