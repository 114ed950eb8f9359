from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.types import Message, Scope
from structlog.testing import capture_logs

from artcafe.errors import Unauthenticated
from artcafe.rest.app import HEADERS, build
from tests.rest.house import BOUND_S, SETTINGS, Caller, House, Tenant

REQUEST_ID_CHARS = len("req_") + 26


def problem(answer: httpx.Response) -> dict[str, object]:
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = answer.json()
    assert body["status"] == answer.status_code
    assert body["request_id"] == answer.headers["x-request-id"]
    return body


# --- every answer ------------------------------------------------------------------------------------------------------


def test_every_answer_has_an_id_of_ours_whatever_the_client_sends(anyone: Caller) -> None:
    ids = {anyone.get("/v1", headers={"X-Request-Id": "mine"}).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(id.startswith("req_") and len(id) == REQUEST_ID_CHARS for id in ids)


@pytest.mark.parametrize("path", ["/v1", "/v1/me", "/nothing", "/openapi.json"])
def test_every_answer_tells_a_browser_to_keep_and_run_nothing(anyone: Caller, path: str) -> None:
    headers = anyone.get(path).headers
    assert {(name.decode(), headers[name.decode()].encode()) for name, _ in HEADERS} == {(n.decode(), v) for n, v in HEADERS}
    assert "server" not in headers


def test_an_error_is_a_problem_with_a_code_and_what_to_do(anyone: Caller) -> None:
    answer = anyone.get("/v1/me")
    assert answer.status_code == 401
    assert problem(answer) | {"request_id": ""} == {
        "type": "/docs/errors#unauthenticated",
        "title": "Unauthenticated",
        "status": 401,
        "detail": str(Unauthenticated()),
        "code": "unauthenticated",
        "request_id": "",
    }
    assert answer.headers["www-authenticate"] == "Bearer"


# --- what is not there -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/v1/", "/v1/nothing", "/V1", "/v1//me", "/v1/connect", "/v1/agents"])
def test_a_path_without_a_route_is_a_problem(anyone: Caller, path: str) -> None:
    answer = anyone.get(path)
    assert answer.status_code == 404
    assert problem(answer)["code"] == "route_not_found"


def test_an_id_that_is_not_there_is_not_repeated(tenant: Tenant) -> None:
    assert tenant.owner.get(f"{tenant.path}/agents/agt_x").json()["detail"] == "no agent of this id in this tenant"


def test_a_long_path_is_not_repeated_whole(anyone: Caller) -> None:
    answer = anyone.get("/" + "x" * 10_000)
    assert answer.status_code == 404
    assert len(answer.content) < 1000


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("HEAD", "/v1", "GET"),
        ("OPTIONS", "/v1/tenants", "GET, POST"),
        ("DELETE", "/v1/tenants", "GET, POST"),
        ("PUT", "/v1/tenants/ten_x/agents/agt_x", "DELETE, GET, PATCH"),
        ("POST", "/v1/tenants/ten_x/channels/chn_x/subscriptions/agt_x", "DELETE, GET, PATCH, PUT"),
        ("GET", "/v1/auth/tokens", "POST"),
        ("BREW", "/v1/me", "GET"),
    ],
)
def test_a_method_that_a_path_does_not_take_is_answered_with_those_it_does(
    anyone: Caller, method: str, path: str, allowed: str
) -> None:
    answer = anyone.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    if method != "HEAD":
        assert problem(answer)["code"] == "method_not_allowed"


# --- bodies that are too long or too late ------------------------------------------------------------------------------


def exchange(house: House, *parts: bytes) -> bytes:
    """What the server says to these bytes, until it closes the connection."""
    at = urlsplit(house.url)
    with socket.create_connection((at.hostname or "", at.port or 0), timeout=BOUND_S) as wire:
        for part in parts:
            wire.sendall(part)
        return b"".join(iter(lambda: wire.recv(65536), b""))


