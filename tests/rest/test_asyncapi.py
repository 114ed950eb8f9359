"""The AsyncAPI document: rules of the specification (3.1.0), described frames, and named errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from artcafe.errors import REGISTRY
from artcafe.rest.asyncapi import document
from artcafe.rest.frame_docs import COMMANDS, PUSHES
from artcafe.wire import frames, replies
from tests.isolation.frame_matrix import OK, REFUSED, SILENCE, TABLE
from tests.rest.rest_app import GATEWAY_URL, Caller

FIXED = {
    "": {"asyncapi", "id", "info", "servers", "defaultContentType", "channels", "operations", "components"},
    "server": {"host", "protocol", "protocolVersion", "pathname", "description", "title", "summary", "variables", "security",
               "tags", "externalDocs", "bindings"},
    "channel": {"address", "messages", "title", "summary", "description", "servers", "parameters", "tags", "externalDocs",
                "bindings"},
    "operation": {"action", "channel", "title", "summary", "description", "security", "tags", "externalDocs", "bindings",
                  "traits", "messages", "reply"},
    "reply": {"address", "channel", "messages"},
    "message": {"headers", "payload", "correlationId", "contentType", "name", "title", "summary", "description", "tags",
                "externalDocs", "bindings", "examples", "traits"},
}  # fmt: skip
"""Fields allowed by the specification, by object; others must start with `x-`."""


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(document("wss://gateway.example.com:8443/v1/connect", "1.2.3"))
    return found


def check_fields(kind: str, found: dict[str, Any], *required: str) -> None:
    assert set(required) <= found.keys() <= FIXED[kind] | {name for name in found if name.startswith("x-")}


def references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            assert part.keys() == {"$ref"}
            yield part["$ref"]
        for each in part.values():
            yield from references(each)
    elif isinstance(part, list):
        for each in part:
            yield from references(each)


def at(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def name_of(reference: dict[str, str]) -> str:
    return reference["$ref"].rpartition("/")[2]


def kinds(frame: type[msgspec.Struct]) -> set[str]:
    return set(frame.__struct_fields__) - {"id"}


# --- the specification's rules -------------------------------------------------------------------------------------------


def test_document_needs_no_token_and_names_this_gateway(anyone: Caller) -> None:
    answer = anyone.get("/asyncapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    host, _, path = GATEWAY_URL.partition("://")[2].partition("/")
    assert (answer.json()["servers"]["gateway"]["host"], answer.json()["channels"]["gateway"]["address"]) == (host, f"/{path}")
    assert answer.json()["info"]["version"] == anyone.get("/v1").json()["version"]
    assert anyone.get("/v1").json()["asyncapi"] == "/asyncapi.json"


def test_document_has_the_fields_required_by_the_specification(told: dict[str, Any]) -> None:
    check_fields("", told, "asyncapi", "info")
    assert told["asyncapi"] == "3.1.0"
    assert told["info"]["title"]
    assert told["info"]["version"] == "1.2.3"
    (server,) = told["servers"].values()
    check_fields("server", server, "host", "protocol")
    assert (server["host"], server["protocol"]) == ("gateway.example.com:8443", "wss")
    (channel,) = told["channels"].values()
    check_fields("channel", channel, "address", "messages")
    assert channel["bindings"]["ws"]["headers"]["properties"]["Sec-WebSocket-Protocol"]["const"] == frames.SUBPROTOCOL


def test_operations_are_described_from_the_servers_side(told: dict[str, Any]) -> None:
    for name, operation in told["operations"].items():
        check_fields("operation", operation, "action", "channel", "summary", "messages")
        assert operation["action"] == ("send" if name.endswith("_push") else "receive")
        assert operation["channel"] == {"$ref": "#/channels/gateway"}
        if "reply" in operation:
            check_fields("reply", operation["reply"], "channel", "messages")


def test_messages_have_a_payload_and_a_correlation_id_if_they_have_an_id(told: dict[str, Any]) -> None:
    for message in told["components"]["messages"].values():
        check_fields("message", message, "name", "summary", "payload", "examples")
        assert ("correlationId" in message) == ("id" in message["payload"]["properties"])


def test_references_resolve_and_operations_use_messages_of_their_channel(told: dict[str, Any]) -> None:
    for reference in references(told):
        assert at(told, reference)
    for operation in told["operations"].values():
        for each in (*operation["messages"], *operation.get("reply", {}).get("messages", [])):
            assert each["$ref"].startswith("#/channels/gateway/messages/")


def test_names_match_the_specifications_pattern(told: dict[str, Any]) -> None:
    places = (told["servers"], told["channels"], told["operations"], *told["components"].values())
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for place in places for name in place)


# --- the frames ------------------------------------------------------------------------------------------------------------


def test_every_command_reply_and_push_is_documented(told: dict[str, Any]) -> None:
    """A new frame needs an entry in `rest/asyncapi.py`."""
    commands, incoming = kinds(frames.Command), kinds(replies.Incoming)
    assert COMMANDS.keys() == commands
    assert incoming - commands <= PUSHES.keys() <= incoming
    with_reply = {kind for kind, each in COMMANDS.items() if each.reply is not None}
    assert with_reply | PUSHES.keys() == incoming
    assert with_reply - frames.WITHOUT_ID == with_reply
    assert told["operations"].keys() == commands | {f"{kind}_push" for kind in PUSHES}


def test_replies_of_a_command_are_its_own_reply_and_the_error(told: dict[str, Any]) -> None:
    for kind, each in COMMANDS.items():
        operation = told["operations"][kind]
        assert [name_of(message) for message in operation["messages"]] == [kind]
        answers = [name_of(message) for message in operation.get("reply", {}).get("messages", [])]
        assert answers == ([] if each.reply is None else [f"{kind}_reply", "error_reply"])


def test_schema_of_a_body_has_the_fields_of_its_frame(told: dict[str, Any]) -> None:
    for message in told["components"]["messages"].values():
        (kind,) = set(message["payload"]["required"]) - {"id"}
        schema = at(told, message["payload"]["properties"][kind]["$ref"])
        body = getattr(frames, schema["title"], None) or getattr(replies, schema["title"])
        assert set(schema["properties"]) == set(body.__struct_encode_fields__)
        assert "\n  " not in schema.get("description", "")


@pytest.mark.parametrize("kind", COMMANDS)
def test_server_parses_the_example_of_a_command(told: dict[str, Any], kind: str) -> None:
    (example,) = told["components"]["messages"][kind]["examples"]
    assert frames.parse(msgspec.json.encode(example["payload"]))[1] == kind


def test_client_parses_every_field_of_an_example_reply_or_push(told: dict[str, Any]) -> None:
    for name, message in told["components"]["messages"].items():
        if name in COMMANDS:
            continue
        payload = message["examples"][0]["payload"]
        parsed = getattr(replies.parse_incoming(msgspec.json.encode(payload)), message["name"])
        assert payload[message["name"]].keys() <= set(parsed.__struct_encode_fields__)


# --- errors and close codes ----------------------------------------------------------------------------------------------


def test_every_close_code_is_documented_with_its_errors(told: dict[str, Any]) -> None:
    codes = {each["code"]: each for each in told["channels"]["gateway"]["x-close-codes"]}
    assert codes.keys() == {kind.close for kind in REGISTRY.values() if kind.close is not None}
    for code, each in codes.items():
        assert each["comes_back"] is (4000 <= code < 4500)
        assert each["errors"] == sorted(kind.code for kind in REGISTRY.values() if kind.close == code)


def test_every_named_error_is_documented(told: dict[str, Any]) -> None:
    named = {code for operation in told["operations"].values() for code in operation.get("x-errors", [])}
    named |= {code for each in told["channels"]["gateway"]["x-close-codes"] for code in each["errors"]}
    assert named == told["x-errors"].keys()
    for code, each in told["x-errors"].items():
        assert each["temporary"] is REGISTRY[code].temporary
        assert each["message"]
        assert "{" not in each["message"]


def test_connect_names_every_refusal_of_the_isolation_table(told: dict[str, Any]) -> None:
    assert {code for code, _ in REFUSED.values()} <= set(told["operations"]["connect"]["x-errors"])


@pytest.mark.parametrize("kind", TABLE)
def test_command_names_every_error_of_the_isolation_table(told: dict[str, Any], kind: str) -> None:
    rule = TABLE[kind]
    answered = {rule.people, rule.agent, rule.other, *(rule.missing or ())} - {OK, SILENCE}
    assert answered <= set(told["operations"][kind]["x-errors"])
