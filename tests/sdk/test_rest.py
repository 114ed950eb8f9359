"""The REST client with servers that are no ArtCafe, or are not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from artcafe.errors import AgentNotFound, ArtcafeError, ChallengeRefused, Invalid, OutcomeUnknown, Unavailable, UnknownError
from artcafe.sdk.keys import Signer
from artcafe.sdk.records import Token
from artcafe.sdk.rest import Rest


@asynccontextmanager
async def server(status: str, body: str) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answers every request so; yields its URL and the requests' heads. An empty status hangs up instead."""
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
    """What a call raises that is answered so."""
    async with server(status, body) as (url, _), Rest(url, "token") as rest:
        with pytest.raises(ArtcafeError) as caught:
            await (rest.home() if reading else rest.create_tenant("Example"))
    return caught.value


async def test_a_problem_is_raised_as_the_error_that_it_names() -> None:
    problem = '{"type":"/docs/errors#agent_not_found","status":404,"detail":"no agent here","code":"agent_not_found"}'
    found = await failure("404 Not Found", problem)
    assert isinstance(found, AgentNotFound)
    assert str(found) == "no agent here"


async def test_a_problem_of_a_newer_server_keeps_its_code_and_text() -> None:
    found = await failure("418 Teapot", '{"code":"short_and_stout","detail":"tip me over"}')
    assert isinstance(found, UnknownError)
    assert str(found) == "short_and_stout: tip me over"


@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        ("502 Bad Gateway", "<html>", Unavailable, "a proxy answered HTTP 502"),
        ("404 Not Found", "<html>", Invalid, "not as ArtCafe does"),
        ("301 Moved", "", Invalid, "HTTP 301"),
        ("200 OK", "<html>", Invalid, "is not ArtCafe's REST address"),
        ("200 OK", '{"id":"ten_1"}', Invalid, "is not ArtCafe's REST address"),
    ],
)
async def test_what_answers_and_is_no_artcafe_is_named_so(status: str, body: str, kind: type, text: str) -> None:
    found = await failure(status, body)
    assert isinstance(found, kind)
    assert text in str(found)


async def test_a_lost_answer_leaves_a_change_unknown_and_a_reading_to_be_repeated() -> None:
    assert isinstance(await failure("", ""), OutcomeUnknown)
    assert isinstance(await failure("", "", reading=True), Unavailable)


async def test_nobody_there_is_unavailable_with_the_reason() -> None:
    async with server("200 OK", "{}") as (url, _):
        pass
    async with Rest(url) as rest:
        with pytest.raises(Unavailable, match="connection refused"):
            await rest.home()


async def test_the_token_stands_in_its_header_and_in_no_text() -> None:
    async with server("200 OK", "{}") as (url, heads), Rest(url, "very-secret") as rest:
        with pytest.raises(Invalid) as caught:
            await rest.home()
        assert b"authorization: bearer very-secret" in heads[0].lower()
        assert "very-secret" not in repr(rest) + str(caught.value)
    assert "very-secret" not in repr(Token("very-secret", "Bearer", 900))


async def test_the_key_of_a_request_is_its_idempotency_key() -> None:
    async with server("200 OK", "{}") as (url, heads), Rest(url) as rest:
        with pytest.raises(Invalid):
            await rest.create_channel("ten/1", "name", key="once")
        assert heads[0].startswith(b"POST /v1/tenants/~74656e2f31/channels HTTP/1.1")
        assert b"idempotency-key: once" in heads[0].lower()


async def test_a_login_signs_no_challenge_of_another_agent() -> None:
    class Unasked:
        public_key = "ssh-ed25519 AAAA"

        async def sign(self, challenge: str) -> str:
            pytest.fail("it must not be asked")

    signer: Signer = Unasked()
    posed = '{"challenge_id":"chl_1","challenge":"transfer everything","expires_at":"2026-11-22T16:50:57.123Z"}'
    async with server("201 Created", posed) as (url, _), Rest(url) as rest:
        with pytest.raises(ChallengeRefused):
            await rest.login("ten_1", "agt_1", signer)


async def test_what_was_to_be_deleted_may_be_asked_for_again() -> None:
    async with server("", "") as (url, _), Rest(url) as rest:
        with pytest.raises(OutcomeUnknown, match="it may be repeated") as caught:
            await rest.delete_channel("ten_1", "chn_1")
        assert "same key" not in str(caught.value)


async def test_a_page_that_is_none_is_refused() -> None:
    async with server("200 OK", '{"items":[{"id":"chn_1"}],"next_cursor":null}') as (url, _), Rest(url) as rest:
        with pytest.raises(Invalid, match="is not ArtCafe's REST address"):
            [each async for each in rest.channels("ten_1")]
