from __future__ import annotations

from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.model import Role, TenantId
from artcafe.wire.envelopes import Envelope, parse_envelope
from artcafe.wire.frames import MAX_DEPTH
from tests.rest.rest_app import Caller, RestApp, Tenant


@pytest.fixture(scope="module")
def path(tenant: Tenant) -> str:
    return f"{tenant.path}/channels/{tenant.channel()}/messages"


def stored(rest_app: RestApp, tenant: Tenant, seq: int) -> Envelope:
    """Return the message as stored in the tenant's log."""
    found = rest_app.run(rest_app.fabric.tenant(TenantId(tenant.id)).log.read(seq))
    assert found is not None
    return parse_envelope(found)


def test_published_data_is_stored_as_the_original_text(rest_app: RestApp, tenant: Tenant, owner: Caller, path: str) -> None:
    data = '{"b": 1.10, "a": [1e300, 0.1, -0],  "a": "\\u00e9é\\/"}'
    body = f'{{"headers": {{"trace": "7"}}, "reply_to": "me", "data": {data} }}'
    answer = owner.post(path, content=body.encode())
    assert answer.status_code == 201
    assert answer.json()["duplicate"] is False
    message = stored(rest_app, tenant, answer.json()["seq"])
    assert bytes(message.data).decode() == data
    assert (message.headers, message.reply_to, message.message_id) == ({"trace": "7"}, "me", answer.json()["message_id"])
    assert message.sender.startswith("usr:person-")


def test_sequences_of_a_channel_increase(owner: Caller, path: str) -> None:
    seqs = [owner.post(path, json={"data": None}).json()["seq"] for _ in range(3)]
    assert seqs == sorted(set(seqs))


@pytest.mark.parametrize("where", ["header", "body", "both"])
def test_repeated_message_with_one_key_is_stored_once(owner: Caller, path: str, where: str) -> None:
    headers = {} if where == "body" else {"Idempotency-Key": f"key {where}"}
    body: dict[str, Any] = {"data": {"n": 1}} | ({} if where == "header" else {"key": f"key {where}"})
    first, again = (owner.post(path, json=body, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json() | {"duplicate": True}
    other = owner.post(path, json=body | {"data": 2}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "key_reused")


def test_key_in_header_and_body_must_be_equal(owner: Caller, path: str) -> None:
    first = owner.post(path, json={"data": 1}, headers={"Idempotency-Key": "one"})
    again = owner.post(path, json={"data": 1, "key": "one"})
    assert again.json() == first.json() | {"duplicate": True}
    differ = owner.post(path, json={"data": 1, "key": "one"}, headers={"Idempotency-Key": "two"})
    assert (differ.status_code, differ.json()["errors"][0]["field"]) == (422, "key")


def refused(answer: httpx2.Response) -> tuple[int, str, str | None]:
    body = answer.json()
    return answer.status_code, body["code"], body.get("errors", [{}])[0].get("field")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "data"),
        (b'{"data":1,"channel":"chn_x"}', "channel"),
        (b'{"data":1,"key":7}', "key"),
        (b'{"data":1,"headers":{"a":1}}', "headers[...]"),
        (b'{"data":1,"headers":[]}', "headers"),
        (b'{"data":1,"reply_to":{}}', "reply_to"),
        (b'{"data":' + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b"}", "data"),
        (b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "data"),
        (b'{"data":1,"key":""}', "key"),
        (b'{"data":[1e999]}', "data"),
        (b'{"data":{"a":-' + b"9" * 5000 + b"}}", "data"),
    ],
)
def test_invalid_message_names_the_field(owner: Caller, path: str, body: bytes, field: str) -> None:
    assert refused(owner.post(path, content=body)) == (422, "invalid", field)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"1",
        b"null",
        b"[]",
        b"{",
        b'{"data":}',
        b'{"data":1} x',
        b'{"data":"\xff"}',
        b'{"data":NaN}',
        b"\xef\xbb\xbf{}",
        b'{"data":tru}',
    ],
)
def test_body_that_is_not_a_json_object_is_refused(owner: Caller, path: str, body: bytes) -> None:
    assert refused(owner.post(path, content=body)) == (400, "bad_json", None)


def test_message_larger_than_a_frame_is_refused(owner: Caller, path: str) -> None:
    assert refused(owner.post(path, json={"data": "x" * 70_000})) == (413, "too_large", None)


@given(
    body=st.binary(max_size=64)
    | st.recursive(st.none() | st.text(), st.lists).map(lambda x: str(x).encode("utf-8", "surrogatepass"))
)
def test_no_body_causes_an_internal_error(owner: Caller, path: str, body: bytes) -> None:
    assert owner.post(path, content=body).status_code in (400, 422)


def test_members_and_agents_can_publish_but_viewers_cannot(rest_app: RestApp, tenant: Tenant, path: str) -> None:
    agent = tenant.agent()
    answer = agent.login().post(path, json={"data": "from an agent"})
    assert answer.status_code == 201
    assert stored(rest_app, tenant, answer.json()["seq"]).sender == agent.id
    assert tenant.member(Role.MEMBER).post(path, json={"data": 1}).status_code == 201
    assert refused(tenant.member(Role.VIEWER).post(path, json={"data": 1})) == (403, "forbidden", None)
