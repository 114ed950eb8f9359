"""The REST client with servers of another kind, and with missing servers."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from artcafe.errors import (
    AgentNotFound,
    ArtcafeError,
    BadCredentials,
    ChallengeRefused,
    CredentialsExpired,
    Invalid,
    KeyUnusable,
    OutcomeUnknown,
    RateExceeded,
    Unavailable,
    UnknownError,
)
from artcafe.sdk.client import Client
from artcafe.sdk.keys import Signer, load_signer
from artcafe.sdk.token_records import Token
from tests import ssh_keygen
from tests.conftest import Require


@asynccontextmanager
async def server(status: str, body: str) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Run a server with one fixed response; yield its URL and the requests' heads. An empty status closes the connection
    instead."""
    heads: list[bytes] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        if status:
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write((head + body).encode("ascii"))
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", heads


async def failure(status: str, body: str, *, reading: bool = False) -> ArtcafeError:
    """Return the error of a call with this response."""
    async with server(status, body) as (url, _), Client(url, "token", max_retry_s=0) as rest:
        with pytest.raises(ArtcafeError) as caught:
            await (rest.home() if reading else rest.create_tenant("Example"))
    return caught.value


async def test_problem_response_is_raised_as_its_error() -> None:
    problem = '{"type":"/docs/errors#agent_not_found","status":404,"detail":"no agent here","code":"agent_not_found"}'
    found = await failure("404 Not Found", problem)
    assert isinstance(found, AgentNotFound)
    assert str(found) == "no agent here"


async def test_unknown_problem_of_a_newer_server_keeps_its_code_and_text() -> None:
    found = await failure("418 Teapot", '{"code":"short_and_stout","detail":"tip me over"}')
    assert isinstance(found, UnknownError)
    assert str(found) == "short_and_stout: tip me over"


@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        ("502 Bad Gateway", "<html>", Unavailable, "a proxy answered HTTP 502"),
        ("404 Not Found", "<html>", Invalid, "not as ArtCafe does"),
        ("301 Moved", "", Invalid, "HTTP 301"),
        ("200 OK", "<html>", Invalid, "is not one of ArtCafe's REST API"),
        ("200 OK", '{"id":"ten_1"}', Invalid, "is not one of ArtCafe's REST API"),
    ],
)
async def test_response_of_another_server_is_reported_as_such(status: str, body: str, kind: type, text: str) -> None:
    found = await failure(status, body)
    assert isinstance(found, kind)
    assert text in str(found)


async def test_lost_response_is_outcome_unknown_for_a_change_and_unavailable_for_a_read() -> None:
    assert isinstance(await failure("", ""), OutcomeUnknown)
    assert isinstance(await failure("", "", reading=True), Unavailable)


async def test_unreachable_server_is_unavailable_with_the_reason() -> None:
    async with server("200 OK", "{}") as (url, _):
        pass
    async with Client(url, max_retry_s=0) as rest:
        with pytest.raises(Unavailable, match="connection refused"):
            await rest.home()


async def test_token_is_sent_in_its_header_and_shown_in_no_text() -> None:
    async with server("200 OK", "{}") as (url, heads), Client(url, "very-secret") as rest:
        with pytest.raises(Invalid) as caught:
            await rest.home()
        assert b"authorization: bearer very-secret" in heads[0].lower()
        assert "very-secret" not in repr(rest) + str(caught.value)
    assert "very-secret" not in repr(Token("very-secret", "Bearer", 900))


async def test_key_is_sent_as_the_idempotency_key() -> None:
    async with server("200 OK", "{}") as (url, heads), Client(url) as rest:
        with pytest.raises(Invalid):
            await rest.tenant("ten/1").channels.create("name", key="once")
        assert heads[0].startswith(b"POST /v1/tenants/~74656e2f31/channels HTTP/1.1")
        assert b"idempotency-key: once" in heads[0].lower()


async def test_login_does_not_sign_a_challenge_for_another_agent() -> None:
    class Unasked:
        public_key = "ssh-ed25519 AAAA"

        async def sign(self, challenge: str) -> str:
            pytest.fail("it must not be asked")

    signer: Signer = Unasked()
    posed = '{"challenge_id":"chl_1","challenge":"transfer everything","expires_at":"2026-11-22T16:50:57.123Z"}'
    async with server("201 Created", posed) as (url, _), Client(url) as rest:
        with pytest.raises(ChallengeRefused):
            await rest.login("ten_1", "agt_1", signer)


async def test_lost_response_to_a_delete_says_it_may_be_repeated() -> None:
    async with server("", "") as (url, _), Client(url, max_retry_s=0) as rest:
        with pytest.raises(OutcomeUnknown, match="it may be repeated") as caught:
            await rest.tenant("ten_1").channels.delete("chn_1")
        assert "same key" not in str(caught.value)


