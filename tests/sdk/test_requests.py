"""Requests with the SDK: one agent asks, another one answers with a function."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from typing import Any

import pytest

from artcafe import Request
from artcafe.errors import AgentAway, AgentBusy, AgentError, AgentNotFound, Invalid, NotPending, RequestTimedOut, TooLarge
from tests.platform import Platform

BOUND_S = 20


async def test_agent_asks_and_gets_the_result_of_the_handler(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2, channels=0)
    async with asyncio.timeout(BOUND_S), cast.agent(0) as asker, cast.agent(1) as answerer:
        with pytest.raises(AgentAway) as away:  # Without a handler an agent takes no requests.
            await asker.ask(cast.agents[1], 1)
        assert away.value.was_delivered is False

        @answerer.on_request
        async def answer(request: Request) -> object:
            assert (request.sender, request.headers) == (cast.agents[0], {"trace": "7f3a"})
            assert request.raw == b'{"n":[1,null]}'
            return {"twice": request.data["n"] * 2}

        while (found := await _outcome(asker.ask(cast.agents[1], {"n": [1, None]}, headers={"trace": "7f3a"}))) is AgentAway:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)  # The server is notified of the handler a moment later.
        assert found == {"twice": [1, None, 1, None]}

        answerer.on_request(lambda request: request.data)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(asker.ask(cast.agents[1], number)) for number in range(50)]
        assert [each.result() for each in asked] == list(range(50))


async def test_answers_of_a_generator_arrive_one_by_one_and_leaving_the_loop_cancels_it(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2, channels=0)
    ended = asyncio.Event()
    asker, answerer = cast.agent(0), cast.agent(1)

    @answerer.on_request
    async def count(request: Request) -> AsyncIterator[int]:
        try:
            for number in range(request.data):
                yield number
            if request.data == 2:
                await asyncio.Event().wait()
        finally:
            ended.set()

    async with asyncio.timeout(BOUND_S), asker, answerer:
        assert [part async for part in asker.ask_stream(cast.agents[1], 5)] == [0, 1, 2, 3, 4]
        assert [part async for part in asker.ask_stream(cast.agents[1], 0)] == []
        assert [part async for part in asker.ask_stream(cast.agents[1], 9, max_replies=3)] == [0, 1, 2]
        assert await asker.ask(cast.agents[1], 9) == 0
        with pytest.raises(AgentError, match="without one"):
            await asker.ask(cast.agents[1], 0)
        ended.clear()
        async with aclosing(asker.ask_stream(cast.agents[1], 2)) as parts:
            assert [await anext(parts), await anext(parts)] == [0, 1]
        await ended.wait()
        ended.clear()
        with pytest.raises(RequestTimedOut):
            _ = [part async for part in asker.ask_stream(cast.agents[1], 2, timeout_s=0.5)]
        await ended.wait()


async def test_errors_of_requests_are_typed(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    cast = await platform.tenant_with(agents=2, channels=0)
    asker, answerer = cast.agent(0), cast.agent(1, max_requests=1)
    begun = asyncio.Event()

    @answerer.on_request
    async def fail(request: Request) -> object:
        if request.data == "own":
            raise AgentError("no_capacity", "ask another agent")
        if request.data == "bug":
            raise KeyError("secret")
        if request.data == "wait":
            begun.set()
            await asyncio.Event().wait()
        return {1} if request.data == "set" else "x" * 70_000

    async with asyncio.timeout(BOUND_S), asker, answerer:
        with pytest.raises(AgentError, match="ask another agent") as own:
            await asker.ask(cast.agents[1], "own")
        assert (own.value.agent_code, own.value.was_delivered) == ("no_capacity", True)
        for data in ("bug", "set", "large"):
            with pytest.raises(AgentError, match="the agent failed to answer") as failed, caplog.at_level(logging.ERROR):
                await asker.ask(cast.agents[1], data)
            assert (failed.value.agent_code, "secret" in str(failed.value)) == ("failed", False)
        assert len([record for record in caplog.records if record.exc_info]) == 3
        with pytest.raises(AgentNotFound):
            await asker.ask("agt_none", 1)
        with pytest.raises(Invalid):
            await asker.ask(cast.agents[1], float("nan"))
        with pytest.raises(TooLarge):
            await asker.ask(cast.agents[1], "x" * 70_000)
        with pytest.raises(ValueError, match="timeout_s"):
            await asker.ask(cast.agents[1], 1, timeout_s=121)

        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(_outcome(asker.ask(cast.agents[1], "wait")))
            await begun.wait()
            with pytest.raises(AgentBusy) as busy:
                await asker.ask(cast.agents[1], "wait")
            assert busy.value.was_delivered is False
            await answerer.__aexit__(None, None, None)
            assert await waiting is AgentAway


async def test_answer_of_another_task_ends_the_handler(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2, channels=0)
    asker, answerer = cast.agent(0), cast.agent(1)
    waiting: asyncio.Queue[Request] = asyncio.Queue()
    ended: asyncio.Queue[str] = asyncio.Queue()

    @answerer.on_request
    async def wait(request: Request) -> None:
        waiting.put_nowait(request)
        try:
            await asyncio.Event().wait()
        finally:
            ended.put_nowait(request.request_id)

    async with asyncio.timeout(BOUND_S), asker, answerer:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(asker.ask(cast.agents[1], 1))
            request = await waiting.get()
            with pytest.raises(TooLarge):
                await answerer.answer(request.request_id, "x" * 70_000)
            await answerer.answer(request.request_id, {"answer": request.data})
            assert await ended.get() == request.request_id
        assert asking.result() == {"answer": 1}
        with pytest.raises(NotPending):
            await answerer.answer(request.request_id, 2)

        async with asyncio.TaskGroup() as group:
            refused = group.create_task(_error(asker.ask(cast.agents[1], 1)))
            request = await waiting.get()
            await answerer.answer(request.request_id, error=AgentError("busy", "tomorrow"))
        assert isinstance(refused.result(), AgentError)
        assert (refused.result().agent_code, str(refused.result())) == ("busy", "tomorrow")

        with pytest.raises(RequestTimedOut):
            await asker.ask(cast.agents[1], 1, timeout_s=1)
        late = await waiting.get()
        while await ended.get() != late.request_id:
            pass
        with pytest.raises(NotPending):
            await answerer.answer(late.request_id, "too late")


async def _error(asking: Awaitable[Any]) -> AgentError:
    with pytest.raises(AgentError) as raised:
        await asking
    return raised.value


async def _outcome(asking: Awaitable[Any]) -> Any:
    """Return the answer, or the class AgentAway."""
    try:
        return await asking
    except AgentAway:
        return AgentAway
