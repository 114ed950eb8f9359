"""Repeated requests of the REST client, and its renewed tokens, with a server that fails as often as a test wants."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from artcafe import errors
from artcafe.errors import (
    AgentNotFound,
    AlreadyDelivered,
    ArtcafeError,
    Invalid,
    OutcomeUnknown,
    RequestLost,
    ScheduledNotFound,
    Unavailable,
)
from artcafe.sdk.client import Client

LOST, PROXY, OURS = "", "502 Bad Gateway", "503 Service Unavailable"
GONE = '{"code":"agent_not_found","detail":"no agent here"}'
RECEIPT = '{"seq":1,"message_id":"msg_1","duplicate":false,"acks":[{}]}'
REFUSED = {
    code: f'{{"code":"{code}","detail":"this token is refused"}}'
    for code in ("credentials_expired", "unauthenticated", "revoked")
}


@dataclass
class Failing:
    """A server that answers the next requests with `failures`, and later ones with `status` and `body`."""

    failures: deque[str] = field(default_factory=deque)
    status: str = "200 OK"
    body: str = "{}"
    good_token: str | None = None
    refusal: str = REFUSED["credentials_expired"]
    retry_after: str = "0"
    heads: list[str] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    url: str = ""

    def respond(self, head: str) -> tuple[str, str]:
        """Return the status and the body of the response; an empty status closes the connection instead."""
        if self.failures:
            return self.failures.popleft(), '{"code":"unavailable","detail":"not now"}'
        if self.good_token is not None and f"Bearer {self.good_token}" not in head:
            return "401 Unauthorized", self.refusal
        return self.status, self.body

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0] or 0)
        self.heads.append(head)
        self.bodies.append((await reader.readexactly(length)).decode())
        status, body = self.respond(head)
        if status:
            lines = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nRetry-After: {self.retry_after}\r\n"
            writer.write((lines + "Connection: close\r\n\r\n" + body).encode())
        writer.close()


@pytest.fixture
async def failing() -> AsyncIterator[Failing]:
    server = Failing()
    async with await asyncio.start_server(server.converse, "127.0.0.1", 0) as listener:
        server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        yield server


Calling = Callable[[Client], Awaitable[object]]
REPEATED: dict[str, Calling] = {
    "a read": lambda client: client.ready(),
    "a deletion": lambda client: client.tenant("ten_1").agents.delete("agt_1"),
    "a publish": lambda client: client.tenant("ten_1").messages.publish("chn_1", {"n": 1}),
    "an ack without a receipt": lambda client: client.tenant("ten_1").inbox("agt_1").ack("chn_1", 1),
}
ONCE: dict[str, Calling] = {
    "a creation without a key": lambda client: client.create_tenant("Example"),
    "a change of the name in its path": lambda client: client.tenant("ten_1").agents.update("agt_1", handle="other"),
    "a move to the end of a channel": lambda client: client.tenant("ten_1").subscriptions.update("c", "a", cursor="last"),
    "an ack with a receipt": lambda client: client.tenant("ten_1").inbox("agt_1").ack("chn_1", 1, receipt="r"),
    "a request to an agent": lambda client: client.tenant("ten_1").agents.ask("agt_1", 1),
}


@pytest.mark.parametrize("failure", [LOST, PROXY, OURS])
@pytest.mark.parametrize("call", REPEATED.values(), ids=REPEATED)
async def test_idempotent_call_is_repeated_unchanged_until_it_succeeds(failing: Failing, call: Calling, failure: str) -> None:
    failing.failures.extend([failure] * 2)
    failing.body = '{"status":"ready"}' if call is REPEATED["a read"] else RECEIPT
    async with Client(failing.url, "token") as client:
        await call(client)
    assert len(failing.heads) == 3
    assert len({*failing.heads}) == len({*failing.bodies}) == 1


@pytest.mark.parametrize("failure", [LOST, OURS])
@pytest.mark.parametrize("call", ONCE.values(), ids=ONCE)
async def test_call_that_would_act_twice_is_sent_once(failing: Failing, call: Calling, failure: str) -> None:
    failing.failures.append(failure)
    async with Client(failing.url, "token") as client:
        with pytest.raises((OutcomeUnknown, RequestLost) if failure == LOST else Unavailable):
            await call(client)
    assert len(failing.heads) == 1


async def test_creation_with_a_key_is_repeated_with_that_key(failing: Failing) -> None:
    failing.failures.append(LOST)
    failing.status, failing.body = "409 Conflict", GONE
    async with Client(failing.url, "token") as client:
        with pytest.raises(AgentNotFound):
            await client.create_tenant("Example", key="once")
    assert [head.lower().count("idempotency-key: once") for head in failing.heads] == [1, 1]


@pytest.mark.promise("2a", "2b")
async def test_refused_repeat_of_a_publish_without_a_response_leaves_its_outcome_unknown(failing: Failing) -> None:
    failing.status, failing.body = "400 Bad Request", '{"code":"invalid","detail":"expires_at has passed"}'
    async with Client(failing.url, "token") as client:
        with pytest.raises(Invalid):
            await client.tenant("ten_1").messages.publish("news", 1, key="k")
        failing.failures.append(LOST)
        with pytest.raises(OutcomeUnknown, match="repeat was refused") as unknown:
            await client.tenant("ten_1").messages.publish("news", 1, key="k")
    assert isinstance(unknown.value.__cause__, Invalid)


async def test_call_without_a_connection_is_repeated_although_it_may_act_once_only() -> None:
    server = Failing(status="404 Not Found", body=GONE)
    async with await asyncio.start_server(server.converse, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
    async with Client(f"http://127.0.0.1:{port}", "token", max_retry_s=60) as client, asyncio.TaskGroup() as group:
        created = group.create_task(_error_of(client.create_tenant("Example")))
        await asyncio.sleep(0.05)
        async with await asyncio.start_server(server.converse, "127.0.0.1", port):
            assert isinstance(await created, AgentNotFound)
    assert len(server.heads) == 1


async def _error_of(call: Awaitable[object]) -> ArtcafeError:
    with pytest.raises(ArtcafeError) as caught:
        await call
    return caught.value


async def test_server_that_stays_away_is_unavailable_when_the_time_for_retries_is_over(failing: Failing) -> None:
    failing.failures.extend([OURS] * 99)
    async with Client(failing.url, "token", max_retry_s=0.3) as client:
        with pytest.raises(Unavailable, match="not now"):
            await client.home()
    assert 1 < len(failing.heads) < 50


@pytest.mark.parametrize(("retry_after", "max_retry_s"), [("0", 0.0), ("99", 10.0)])
async def test_nothing_is_repeated_without_time_for_it(failing: Failing, retry_after: str, max_retry_s: float) -> None:
    failing.failures.append(OURS)
    failing.retry_after = retry_after
    async with Client(failing.url, "token", max_retry_s=max_retry_s) as client:
        with pytest.raises(Unavailable):
            await client.home()
    assert len(failing.heads) == 1


async def test_absent_object_counts_as_deleted_only_after_a_lost_response(failing: Failing) -> None:
    failing.status, failing.body = "404 Not Found", GONE
    async with Client(failing.url, "token") as client:
        with pytest.raises(AgentNotFound):
            await client.tenant("ten_1").agents.delete("agt_1")
        failing.failures.append(LOST)
        await client.tenant("ten_1").agents.delete("agt_1")
        failing.failures.append(LOST)
        failing.body = '{"code":"scheduled_not_found","detail":"none"}'
        with pytest.raises(ScheduledNotFound):
            await client.tenant("ten_1").scheduled.cancel("chn_1", "msg_1")


async def test_cancellation_that_is_too_late_names_the_sequence(failing: Failing) -> None:
    failing.status, failing.body = "409 Conflict", '{"code":"already_delivered","detail":"too late","seq":17}'
    async with Client(failing.url, "token") as client:
        with pytest.raises(AlreadyDelivered) as caught:
            await client.tenant("ten_1").scheduled.cancel("chn_1", "msg_1")
    assert caught.value.seq == 17


# --- tokens of a function --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_coroutine", [False, True])
@pytest.mark.parametrize("code", REFUSED)
async def test_token_function_is_called_before_the_first_request_and_when_its_token_is_refused(
    failing: Failing, code: str, is_coroutine: bool
) -> None:
    made: list[str] = []

    def make() -> str:
        made.append(f"token-{len(made) + 1}")
        return made[-1]

    async def make_later() -> str:
        await asyncio.sleep(0)
        return make()

    failing.good_token, failing.body, failing.refusal = "token-1", '{"status":"ready"}', REFUSED[code]
    async with Client(failing.url, make_later if is_coroutine else make) as client:
        assert client.token is None
        await client.ready()
        await client.ready()
        assert made == ["token-1"]
        failing.good_token = "token-2"
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(client.ready())
        assert made == ["token-1", "token-2"]


@pytest.mark.parametrize("code", REFUSED)
async def test_token_function_that_returns_refused_tokens_is_called_once_a_request(failing: Failing, code: str) -> None:
    failing.good_token, failing.refusal = "never", REFUSED[code]
    calls = 0

    def make() -> str:
        nonlocal calls
        calls += 1
        return "stale"

    async with Client(failing.url, make) as client:
        with pytest.raises(errors.REGISTRY[code]):
            await client.me()
        assert (calls, len(failing.heads)) == (2, 2)


async def test_401_of_a_proxy_renews_no_token(failing: Failing) -> None:
    failing.status, failing.body = "401 Unauthorized", "<h1>Who are you?</h1>"
    made: list[str] = []

    def make() -> str:
        made.append("token")
        return "token"

    async with Client(failing.url, make) as client:
        with pytest.raises(errors.Invalid, match="not as ArtCafe does"):
            await client.me()
    assert made == ["token"]


async def test_error_of_a_token_function_is_raised_by_the_request(failing: Failing) -> None:
    def make() -> str:
        raise PermissionError("the refresh token was revoked")

    async with Client(failing.url, make) as client:
        with pytest.raises(PermissionError, match="refresh token"):
            await client.me()
    assert failing.heads == []


async def test_token_set_by_the_program_replaces_its_function(failing: Failing) -> None:
    failing.body, failing.good_token = json.dumps({"status": "ready"}), "mine"
    async with Client(failing.url, lambda: "made") as client:
        client.token = "mine"
        await client.ready()
        assert client.token == "mine"


@pytest.mark.parametrize("token", ["", " ", "a b", "a\n", "t\u00f6ken"])
async def test_text_that_is_no_token_is_refused_before_any_request(failing: Failing, token: str) -> None:
    async with Client(failing.url, token) as client:
        with pytest.raises(Invalid, match="token"):
            await client.me()
    assert failing.heads == []
