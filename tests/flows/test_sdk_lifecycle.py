"""Starting and closing an agent without a block: across tasks, event loops and threads, and more than once."""

from __future__ import annotations

import asyncio
import threading

import pytest
from websockets.asyncio.server import ServerConnection

from artcafe.errors import BadCredentials, Revoked
from artcafe.sdk.keys import Signer, load_signer
from tests.casts import recast
from tests.platform import Cast, Platform
from tests.sdk.scripted import agent_at, gateway, let_in

BOUND_S = 60


@pytest.fixture(scope="module")
def home(platform_on_a_file: Platform) -> Cast:
    return asyncio.run(platform_on_a_file.tenant_with())


async def test_agent_is_started_used_and_closed_by_three_tasks(home: Cast) -> None:
    cast = await recast(home)
    agent = cast.agent()

    async def start() -> None:
        assert await agent.start() is agent

    async def use() -> object:
        await agent.publish(cast.channels[0], "hello")
        message = await anext(agent.messages())
        await message.ack()
        return message.data

    async with asyncio.timeout(BOUND_S):
        for step in (start, use, agent.close, agent.close):
            async with asyncio.TaskGroup() as group:
                done = group.create_task(step())
            assert step is not use or done.result() == "hello"
        with pytest.raises(RuntimeError, match="closed"):
            await agent.publish(cast.channels[0], 1)


async def test_agent_started_again_continues_after_what_it_acknowledged(home: Cast) -> None:
    cast = await recast(home)
    agent = cast.agent()
    async with asyncio.timeout(BOUND_S):
        async with agent:
            for number in range(3):
                await agent.publish(cast.channels[0], number)
            messages = agent.messages()
            await (await anext(messages)).ack()
            assert (await anext(messages)).data == 1  # and is not acknowledged
            with pytest.raises(RuntimeError, match="started already"):
                await agent.start()
            service = agent.service
        assert [message async for message in messages] == []
        async with agent:
            assert agent.service == service
            again = agent.messages(auto_ack=True)
            assert [(await anext(again)).data for _ in range(2)] == [1, 2]


async def test_function_answers_requests_also_after_the_agent_is_started_again(home: Cast) -> None:
    cast = await recast(home, agents=2, channels=0)
    asker, answerer = cast.agent(0), cast.agent(1)
    answerer.on_request(lambda request: request.data + 1)
    async with asyncio.timeout(BOUND_S), asker:
        for number in range(2):
            async with answerer:
                assert await asker.ask(cast.agents[1], number) == number + 1


def test_agent_is_started_on_one_event_loop_after_another_which_was_never_closed_properly(home: Cast) -> None:
    cast = asyncio.run(recast(home))
    agent = cast.agent()

    async def use(number: int) -> None:
        await agent.start()
        await agent.publish(cast.channels[0], number)

    asyncio.run(asyncio.wait_for(use(0), BOUND_S))
    asyncio.run(asyncio.wait_for(use(1), BOUND_S))


def test_other_threads_submit_calls_to_the_loop_of_a_started_agent(home: Cast) -> None:
    cast = asyncio.run(recast(home))
    agent = cast.agent()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(agent.start(), loop).result(BOUND_S)
        receipt = asyncio.run_coroutine_threadsafe(agent.publish(cast.channels[0], 1), loop).result(BOUND_S)
        assert receipt.seq is not None
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(agent.close())
    finally:
        asyncio.run_coroutine_threadsafe(agent.close(), loop).result(BOUND_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(BOUND_S)
        loop.close()


async def test_agent_whose_start_was_refused_can_be_started_later(home: Cast) -> None:
    cast = await recast(home)
    agent = cast.agent()
    async with asyncio.timeout(BOUND_S), home.rest() as rest:
        await rest.tenant(cast.tenant).agents.update(cast.agents[0], status="disabled")
        with pytest.raises(BadCredentials):
            await agent.start()
        await rest.tenant(cast.tenant).agents.update(cast.agents[0], status="active")
        async with agent:
            await agent.publish(cast.channels[0], 1)


async def test_revocation_is_raised_by_calls_and_the_agent_can_be_closed_and_started_again(home: Cast) -> None:
    cast = await recast(home)
    agent = cast.agent()
    async with asyncio.timeout(BOUND_S), home.rest() as rest:
        await agent.start()
        await rest.tenant(cast.tenant).agents.update(cast.agents[0], status="disabled")
        with pytest.raises(Revoked):
            await anext(agent.messages())
        with pytest.raises(Revoked):
            await agent.publish(cast.channels[0], 1)
        await agent.close()
        await rest.tenant(cast.tenant).agents.update(cast.agents[0], status="active")
        async with agent:
            await agent.publish(cast.channels[0], 1)


class BrokenSigner:
    """A program's own signer: it signs once, and fails after that."""

    def __init__(self, signer: Signer) -> None:
        self._signer, self._signed = signer, 0
        self.public_key = signer.public_key

    async def sign(self, challenge: str) -> str:
        self._signed += 1
        return await self._signer.sign(challenge) if self._signed == 1 else str(1 // 0)


async def test_unexpected_error_of_the_background_is_raised_by_calls_and_by_close(home: Cast) -> None:
    async def end(socket: ServerConnection) -> None:
        await let_in(socket)
        await socket.close()

    async with asyncio.timeout(BOUND_S), gateway(end) as url:
        agent = agent_at(url, BrokenSigner(load_signer(home.keys[0])))
        await agent.start()
        with pytest.raises(ZeroDivisionError):
            await anext(agent.messages())
        with pytest.raises(ZeroDivisionError):
            await agent.publish("chn_1", 1)
        with pytest.raises(ExceptionGroup) as failed:
            await agent.close()
        assert failed.group_contains(ZeroDivisionError)
        with pytest.raises(ZeroDivisionError):
            await agent.start()
        await agent.close()
