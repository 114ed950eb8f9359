from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from artcafe.errors import REGISTRY
from tests.rest.rest_app import Caller

VERBS = (
    "(?:Accept|Acknowledge|Add|Begin|Cancel|Change|Check|Create|Delete|Disable|Exchange|Finish|Invite|List|Make|Pause|Publish|Pull|Read"
    "|Register|Release|Remove|Rename|Report|Return|Revoke|Send|Subscribe|Unsubscribe)"
)
"""Imperatives that start a summary or a description."""

WITHOUT_TOKEN = {"read_home", "create_challenge", "create_token", "read_live", "read_ready", "redeem_console_code"}

REFUSING_KEYS = {"ask_agent": "a request is sent at most once and nothing is stored, so a repeat is another request"}
"""Operations that document the header only to refuse it, and the reason."""


@pytest.fixture(scope="module")
def document(anyone: Caller) -> dict[str, Any]:
    answer = anyone.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in document["paths"].values():
        yield from methods.values()


def references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for each in part.values():
            yield from references(each)
    elif isinstance(part, list):
        for each in part:
            yield from references(each)


def test_references_resolve(document: dict[str, Any]) -> None:
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= known


def test_every_operation_has_a_name_a_plain_summary_a_description_and_a_known_tag(document: dict[str, Any]) -> None:
    tags = {each["name"] for each in document["tags"]}
    found = list(operations(document))
    assert len({each["operationId"] for each in found}) == len(found)
    for each in found:
        assert re.fullmatch(rf"{VERBS} [\w' ,]{{2,40}}", each["summary"]), each["summary"]
        assert re.match(rf"{VERBS} [^.]+\.", each["description"]), each["description"]
        assert each["description"].endswith(".")
        assert set(each["tags"]) <= tags


def test_every_parameter_and_schema_has_a_description(document: dict[str, Any]) -> None:
    for operation in operations(document):
        for each in operation.get("parameters", []):
            assert each["description"], each["name"]
    for name, schema in document["components"]["schemas"].items():
        assert schema.get("description") or "enum" in schema, name


def test_every_operation_requires_a_bearer_token_except_public_ones(document: dict[str, Any]) -> None:
    open_to_all = {each["operationId"] for each in operations(document) if "security" not in each}
    assert open_to_all == WITHOUT_TOKEN
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


def test_every_error_is_documented_as_a_problem_with_an_example(document: dict[str, Any]) -> None:
    for operation in operations(document):
        for status, answer in operation["responses"].items():
            if status >= "400":
                content = answer["content"]["application/problem+json"]
                assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
                for code, example in content["examples"].items():
                    assert REGISTRY[code].status == example["value"]["status"] == int(status)


def test_every_post_accepts_an_idempotency_key(document: dict[str, Any]) -> None:
    posts = [methods["post"] for methods in document["paths"].values() if "post" in methods]
    assert posts
    refusing = set()
    for post in posts:
        described = {each["name"]: each["description"] for each in post["parameters"]}
        assert "Idempotency-Key" in described, post["operationId"]
        if described["Idempotency-Key"].startswith("Refused:"):
            refusing.add(post["operationId"])
    assert refusing == set(REFUSING_KEYS)


def test_bodies_have_names_and_forbid_unknown_fields(document: dict[str, Any]) -> None:
    bodies = {
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for operation in operations(document)
        if "requestBody" in operation
    }
    assert bodies == {
        "NewChallenge", "NewToken", "NewTenant", "TenantUpdate", "NewAgent", "AgentChange",
        "NewKey", "KeyChange", "NewChannel", "ChannelChange", "ChainChange",
        "SubscriptionChange", "NewMessage", "NewSubscription", "NewMember", "RoleChange", "Acceptance", "NewTermsAcceptance",
        "Acks", "NewRedrive", "NewRequest", "NewWakePolicy", "NewConsoleToken",
    }  # fmt: skip
    assert all(document["components"]["schemas"][name]["additionalProperties"] is False for name in bodies)


def test_responses_have_no_internal_fields(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        assert not {"request_hash", "version_of_row", "channels"} & set(schema.get("properties", {}))
