from __future__ import annotations

from typing import Any

import pytest

from artcafe.rest import auth
from artcafe.rest.direct import DirectRoute
from artcafe.rules.tokens import LIFETIME_S
from tests import ssh_keygen
from tests.rest.rest_app import Agent, Caller, RestApp, Tenant

NOWHERE = "ten_00000000000000000000000000"
NOBODY = "agt_00000000000000000000000000"


@pytest.fixture(scope="module")
def agent(tenant: Tenant) -> Agent:
    return tenant.agent()


def proof(agent: Agent, posed: dict[str, str]) -> dict[str, str]:
    return {"challenge_id": posed["challenge_id"], "signature": ssh_keygen.sign(agent.key, posed["challenge"].encode())}


def test_signed_challenge_is_exchanged_for_a_token(anyone: Caller, agent: Agent) -> None:
    posed = agent.challenge()
    assert set(posed) == {"challenge_id", "challenge", "expires_at"}
    assert all(each in posed["challenge"] for each in (agent.id, agent.tenant.id, posed["challenge_id"], posed["expires_at"]))
    answer = anyone.post("/v1/auth/tokens", json=proof(agent, posed))
    assert answer.status_code == 200
    token = answer.json()
    assert (token.pop("token_type"), token.pop("expires_in")) == ("Bearer", LIFETIME_S)
    assert list(token) == ["access_token"]


def test_idempotency_key_has_no_effect_on_a_login(anyone: Caller, agent: Agent) -> None:
    headers = {"Idempotency-Key": "one"}
    claim = {"tenant_id": agent.tenant.id, "agent_id": agent.id}
    first, second = (anyone.post("/v1/auth/challenges", json=claim, headers=headers) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["challenge_id"] != second.json()["challenge_id"]
    signature = ssh_keygen.sign(agent.key, second.json()["challenge"].encode())
    proof = {"challenge_id": second.json()["challenge_id"], "signature": signature}
    first, second = (anyone.post("/v1/auth/tokens", json=proof, headers=headers) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 401)  # A challenge allows one attempt.


def test_unknown_agent_gets_a_challenge_of_the_same_form(anyone: Caller, agent: Agent) -> None:
    shapes = []
    for tenant_id, agent_id in ((agent.tenant.id, agent.id), (agent.tenant.id, NOBODY), (NOWHERE, NOBODY)):
        answer = anyone.post("/v1/auth/challenges", json={"tenant_id": tenant_id, "agent_id": agent_id})
        assert answer.status_code == 201
        shapes.append({name: len(value) for name, value in answer.json().items()})
    assert shapes[0] == shapes[1] == shapes[2]


def test_all_failed_logins_have_equal_responses(anyone: Caller, rest_app: RestApp, agent: Agent) -> None:
    other = agent.tenant.agent()
    used = proof(agent, agent.challenge())
    assert anyone.post("/v1/auth/tokens", json=used).status_code == 200
    posed = agent.challenge()
    unknown = anyone.post("/v1/auth/challenges", json={"tenant_id": agent.tenant.id, "agent_id": NOBODY}).json()
    failures = [
        used,
        {"challenge_id": posed["challenge_id"], "signature": ssh_keygen.sign(other.key, posed["challenge"].encode())},
        {"challenge_id": agent.challenge()["challenge_id"], "signature": "no signature"},
        {"challenge_id": "chl_00000000000000000000000000", "signature": used["signature"]},
        {"challenge_id": "\n", "signature": ""},
        proof(agent, unknown),
    ]
    answers = [anyone.post("/v1/auth/tokens", json=each) for each in failures]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text.replace(answer.headers["x-request-id"], "") for answer in answers}) == 1
    assert answers[0].json()["code"] == "bad_credentials"


def test_failed_attempt_uses_up_the_challenge(anyone: Caller, agent: Agent) -> None:
    posed = agent.challenge()
    assert anyone.post("/v1/auth/tokens", json={"challenge_id": posed["challenge_id"], "signature": "x"}).status_code == 401
    assert anyone.post("/v1/auth/tokens", json=proof(agent, posed)).status_code == 401


def test_missing_login_field_is_named(anyone: Caller) -> None:
    answer = anyone.post("/v1/auth/challenges", json={"tenant": "x"})
    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["errors"]] == ["tenant_id", "agent_id", "tenant"]


@pytest.mark.parametrize("route", auth.DIRECT, ids=lambda route: route.path)
def test_direct_route_is_the_one_that_the_document_describes(rest_app: RestApp, route: DirectRoute[Any]) -> None:
    operation = rest_app.client().get("/openapi.json").json()["paths"][route.path][route.method.lower()]
    assert next(iter(operation["responses"])) == str(route.status)
    assert not [each for each in operation.get("parameters", []) if each["in"] != "header"]
    content = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert content.endswith(f"/{route.model.__name__}")


@pytest.mark.parametrize("path", [route.path for route in auth.DIRECT])
def test_direct_route_answers_a_bad_request_like_every_other(anyone: Caller, path: str) -> None:
    assert anyone.get(path).status_code == 405
    assert anyone.post(path).json()["code"] == "bad_json"
    assert anyone.post(path, content=b"{").json()["code"] == "bad_json"
    refused = anyone.post(path, json={"more": 1})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
    assert refused.headers["content-type"] == "application/problem+json"
    assert anyone.post(path, content=b" " * (auth.DIRECT[0].most_bytes + 1)).json()["code"] == "too_large"


def test_answer_of_a_direct_route_has_the_headers_of_every_other(anyone: Caller, agent: Agent) -> None:
    direct = anyone.post("/v1/auth/challenges", json={"tenant_id": agent.tenant.id, "agent_id": agent.id})
    other = anyone.get("/v1")
    assert set(direct.headers) == set(other.headers)
    assert direct.headers["content-type"] == other.headers["content-type"] == "application/json"