def head(*lines: str) -> bytes:
    return "\r\n".join(("POST /v1/auth/challenges HTTP/1.1", "Host: x", *lines, "", "")).encode()


def test_a_body_that_is_declared_too_long_is_refused_before_it_comes(house: House) -> None:
    said = exchange(house, head("Content-Length: 300000000", "Expect: 100-continue"))
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nconnection: close\r\n" in said.lower()
    assert json.loads(said.partition(b"\r\n\r\n")[2])["code"] == "too_large"


def test_a_body_that_grows_too_long_is_refused_at_the_limit(house: House) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    said = exchange(house, head("Transfer-Encoding: chunked"), *[chunk] * 4, b"1\r\nx\r\n")
    assert said.startswith(b"HTTP/1.1 413 ")


def test_a_body_of_just_the_limit_is_read(anyone: Caller) -> None:
    answer = anyone.post("/v1/auth/challenges", content=b"{" + b" " * (SETTINGS.max_body_bytes - 2) + b"}")
    assert answer.status_code == 422


async def ask(house: House, path: str, receive: Message | None, **changes: object) -> list[Message]:
    """What the application sends to one request, over plain ASGI; without a message the body never comes."""
    told: list[Message] = []

    async def wait() -> Message:
        if receive is None:
            await asyncio.Event().wait()
        return receive or {}

    async def send(message: Message) -> None:
        told.append(message)

    scope: Scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": [], "state": {}}
    async with asyncio.timeout(BOUND_S):
        await build(house.services, replace(SETTINGS, **changes))(scope, wait, send)  # type: ignore[arg-type]  # Named by the caller.
    return told


async def test_a_body_that_does_not_come_in_time_is_given_up(house: House) -> None:
    start, body = await ask(house, "/v1/auth/challenges", None, body_deadline_s=0.01)
    assert start["status"] == 408
    assert (b"connection", b"close") in [(name.lower(), value) for name, value in start["headers"]]
    assert json.loads(body["body"])["code"] == "request_timeout"


async def test_nobody_is_answered_who_left_before_the_body_was_here(house: House) -> None:
    assert await ask(house, "/v1/auth/challenges", {"type": "http.disconnect"}) == []


# --- what goes wrong inside --------------------------------------------------------------------------------------------


async def test_an_error_of_ours_is_logged_once_under_the_id_that_the_caller_gets(house: House) -> None:
    async def broken() -> Mapping[str, str]:
        raise ZeroDivisionError("a secret")

    app = build(replace(house.services, health=broken), SETTINGS)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        with capture_logs() as logs:
            answer = await client.get("/health/ready")
    assert answer.status_code == 500
    assert problem(answer)["code"] == "internal"
    assert "secret" not in answer.text
    assert [entry["event"] for entry in logs] == ["request.failed", "request.done"]
    assert logs[0]["log_level"] == "error"


def test_a_request_is_told_at_debug_with_its_outcome_and_without_its_token(tenant: Tenant) -> None:
    with capture_logs() as logs:
        assert tenant.owner.get(tenant.path + "/agents/agt_x?").status_code == 404
        assert tenant.owner.get("/v1").status_code == 200  # On the same connection: what came before is told by now.
    told = logs[0]
    assert (told["log_level"], told["event"], told["method"], told["path"], told["status"], told["code"]) == (
        "debug", "request.done", "GET", f"{tenant.path}/agents/agt_x", 404, "agent_not_found",
    )  # fmt: skip
    assert tenant.owner.token is not None
    assert tenant.owner.token not in str(logs)


def test_no_path_begins_a_line_of_the_log_or_fills_it(anyone: Caller) -> None:
    with capture_logs() as logs:
        anyone.get("/%0Ainjected" + "x" * 10_000)
        anyone.get("/v1")
    (path,) = (each["path"] for each in logs if each["event"] == "request.done" and each["path"] != "/v1")
    assert path.startswith("/%0Ainjected")
    assert len(path) < 300