async def test_malformed_page_is_refused() -> None:
    async with server("200 OK", '{"items":[{"id":"chn_1"}],"next_cursor":null}') as (url, _), Client(url) as rest:
        with pytest.raises(Invalid, match="is not one of ArtCafe's REST API"):
            [each async for each in rest.tenant("ten_1").channels.list()]


# --- what is refused before it is sent -----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [math.nan, [1.5, math.inf], {"a": b"bytes"}, {1, 2}, "\ud800", msgspec.Raw(b"{")])
async def test_data_unknown_to_json_is_refused_before_sending(data: object) -> None:
    async with server("500 Error", "") as (url, heads), Client(url) as rest:
        with pytest.raises((Invalid, TypeError), match="data"):
            await rest.tenant("ten_1").messages.publish("chn_1", data)
        assert heads == []


async def test_every_call_refuses_text_that_cannot_be_sent() -> None:
    async with server("500 Error", "") as (url, heads), Client(url) as rest:
        for call in (
            rest.create_tenant("\ud800"),
            rest.tenant("ten_1").channels.create("name", key="sch\u00f6n"),
            rest.tenant("ten_1").agents.delete("\ud800"),
            rest.tenant("ten_1").messages.publish("chn_1", 1, headers={"a": "\udfff"}),
            anext(rest.tenant("ten_1").agents.list(capability="\ud800")),
        ):
            with pytest.raises(Invalid):
                await call
        assert heads == []


# --- a login that is renewed -------------------------------------------------------------------------------------------------


class Expiring:
    """A server with tokens `token-1`, `token-2` and so on. The test sets when they expire."""

    def __init__(self) -> None:
        self.good: str | None = None
        self.logins = 0
        self.refusal: str | None = None
        self.service = "x"
        self.is_mute = False
        """Hangs up on whoever proves something."""
        self.changes: list[str] = []
        self.url = ""

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[str, object]:
        match path:
            case "/v1/auth/challenges":
                text = (
                    f"artcafe login 1 service={self.service} tenant=ten_1 agent=agt_1 challenge=chl_1 nonce={'0' * 64} expires=x"
                )
                return "201 Created", {"challenge_id": "chl_1", "challenge": text, "expires_at": "2026-11-22T16:50:57.123Z"}
            case "/v1/auth/tokens" if self.refusal is None:
                self.logins += 1
                self.good = f"Bearer token-{self.logins}"
                return "200 OK", {"access_token": f"token-{self.logins}", "token_type": "Bearer", "expires_in": 900}
            case "/v1/auth/tokens":
                return "401 Unauthorized", {"code": self.refusal, "detail": "no"}
            case _ if headers.get("authorization") != self.good:
                return "401 Unauthorized", {"code": "credentials_expired", "detail": "the access token has expired"}
            case "/v1/me":
                return "200 OK", {"agent_id": "agt_1", "tenant_id": "ten_1"}
        self.changes.append(f"{method} {body.decode()}")
        return "201 Created", {"seq": len(self.changes), "message_id": "msg_1", "duplicate": False}

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        method, path, _ = first.split()
        if self.is_mute and path == "/v1/auth/tokens":
            writer.close()
            return
        status, answer = self.answer(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))
        text = json.dumps(answer)
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode())
        writer.close()


@pytest.fixture
async def expiring() -> AsyncIterator[Expiring]:
    server = Expiring()
    async with await asyncio.start_server(server.converse, "127.0.0.1", 0) as listener:
        server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        yield server


@pytest.fixture
def key_file(tmp_path: Path, require: Require) -> Path:
    require("ssh-keygen", ssh_keygen.PRESENT)
    return ssh_keygen.make_key(tmp_path / "key")


@pytest.mark.parametrize("form", [Path, str, load_signer])
async def test_expired_login_is_renewed_by_its_key_and_the_request_is_sent_once(
    expiring: Expiring, key_file: Path, form: Callable[[Path], Path | str | Signer]
) -> None:
    async with Client(expiring.url) as rest:
        assert (await rest.login("ten_1", "agt_1", form(key_file))).access_token == "token-1"
        expiring.good = None
        assert (await rest.tenant("ten_1").messages.publish("chn_1", 7, key="k")).seq == 1
        assert (rest.token, expiring.logins, len(expiring.changes)) == ("token-2", 2, 1)


async def test_concurrent_requests_with_an_expired_token_log_in_once(expiring: Expiring, key_file: Path) -> None:
    async with Client(expiring.url) as rest:
        await rest.login("ten_1", "agt_1", key_file)
        expiring.good = None
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(rest.me())
        assert expiring.logins == 2


async def test_refused_renewal_is_raised_and_retried_by_the_next_request(expiring: Expiring, key_file: Path) -> None:
    async with Client(expiring.url) as rest:
        await rest.login("ten_1", "agt_1", key_file)
        expiring.good, expiring.refusal = None, "bad_credentials"
        with pytest.raises(BadCredentials):
            await rest.me()
        expiring.refusal = None
        await rest.me()


