from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlsplit

import httpx2
import pytest
from starlette.types import Message, Scope
from structlog.testing import capture_logs

from artcafe.errors import Unauthenticated, Unavailable
from artcafe.rest.app import MAX_PARAMETERS, MAX_TARGET_BYTES, build
from artcafe.rest.bodies import BODY_MEMORY_BYTES_PER_ADDRESS, JSON_BODY_BYTES, SMALL_BODY_BYTES
from artcafe.rest.headers import HEADERS
from artcafe.rest.problems import MOST_FIELDS
from tests.rest.rest_app import BOUND_S, SETTINGS, Caller, RestApp, Tenant

REQUEST_ID_CHARS = len("req_") + 26


def problem(answer: httpx2.Response) -> dict[str, object]:
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = answer.json()
    assert body["status"] == answer.status_code
    assert body["request_id"] == answer.headers["x-request-id"]
    return body


# --- every answer ------------------------------------------------------------------------------------------------------


def test_every_response_has_a_request_id_of_the_server(anyone: Caller) -> None:
    ids = {anyone.get("/v1", headers={"X-Request-Id": "mine"}).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(id.startswith("req_") and len(id) == REQUEST_ID_CHARS for id in ids)


@pytest.mark.parametrize("path", ["/v1", "/v1/me", "/nothing", "/openapi.json"])
def test_every_response_forbids_caching_and_execution_in_browsers(anyone: Caller, path: str) -> None:
    headers = anyone.get(path).headers
    assert {(name.decode(), headers[name.decode()].encode()) for name, _ in HEADERS} == {(n.decode(), v) for n, v in HEADERS}
    assert "server" not in headers


def test_error_is_a_problem_with_code_and_detail(anyone: Caller) -> None:
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
def test_unknown_path_answers_a_problem(anyone: Caller, path: str) -> None:
    answer = anyone.get(path)
    assert answer.status_code == 404
    assert problem(answer)["code"] == "route_not_found"


def test_unknown_id_is_not_echoed(tenant: Tenant) -> None:
    assert tenant.owner.get(f"{tenant.path}/agents/agt_x").json()["detail"] == "no agent of this id in this tenant"


def test_long_path_is_truncated_in_the_problem(anyone: Caller) -> None:
    answer = anyone.get("/" + "x" * (MAX_TARGET_BYTES - 1))
    assert answer.status_code == 404
    assert len(answer.content) < 1000


@pytest.mark.parametrize("target", ["/" + "x" * MAX_TARGET_BYTES, "/v1?" + "x" * MAX_TARGET_BYTES])
def test_path_and_query_above_the_limit_are_refused(anyone: Caller, target: str) -> None:
    answer = anyone.get(target)
    assert answer.status_code == 413
    assert (
        problem(answer)["detail"] == f"the request's path and query is larger than {MAX_TARGET_BYTES} bytes; nothing was stored"
    )


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("HEAD", "/v1/auth/tokens", "POST"),
        ("OPTIONS", "/v1/tenants", "GET, HEAD, POST"),
        ("DELETE", "/v1/tenants", "GET, HEAD, POST"),
        ("PUT", "/v1/tenants/ten_x/agents/agt_x", "DELETE, GET, HEAD, PATCH"),
        ("POST", "/v1/tenants/ten_x/channels/chn_x/subscriptions/agt_x", "DELETE, GET, HEAD, PATCH, PUT"),
        ("GET", "/v1/auth/tokens", "POST"),
        ("BREW", "/v1/me", "GET, HEAD"),
    ],
)
def test_unsupported_method_answers_405_with_the_allowed_methods(anyone: Caller, method: str, path: str, allowed: str) -> None:
    answer = anyone.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    if method != "HEAD":
        assert problem(answer)["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/v1", "/health/live", "/health/ready", "/openapi.json", "/v1/me", "/v1/nothing"])
def test_head_is_answered_like_get_without_a_body(anyone: Caller, path: str) -> None:
    for _ in range(2):  # Twice on one connection, which must not contain the rest of a response.
        by_get, by_head = anyone.get(path), anyone.head(path)
        assert (by_head.status_code, by_head.content) == (by_get.status_code, b"")
        assert set(by_head.headers) == set(by_get.headers)


async def test_head_of_readiness_answers_503_like_get(rest_app: RestApp) -> None:
    async def fails() -> None:
        raise Unavailable("NATS")

    app = build(rest_app.services_with({"nats": fails}), SETTINGS)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        assert (await client.head("/health/ready")).status_code == 503


