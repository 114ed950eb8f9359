"""Requests between agents on one server, as a client without the SDK sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest

from artcafe.services.requests import MAX_PENDING_OF_SENDER
from artcafe.wire.frames import MAX_REQUESTS
from tests.gateway.raw_client import RawClient, open_client
from tests.platform import Cast, Platform


@asynccontextmanager
async def connected(platform: Platform, cast: Cast, number: int, **more: object) -> AsyncIterator[RawClient]:
    """Connect an agent of the tenant by a signature."""
    async with open_client(platform.gateway_url) as raw:
        assert "session_id" in await raw.login(cast.tenant, cast.agents[number], cast.keys[number], **more)
        yield raw


@asynccontextmanager
async def asker_and_answerer(platform: Platform, **more: object) -> AsyncIterator[tuple[RawClient, RawClient, Cast]]:
    """Connect two agents of a new tenant: the first one asks, the second one answers."""
    cast = await platform.tenant_with(agents=2, channels=0)
    async with connected(platform, cast, 0) as asker, connected(platform, cast, 1, **more) as answerer:
        yield asker, answerer, cast


async def pushed(raw: RawClient, kind: str = "request") -> dict[str, Any]:
    """Return the next frame, which must be a push of this kind."""
    frame = raw.pushes.pop(0) if raw.pushes else await raw.next()
    assert list(frame) == [kind], frame
    body: dict[str, Any] = frame[kind]
    return body


async def answer_to(raw: RawClient, id: int) -> dict[str, Any]:
    """Return the next answer to a request, or its error."""
    frame = await raw.next()
    assert frame["id"] == id, frame
    found: dict[str, Any] = frame.get("request") or frame["error"]
    return found


async def ask(raw: RawClient, cast: Cast, number: int = 1, **body: object) -> int:
    """Send a request to an agent of the tenant, and return the id of the command."""
    return await raw.say("request", **({"agent": cast.agents[number], "data": {"n": 1}, "timeout_s": 20} | body))


@pytest.mark.promise("q1", "q20")
async def test_request_is_answered_by_the_agent_that_was_asked(platform: Platform) -> None:
    async with asker_and_answerer(platform) as (asker, answerer, cast):
        id = await ask(asker, cast, data={"text": "é", "n": 1e2}, headers={"traceparent": "x", "trace": "7f3a"})
        request = await pushed(answerer)
        deadline = request.pop("deadline")
        assert deadline.endswith("Z")
        request_id = request.pop("request_id")
        assert request == {
            "from": cast.agents[0],
            "headers": {"traceparent": "x", "trace": "7f3a"},
            "data": {"text": "é", "n": 100.0},
        }
        assert await answerer.ask("reply", request_id=request_id, data=[1, None]) == {"request_id": request_id}
        assert await answer_to(asker, id) == {
            "request_id": request_id, "from": cast.agents[1], "more": False, "data": [1, None],
        }  # fmt: skip
        assert (await answerer.ask("reply", request_id=request_id, data=1))["code"] == "not_pending"
        assert await asker.is_quiet()


@pytest.mark.promise("q3")
async def test_several_answers_end_with_the_last_one_or_with_a_reply_without_data(platform: Platform) -> None:
    async with asker_and_answerer(platform) as (asker, answerer, cast):
        for last in ({"data": 3}, {}):
            id = await ask(asker, cast, max_replies=10)
            request_id = (await pushed(answerer))["request_id"]
            for part in ({"data": 1, "more": True}, {"data": None, "more": True}, last):
                assert "code" not in await answerer.ask("reply", request_id=request_id, **part)
            found = [await answer_to(asker, id) for _ in range(3)]
            assert [(each["more"], each.get("data", "none")) for each in found] == [
                (True, 1),
                (True, None),
                (False, last.get("data", "none")),
            ]


@pytest.mark.promise("q3", "q11")
async def test_answers_above_max_replies_are_not_taken(platform: Platform) -> None:
    async with asker_and_answerer(platform) as (asker, answerer, cast):
        id = await ask(asker, cast, max_replies=2)
        request_id = (await pushed(answerer))["request_id"]
        for number in range(2):
            await answerer.ask("reply", request_id=request_id, data=number, more=True)
        assert [(each["data"], each["more"]) for each in [await answer_to(asker, id) for _ in range(2)]] == [
            (0, True),
            (1, False),
        ]
        assert await pushed(answerer, "cancel") == {"request_id": request_id, "reason": "max_replies"}
        assert (await answerer.ask("reply", request_id=request_id, data=3))["code"] == "not_pending"


@pytest.mark.promise("q7", "q8")
async def test_error_of_the_agent_is_passed_on_and_cannot_pass_for_one_of_the_server(platform: Platform) -> None:
    async with asker_and_answerer(platform) as (asker, answerer, cast):
        id = await ask(asker, cast)
        request_id = (await pushed(answerer))["request_id"]
        await answerer.ask("reply", request_id=request_id, error={"code": "revoked", "message": "no capacity"})
        assert await answer_to(asker, id) == {
            "code": "agent_error", "message": "no capacity", "temporary": False, "delivered": True, "agent_code": "revoked",
        }  # fmt: skip
        assert await asker.is_quiet()


INVALID_ANSWERS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"data": 1, "error": {"code": "x"}}, "invalid"),
    ({"error": {"code": "x"}, "more": True}, "invalid"),
    ({"more": True}, "invalid"),
    ({"error": {"code": ""}}, "bad_command"),
    ({"error": {"code": "x" * 65}}, "bad_command"),
    ({"error": {"code": "x", "message": "x" * 1025}}, "bad_command"),
    ({"data": 1, "again": 1}, "bad_command"),
)


async def test_invalid_answer_is_refused_and_the_request_can_still_be_answered(platform: Platform) -> None:
    async with asker_and_answerer(platform) as (asker, answerer, cast):
        id = await ask(asker, cast)
        request_id = (await pushed(answerer))["request_id"]
        for reply, code in INVALID_ANSWERS:
            assert (await answerer.ask("reply", request_id=request_id, **reply))["code"] == code
        assert "code" not in await answerer.ask("reply", request_id=request_id, data=2)
        assert (await answer_to(asker, id))["data"] == 2


INVALID_REQUESTS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"timeout_s": 0.9}, "bad_command"),
    ({"timeout_s": 120.5}, "bad_command"),
    ({"timeout_s": 1e300}, "bad_command"),
    ({"max_replies": 0}, "bad_command"),
    ({"max_replies": 1001}, "bad_command"),
    ({"headers": {"x": "y" * 1025}}, "invalid"),
    ({"headers": {str(number): "" for number in range(33)}}, "invalid"),
    ({"agent": "agt_none"}, "agent_not_found"),
    ({"agent": ""}, "agent_not_found"),
    ({"agent": "*"}, "agent_not_found"),
)


@pytest.mark.promise("q4")
async def test_invalid_request_is_refused(platform: Platform) -> None:
    async with asker_and_answerer(platform) as (asker, answerer, cast):
        for body, code in INVALID_REQUESTS:
            assert (await answer_to(asker, await ask(asker, cast, **body)))["code"] == code, body
        assert await answerer.is_quiet()


@pytest.mark.promise("q5", "q6")
async def test_agent_that_is_not_connected_or_takes_no_requests_is_away(platform: Platform) -> None:
    async with asker_and_answerer(platform, max_requests=0) as (asker, answerer, cast):
        away = await answer_to(asker, await ask(asker, cast))
        assert (away["code"], away["temporary"], away["delivered"]) == ("agent_away", True, False)
        assert await answerer.ask("accept", max_requests=1) == {"max_requests": 1}
        id = await ask(asker, cast)
        request_id = (await pushed(answerer))["request_id"]
        busy = await answer_to(asker, await ask(asker, cast))
        assert (busy["code"], busy["temporary"], busy["delivered"]) == ("agent_busy", True, False)
        await answerer.ask("accept", max_requests=0)
        assert (await answer_to(asker, await ask(asker, cast)))["code"] == "agent_away"
        await answerer.ask("reply", request_id=request_id, data="still answered")
        assert (await answer_to(asker, id))["data"] == "still answered"


@pytest.mark.promise("q5")
async def test_disabled_agent_is_away(platform: Platform) -> None:
    async with asker_and_answerer(platform) as (asker, _, cast):
        async with cast.rest() as rest:
            await rest.tenant(cast.tenant).agents.update(cast.agents[1], status="disabled")
        assert (await answer_to(asker, await ask(asker, cast)))["code"] == "agent_away"


@pytest.mark.promise("q5", "q12")
async def test_asker_is_notified_at_once_when_the_agent_disconnects(platform: Platform) -> None:
    async with asker_and_answerer(platform) as (asker, answerer, cast):
        ids = [await ask(asker, cast) for _ in range(2)]
        for _ in ids:
            await pushed(answerer)
        answerer.socket.transport.abort()
        left = [await asker.next() for _ in ids]
        assert sorted(each["id"] for each in left) == ids
        assert {(each["error"]["code"], each["error"]["delivered"]) for each in left} == {("agent_away", True)}


@pytest.mark.promise("q9", "q10", "q11", "q14")
async def test_agent_is_notified_when_the_asker_cancels_or_disconnects(platform: Platform) -> None:
    async with asker_and_answerer(platform) as (asker, answerer, cast):
        for _ in range(2):
            id = await ask(asker, cast)
            request_id = (await pushed(answerer))["request_id"]
            await asker.send(cancel={"id": id})
            assert await pushed(answerer, "cancel") == {"request_id": request_id, "reason": "cancelled"}
            assert (await answer_to(asker, id))["code"] == "cancelled"
            await asker.send(cancel={"id": id})
            await asker.send(cancel={"id": 2**53})
            assert await asker.is_quiet()
            assert (await answerer.ask("reply", request_id=request_id, data=1))["code"] == "not_pending"
        await ask(asker, cast)
        request_id = (await pushed(answerer))["request_id"]
        asker.socket.transport.abort()
        assert await pushed(answerer, "cancel") == {"request_id": request_id, "reason": "asker_away"}


@pytest.mark.promise("q4", "q9", "q10", "q11")
async def test_both_sides_are_notified_of_the_deadline(platform: Platform) -> None:
    async with asker_and_answerer(platform) as (asker, answerer, cast):
        id = await ask(asker, cast, timeout_s=1, max_replies=3)
        request_id = (await pushed(answerer))["request_id"]
        await answerer.ask("reply", request_id=request_id, data=1, more=True)
        assert (await answer_to(asker, id))["data"] == 1
        late = await answer_to(asker, id)
        assert (late["code"], late["temporary"], "delivered" in late) == ("timed_out", True, False)
        assert await pushed(answerer, "cancel") == {"request_id": request_id, "reason": "timed_out"}
        assert (await answerer.ask("reply", request_id=request_id, data=2))["code"] == "not_pending"


@pytest.mark.promise("12d", "q2", "q14")
async def test_requests_are_shared_among_the_sockets_of_an_agent_and_answered_by_their_holder(platform: Platform) -> None:
    async with asker_and_answerer(platform) as (asker, one, cast), connected(platform, cast, 1) as other:
        ids = [await ask(asker, cast, data=number) for number in range(4)]
        held = {id(raw): [await pushed(raw) for _ in range(2)] for raw in (one, other)}
        assert sorted(each["data"] for requests in held.values() for each in requests) == [0, 1, 2, 3]
        first = held[id(one)][0]
        assert (await other.ask("reply", request_id=first["request_id"], data="stolen"))["code"] == "not_pending"
        await one.ask("reply", request_id=first["request_id"], data="mine")
        assert (await answer_to(asker, ids[first["data"]]))["data"] == "mine"
        next_id = await ask(asker, cast, data="next")
        assert (await pushed(one))["data"] == "next", "the least busy socket"
        one.socket.transport.abort()
        left = sorted([await asker.next() for _ in range(2)], key=lambda each: int(each["id"]))
        assert [each["id"] for each in left] == [ids[held[id(one)][1]["data"]], next_id]
        assert await other.is_quiet(), "nothing is sent a second time"


@pytest.mark.promise("q16")
async def test_pending_requests_of_an_agent_are_limited(platform: Platform) -> None:
    async with AsyncExitStack() as stack:
        asker, one, cast = await stack.enter_async_context(asker_and_answerer(platform))
        more = MAX_PENDING_OF_SENDER // MAX_REQUESTS
        sockets = [one, *[await stack.enter_async_context(connected(platform, cast, 1)) for _ in range(more)]]
        for _ in range(MAX_PENDING_OF_SENDER):
            await ask(asker, cast)
        refused = await answer_to(asker, await ask(asker, cast))
        assert (refused["code"], refused["temporary"]) == ("too_many_pending", True)
        async with asyncio.timeout(20):
            request = await pushed(sockets[0])
        await sockets[0].ask("reply", request_id=request["request_id"], data=1)
        assert (await asker.next())["request"]["data"] == 1
        await ask(asker, cast)
        assert await asker.is_quiet()


async def test_id_of_a_pending_request_is_not_used_again(platform: Platform) -> None:
    async with asker_and_answerer(platform) as (asker, answerer, cast):
        id = await ask(asker, cast)
        await pushed(answerer)
        await asker.send(id=id, request={"agent": cast.agents[1], "data": 2})
        assert (await asker.next())["error"]["code"] == "bad_command"
        assert await answerer.is_quiet()


async def test_agent_may_ask_itself(platform: Platform) -> None:
    async with asker_and_answerer(platform) as (asker, _, cast):
        id = await ask(asker, cast, 0)
        request = await pushed(asker)
        asker.pushes.clear()
        await asker.say("reply", request_id=request["request_id"], data="me")
        found = [await asker.next() for _ in range(2)]
        assert next(each["request"]["data"] for each in found if each["id"] == id) == "me"


async def test_person_asks_an_agent_over_rest(platform: Platform) -> None:
    async with asker_and_answerer(platform) as (_, answerer, cast):
        path = f"/v1/tenants/{cast.tenant}/agents/{cast.agents[1]}/requests"
        headers = {"Authorization": f"Bearer {cast.token}"}
        async with (
            httpx2.AsyncClient(base_url=platform.url, headers=headers, trust_env=False) as rest,
            asyncio.TaskGroup() as group,
        ):
            asking = group.create_task(rest.post(path, json={"data": {"n": 1}, "headers": {"trace": "7f3a"}}))
            request = await pushed(answerer)
            assert request["from"].startswith("usr:")
            assert (request["data"], request["headers"]) == ({"n": 1}, {"trace": "7f3a"})
            await answerer.ask("reply", request_id=request["request_id"], data="done")
            answer = await asking
            assert (answer.status_code, answer.json()) == (
                200,
                {"request_id": request["request_id"], "from": cast.agents[1], "data": "done"},
            )

            failing = group.create_task(rest.post(path, json={"data": 1}))
            request = await pushed(answerer)
            await answerer.ask("reply", request_id=request["request_id"], error={"code": "no_capacity", "message": "later"})
            problem = (await failing).json()
            assert [problem[name] for name in ("status", "code", "detail", "agent_code", "delivered")] == [
                502, "agent_error", "later", "no_capacity", True,
            ]  # fmt: skip

            leaving = group.create_task(rest.post(path, json={"data": 1}))
            request = await pushed(answerer)
            leaving.cancel()
            assert await pushed(answerer, "cancel") == {"request_id": request["request_id"], "reason": "asker_away"}

            late = await rest.post(path, json={"data": 1, "timeout_s": 1})
            assert (late.status_code, late.json()["code"]) == (504, "timed_out")
            for body, status in (({}, 422), ({"data": 1, "timeout_s": 0}, 422), ({"data": 1, "more": 1}, 422), ([], 400)):
                assert (await rest.post(path, json=body)).status_code == status
            keyed = await rest.post(path, json={"data": 1}, headers={"Idempotency-Key": "k"})
            assert (keyed.status_code, keyed.json()["code"]) == (422, "invalid")


@pytest.mark.promise("q9")
async def test_asker_that_does_not_read_its_answers_ends_the_request(platform: Platform) -> None:
    async with asker_and_answerer(platform) as (asker, answerer, cast):
        id = await ask(asker, cast, max_replies=1000)
        request_id = (await pushed(answerer))["request_id"]
        asker.socket.transport.pause_reading()
        for _ in range(1000):
            if "code" in await answerer.ask("reply", request_id=request_id, data="x" * 60_000, more=True):
                break
        assert await pushed(answerer, "cancel") == {"request_id": request_id, "reason": "cancelled"}
        asker.socket.transport.resume_reading()
        while "error" not in (frame := await asker.next()):
            assert frame["request"]["more"] is True
        assert (frame["id"], frame["error"]["code"], frame["error"]["delivered"]) == (id, "answers_unread", True)
        assert await asker.is_quiet()
