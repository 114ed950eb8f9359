from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from artcafe.errors import REGISTRY
from artcafe.fabric.presence_registry import LEASE_S
from artcafe.fabric.tenant_log import BATCH_MESSAGES
from artcafe.gateway.connection import MOST_BYTES_UNDER_WAY, MOST_UNDER_WAY, WRITE_HIGH_BYTES
from artcafe.gateway.desk import LIMITS, MAX_SUBSCRIPTIONS, PING_S
from artcafe.gateway.listener import CONNECT_S, STALL_S
from artcafe.gateway.login_handshake import MAX_CHALLENGES
from artcafe.gateway.opening_handshake import MAX_BYTES_BEFORE_CONNECT
from artcafe.rules import fields, plans
from artcafe.rules.plans import Limit
from artcafe.services.shares import AT_ONCE_OF_AGENT, MOST_A_TURN
from artcafe.wire import frames, replies

PAGE = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text()
SENT = re.findall(r"^    > (\{.*)$", PAGE, re.MULTILINE)
PUSHED = re.findall(r"^    < (\{.*)$", PAGE, re.MULTILINE)


def rows(head: str) -> list[list[str]]:
    """The cells of the table under this heading row."""
    (table,) = re.findall(rf"^\| {re.escape(head)} \|.*\n\| --- .*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]


def codes(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


@pytest.mark.parametrize("frame", SENT)
def test_the_server_takes_every_frame_that_the_page_has_a_client_send(frame: str) -> None:
    frames.parse(frame.encode())


def test_the_page_shows_every_command() -> None:
    assert {frames.parse(frame.encode())[1] for frame in SENT} == set(frames.KINDS)


@pytest.mark.parametrize("frame", PUSHED)
def test_a_client_understands_every_frame_that_the_page_has_the_server_send(frame: str) -> None:
    parsed = replies.parse_incoming(frame)
    (kind,) = [name for name in msgspec.json.decode(frame) if name != "id"]
    fields = getattr(parsed, kind).__struct_encode_fields__
    assert msgspec.json.decode(frame)[kind].keys() <= set(fields)


def test_the_page_shows_every_kind_of_frame_of_the_server() -> None:
    shown = {name for frame in PUSHED for name in msgspec.json.decode(frame)}
    assert shown == set(replies.Incoming.__struct_fields__)


def test_the_limits_on_the_page_are_those_of_the_code() -> None:
    told = {what: float(re.split(r"[^\d,]", limit)[0].replace(",", "")) for what, limit, _ in rows("what | limit")}
    assert told == {
        "a frame of a client, its fragments together": frames.MAX_FRAME_BYTES,
        "all frames until `connect` has come": MAX_BYTES_BEFORE_CONNECT,
        "`data`, nesting": frames.MAX_DEPTH,
        "`key`": fields.IDEMPOTENCY_KEY_CHARS,
        "`headers`, how many": fields.HEADERS,
        "`headers`, a name": fields.NAME_CHARS,
        "`headers`, a value": fields.HEADER_CHARS,
        "`reply_to`": fields.REPLY_TO_CHARS,
        "`max_unacked`": get_args(get_args(frames.MaxUnacked)[0])[1].le,
        "`status`": fields.NAME_CHARS,
        "an id, a status or a time": get_args(frames.Name)[1].max_length,
        "messages in a page of history": frames.HISTORY_MESSAGES,
        "live subscriptions of a connection": MAX_SUBSCRIPTIONS,
        "commands of all active tenants that begin in one turn of the server's event loop": MOST_A_TURN,
        "commands of an agent but publishes that are done at once": AT_ONCE_OF_AGENT,
        "unanswered challenges of a connection": MAX_CHALLENGES,
        "connections of an agent to one server": plans.PLANS[plans.DEFAULT_PLAN][Limit.AGENT_CONNECTIONS],
        "connections of a tenant to one server": plans.PLANS[plans.DEFAULT_PLAN][Limit.CONNECTIONS],
        "messages read from the log at once for a socket that is behind": BATCH_MESSAGES,
        "bytes that wait for a socket": WRITE_HIGH_BYTES,
        "commands without an answer": MOST_UNDER_WAY,
        "bytes of commands without an answer": MOST_BYTES_UNDER_WAY,
        "time until `connect` has succeeded": CONNECT_S,
        "time in which a socket takes no byte though messages wait": STALL_S,
    }


def test_the_lease_on_the_page_is_that_of_the_code() -> None:
    assert f"for up to {LEASE_S:g} s more" in PAGE.replace("\n", " ")


def test_connect_is_shown_with_the_pings_and_limits_that_it_has() -> None:
    shown = [body for frame in PUSHED if (body := replies.parse_incoming(frame).connect)]
    assert [(body.ping_s, body.limits) for body in shown] == [(PING_S, LIMITS)] * 2


def test_every_close_code_of_ours_is_on_the_page() -> None:
    told = {int(code) for cell, *_ in rows("code | why") for code in re.findall(r"\b4\d{3}\b", cell)}
    assert told == {kind.close for kind in REGISTRY.values() if kind.close is not None}


def test_the_errors_that_the_page_names_are_errors() -> None:
    named = [code for cell, *_ in rows("code | stored?") for code in codes(cell)]
    named += [code for *_, cell in rows("what | limit") for code in codes(cell)]
    named += [code for _, cell, _ in rows("code | why") for code in codes(cell) if code != "connect"]
    assert set(named) <= REGISTRY.keys()