async def test_spare_connection_serves_only_health_and_is_closed(rest_app: RestApp) -> None:
    for path, status in (("/health/live", 200), ("/health/ready", 200), ("/v1", 503), ("/healthy", 503)):
        start, body = await ask(rest_app, path, None, method="GET", state={"is_spare": True})
        assert (start["status"], (b"connection", b"close") in start["headers"]) == (status, True), path
        assert (b"overloaded" in body["body"]) is (status == 503)


# --- bodies that are too long or too late ------------------------------------------------------------------------------


def exchange(rest_app: RestApp, *parts: bytes) -> bytes:
    """Return what the server sends in reply to these bytes, until it closes the connection."""
    at = urlsplit(rest_app.url)
    with socket.create_connection((at.hostname or "", at.port or 0), timeout=BOUND_S) as wire:
        for part in parts:
            wire.sendall(part)
        return b"".join(iter(lambda: wire.recv(65536), b""))


def head(*lines: str) -> bytes:
    return "\r\n".join(("POST /v1/auth/challenges HTTP/1.1", "Host: x", *lines, "", "")).encode()


def test_body_with_oversized_content_length_is_refused_before_reading(rest_app: RestApp) -> None:
    said = exchange(rest_app, head("Content-Length: 300000000", "Expect: 100-continue"))
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nconnection: close\r\n" in said.lower()
    assert json.loads(said.partition(b"\r\n\r\n")[2])["code"] == "too_large"


def test_chunked_body_is_refused_at_the_limit(rest_app: RestApp) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    said = exchange(rest_app, head("Transfer-Encoding: chunked"), *[chunk] * 4, b"1\r\nx\r\n")
    assert said.startswith(b"HTTP/1.1 413 ")


def padded(size: int) -> bytes:
    return b"{" + b" " * (size - 2) + b"}"


def test_body_of_exactly_the_limit_is_accepted_and_one_byte_more_refused(tenant: Tenant, anyone: Caller) -> None:
    publish = f"{tenant.path}/channels/{tenant.channel()}/messages"
    for caller, path, limit in (
        (anyone, "/v1/auth/challenges", SMALL_BODY_BYTES),
        (anyone, "/v1/auth/tokens", SMALL_BODY_BYTES),
        (tenant.owner, f"{tenant.path}/agents", JSON_BODY_BYTES),
        (tenant.owner, publish, SETTINGS.max_body_bytes),
    ):
        statuses = [caller.post(path, content=padded(size)).status_code for size in (limit, limit + 1)]
        assert statuses == [422, 413], path
        chunks = (padded(limit + 1)[at : at + 1000] for at in range(0, limit + 1, 1000))
        assert caller.post(path, content=chunks).status_code == 413, path


@pytest.mark.parametrize("framing", ["Content-Length: 200000", "Transfer-Encoding: chunked"])
def test_large_body_of_an_unauthenticated_caller_is_not_buffered(rest_app: RestApp, tenant: Tenant, framing: str) -> None:
    begun = f"POST {tenant.path}/channels/chn_x/messages HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode()
    part = b"%x\r\n%b\r\n" % (SMALL_BODY_BYTES + 1, b"x" * (SMALL_BODY_BYTES + 1))
    said = exchange(rest_app, begun, *([part] if "chunked" in framing else []))
    assert said.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nconnection: close\r\n" in said.lower()