async def test_token_set_by_the_program_is_not_renewed(expiring: Expiring, key_file: Path) -> None:
    async with Client(expiring.url, "mine") as rest:
        with pytest.raises(CredentialsExpired):
            await rest.me()
        await rest.login("ten_1", "agt_1", key_file)
        rest.token = "another"
        with pytest.raises(CredentialsExpired):
            await rest.me()
        assert expiring.logins == 1


async def test_path_without_a_key_is_refused_before_sending(expiring: Expiring, tmp_path: Path) -> None:
    async with Client(expiring.url) as rest:
        with pytest.raises(KeyUnusable, match="cannot be read"):
            await rest.login("ten_1", "agt_1", tmp_path / "none")


async def test_lost_response_to_a_login_is_unavailable(expiring: Expiring, key_file: Path) -> None:
    async with Client(expiring.url, max_retry_s=0) as rest:
        await rest.login("ten_1", "agt_1", key_file)
        expiring.good, expiring.is_mute = None, True
        with pytest.raises(Unavailable):
            await rest.tenant("ten_1").messages.publish("chn_1", 7)
        assert expiring.changes == []


# --- several servers -----------------------------------------------------------------------------------------------------


async def test_request_goes_to_the_next_server_if_one_accepts_no_connection() -> None:
    tenant = {"id": "ten_1", "name": "Example", "plan": "basic", "role": "owner", "limits": {}}
    body = json.dumps(tenant | dict.fromkeys(("created_at", "updated_at"), "2026-11-28T00:00:00Z"))
    async with server("200 OK", "") as (closed, _):
        pass
    async with (
        server("200 OK", body) as (there, heads),
        Client(f"{closed}, {there}/behind", "token") as rest,
    ):
        async with asyncio.TaskGroup() as group:
            made = [group.create_task(rest.create_tenant("Example")) for _ in range(3)]
        assert rest.url == f"{there}/behind"
    assert [each.result().id for each in made] == ["ten_1"] * 3
    assert [head.splitlines()[0] for head in heads] == [b"POST /behind/v1/tenants HTTP/1.1"] * 3
    assert f"host: {there.removeprefix('http://')}" in heads[0].decode().lower()


async def test_error_names_all_servers_if_none_accepts_a_connection() -> None:
    async with server("200 OK", "") as (one, _), server("200 OK", "") as (two, _):
        pass
    async with Client([one, two], "token", max_retry_s=0) as rest:
        with pytest.raises(Unavailable) as caught:
            await rest.home()
    assert one in str(caught.value)
    assert two in str(caught.value)


async def test_renewal_does_not_sign_for_another_service(expiring: Expiring, key_file: Path) -> None:
    async with Client(expiring.url) as rest:
        await rest.login("ten_1", "agt_1", key_file)
        expiring.good, expiring.service = None, "another"
        with pytest.raises(ChallengeRefused, match="names the service 'another', not 'x'"):
            await rest.me()
        assert expiring.logins == 1


@asynccontextmanager
async def limited(refusals: int, retry_after: str = "1") -> AsyncIterator[tuple[str, list[bytes]]]:
    """Run a server that refuses the first requests with 429, and yield its URL and the bodies of all requests."""
    bodies: list[bytes] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        bodies.append(await reader.readexactly(length))
        status, answer = "201 Created", '{"seq":1,"message_id":"msg_1","duplicate":false}'
        if len(bodies) <= refusals:
            state = '{"name":"messages_a_minute","limit":10,"used":10,"left":0,"resets_at":null}'
            status, answer = "429 Too Many Requests", f'{{"code":"too_fast","detail":"too many","limit":{state}}}'
        lines = f"HTTP/1.1 {status}\r\nContent-Length: {len(answer)}\r\nRetry-After: {retry_after}\r\nConnection: close\r\n\r\n"
        writer.write((lines + answer).encode())
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", bodies


async def test_request_above_a_rate_limit_is_repeated_unchanged_after_the_wait() -> None:
    async with limited(1) as (url, bodies), Client(url, "token") as rest:
        assert (await rest.tenant("ten_1").messages.publish("chn_1", {"n": 1}, key="k")).seq == 1
    assert len(bodies) == 2
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize(("retry_after", "max_rate_wait_s"), [("1", 0.0), ("61", 60.0), ("soon", 60.0)])
async def test_request_above_a_rate_limit_fails_if_the_program_does_not_wait_that_long(
    retry_after: str, max_rate_wait_s: float
) -> None:
    async with limited(9, retry_after) as (url, bodies), Client(url, "token", max_rate_wait_s=max_rate_wait_s) as rest:
        with pytest.raises(RateExceeded) as caught:
            await rest.tenant("ten_1").messages.publish("chn_1", {"n": 1}, key="k")
    assert (caught.value.limit, caught.value.most, len(bodies)) == ("messages_a_minute", 10, 1)