def test_unread_body_closes_the_connection_after_the_response(rest_app: RestApp) -> None:
    said = exchange(rest_app, b"GET /v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nconnection: close\r\n" in said.lower()


# --- what costs much more than it takes to send ------------------------------------------------------------------------


def test_body_with_many_invalid_fields_gets_a_short_response(tenant: Tenant, anyone: Caller) -> None:
    many = b"{" + b",".join(b'"%d":1' % number for number in range(800)) + b"}"
    ones = b'{"name":"x","public_key":"x","capabilities":[' + b",".join([b"1"] * 12_000) + b"]}"
    wrong = {"name": "x", "public_key": "x", "y" * 4000: 1}
    for caller, path, body in (
        (anyone, "/v1/auth/challenges", many),
        (tenant.owner, f"{tenant.path}/agents", many),
        (tenant.owner, f"{tenant.path}/agents", ones),
        (tenant.owner, f"{tenant.path}/agents", json.dumps(wrong).encode()),
    ):
        answer = caller.post(path, content=body)
        assert problem(answer)["code"] == "invalid"
        assert len(answer.content) < 1500


def test_first_invalid_fields_are_named_and_more_are_counted(anyone: Caller) -> None:
    some = anyone.post("/v1/auth/challenges", json={f"x{number}": 1 for number in range(MOST_FIELDS - 2)}).json()
    assert [each["field"] for each in some["errors"]][:3] == ["tenant_id", "agent_id", "x0"]
    assert len(some["errors"]) == MOST_FIELDS
    more = anyone.post("/v1/auth/challenges", json={f"x{number}": 1 for number in range(MOST_FIELDS - 1)}).json()
    assert more["detail"] == f"body: {MOST_FIELDS + 1} fields of it are unknown or wrong"


def test_many_unknown_query_parameters_get_a_short_response(tenant: Tenant) -> None:
    for count in (MAX_PARAMETERS, MAX_PARAMETERS + 1, 400):
        answer = tenant.owner.get(f"{tenant.path}/agents?" + "&".join(f"x{number}=1" for number in range(count)))
        assert problem(answer)["code"] == "invalid"
        assert len(answer.content) < 3000


# --- heads that two parsers read differently ---------------------------------------------------------------------------

AMBIGUOUS = {
    "both lengths": b"GET /v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare LF": b"GET /v1 HTTP/1.1\nHost: x\n\n",
    "one bare LF": b"GET /v1 HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
    "folded": b"GET /v1 HTTP/1.1\r\nHost: x\r\nX: y\r\n z\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "a long head": b"GET /v1 HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 17_000 + b"\r\n\r\n",
}
GOOD = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("request_", AMBIGUOUS.values(), ids=AMBIGUOUS)
@pytest.mark.parametrize("before", [b"", GOOD], ids=["first", "pipelined"])
def test_ambiguous_head_is_refused_and_later_requests_are_ignored(rest_app: RestApp, before: bytes, request_: bytes) -> None:
    said = exchange(rest_app, before + request_ + GOOD)
    good, _, bad = said.partition(b"HTTP/1.1 4")
    assert good.count(b"HTTP/1.1 200") == (1 if before else 0)
    head, _, body = (b"HTTP/1.1 4" + bad).partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head.lower()
    assert all(name in head.lower() for name, _ in HEADERS)
    assert json.loads(body)["code"] == ("too_large" if len(request_) > 16_384 else "bad_request")


def test_unparsable_input_is_counted_and_logged_once_a_minute(rest_app: RestApp) -> None:
    with capture_logs() as logs:
        for _ in range(20):
            exchange(rest_app, AMBIGUOUS["no HTTP"])
    assert len([each for each in logs if each["event"] != "rest.remark"]) <= 1


# --- bodies that are too long or too late, by plain ASGI -----------------------------------------------------------------


async def ask(
    rest_app: RestApp,
    path: str,
    receive: Message | None,
    *,
    method: str = "POST",
    state: Mapping[str, object] | None = None,
    **changes: object,
) -> list[Message]:
    """Return the ASGI messages sent in reply to one request. Without `message`, the body never arrives."""
    sent: list[Message] = []

    async def wait() -> Message:
        if receive is None:
            await asyncio.Event().wait()
        return receive or {}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "method": method, "path": path, "query_string": b"", "state": {**(state or {})}}
    scope["raw_path"] = path.encode()
    scope["headers"] = [(b"content-length", b"9")] if method == "POST" else []
    async with asyncio.timeout(BOUND_S):
        await build(rest_app.services, replace(SETTINGS, **changes))(scope, wait, send)  # type: ignore[arg-type]  # Named by the caller.
    return sent


async def test_metadata_of_mcp_names_the_issuer_and_the_public_url(rest_app: RestApp) -> None:
    path, public_url, issuer = "/v1/tenants/ten_x/mcp", "https://api.example.com", "https://login.example.com"
    well_known = f"/.well-known/oauth-protected-resource{path}"
    body: Message = {"type": "http.request", "body": b"123456789", "more_body": False}
    _, metadata = await ask(rest_app, well_known, body, method="GET", public_url=public_url, issuer=issuer)
    found = json.loads(metadata["body"])
    assert (found["resource"], found["authorization_servers"]) == (public_url + path, [issuer])
    refused, _ = await ask(rest_app, path, body, public_url=public_url, issuer=issuer)
    challenge = f'Bearer resource_metadata="{public_url}{well_known}"'
    assert (b"www-authenticate", challenge.encode()) in refused["headers"]


async def test_late_body_answers_408(rest_app: RestApp) -> None:
    start, body = await ask(rest_app, "/v1/auth/challenges", None, body_deadline_s=0.01)
    assert start["status"] == 408
    assert (b"connection", b"close") in [(name.lower(), value) for name, value in start["headers"]]
    assert json.loads(body["body"])["code"] == "request_timeout"


async def test_unfinished_bodies_share_a_memory_quota_and_release_it(rest_app: RestApp) -> None:
    """Use plain ASGI, because the buffers of a real socket would hold most of the bodies."""
    app, statuses = build(rest_app.services, SETTINGS), []
    part: Message = {"type": "http.request", "body": b" " * SMALL_BODY_BYTES, "more_body": True}

    async def send(message: Message) -> None:
        statuses.append(message.get("status"))

    async def ask_for(address: str, leave: asyncio.Event) -> None:
        parts = [part]

        async def receive() -> Message:
            if not parts:
                await leave.wait()
                return {"type": "http.disconnect"}
            return parts.pop()

        scope: Scope = {"type": "http", "method": "POST", "path": "/v1/auth/challenges", "query_string": b"", "state": {}}
        scope["headers"], scope["client"] = [(b"content-length", b"%d" % SMALL_BODY_BYTES)], (address, 1)
        scope["raw_path"] = scope["path"].encode()
        await app(scope, receive, send)

    for _ in range(2):  # The second round succeeds only if the first released its memory.
        statuses.clear()
        leave = asyncio.Event()
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
            for _ in range(BODY_MEMORY_BYTES_PER_ADDRESS // SMALL_BODY_BYTES):
                group.create_task(ask_for("192.0.2.1", leave))
            await asyncio.sleep(0)
            await ask_for("192.0.2.1", leave)
            other = group.create_task(ask_for("192.0.2.2", leave))
            await asyncio.sleep(0)
            assert (statuses[0], other.done()) == (429, False)
            leave.set()


async def test_request_cancelled_by_the_drain_is_answered_and_logged_once(rest_app: RestApp) -> None:
    begun = asyncio.Event()

    async def stuck() -> None:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    app = build(rest_app.services_with({"nats": stuck}), SETTINGS)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test", timeout=BOUND_S) as client:
        with capture_logs() as logs:
            async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
                asked = group.create_task(client.get("/health/ready"))
                await begun.wait()
                asked.cancel("timeout graceful shutdown exceeded")  # As uvicorn does.
            assert (asked.result().status_code, asked.result().json()["code"]) == (503, "unavailable")
    assert [each["event"] for each in logs] == ["request.cut_off", "request.done"]


async def test_disconnect_before_the_body_gets_no_response(rest_app: RestApp) -> None:
    assert await ask(rest_app, "/v1/auth/challenges", {"type": "http.disconnect"}) == []


# --- what goes wrong inside --------------------------------------------------------------------------------------------


async def test_internal_error_is_logged_once_with_the_request_id_of_the_response(rest_app: RestApp) -> None:
    async def broken() -> None:
        raise ZeroDivisionError("a secret")

    app = build(rest_app.services_with({"nats": broken}), SETTINGS)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        with capture_logs() as logs:
            answer = await client.get("/health/ready")
    assert answer.status_code == 500
    assert problem(answer)["code"] == "internal"
    assert "secret" not in answer.text
    assert [entry["event"] for entry in logs] == ["request.failed", "request.done"]
    assert logs[0]["log_level"] == "error"


def test_request_is_logged_at_debug_with_its_outcome_without_token(tenant: Tenant) -> None:
    with capture_logs() as logs:
        assert tenant.owner.get(tenant.path + "/agents/agt_x?").status_code == 404
        assert tenant.owner.get("/v1").status_code == 200  # On the same connection, so that the first request is logged by now.
    line = logs[0]
    assert (line["log_level"], line["event"], line["method"], line["path"], line["status"], line["code"]) == (
        "debug", "request.done", "GET", f"{tenant.path}/agents/agt_x", 404, "agent_not_found",
    )  # fmt: skip
    assert tenant.owner.token is not None
    assert tenant.owner.token not in str(logs)


def test_logged_path_is_encoded_and_truncated(anyone: Caller) -> None:
    with capture_logs() as logs:
        anyone.get("/%0Ainjected" + "x" * 10_000)
        anyone.get("/v1")
    (path,) = (each["path"] for each in logs if each["event"] == "request.done" and each["path"] != "/v1")
    assert path.startswith("/%0Ainjected")
    assert len(path) < 300
