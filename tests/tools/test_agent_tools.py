"""The tools of an agent, called as a framework calls them: two agents, one platform."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Annotated, Any, get_origin, get_type_hints

import pytest
from pydantic import TypeAdapter

from artcafe import errors, sync
from artcafe.observe.clock import now
from artcafe.tools import AgentTools, agent_tools, fault_of, input_schema
from tests.platform import Cast, Platform

BOUND_S = 60


@asynccontextmanager
async def pair(cast: Cast) -> AsyncIterator[tuple[AgentTools, AgentTools]]:
    """Connect two agents, and yield their tools."""
    planner, worker = cast.agent(0, queues=False), cast.agent(1, queues=False)
    tools = AgentTools(planner), AgentTools(worker)
    async with asyncio.timeout(BOUND_S), planner, worker:
        yield tools


def test_every_tool_describes_itself_and_its_arguments() -> None:
    for name in ("whoami", "agents_find", "channels_list", "publish", "send", "inbox_pull", "ack", "ask", "reply", "limits"):
        tool = getattr(AgentTools, name)
        assert inspect.iscoroutinefunction(tool)
        assert inspect.getdoc(tool)
        hints = get_type_hints(tool, include_extras=True)
        for parameter in list(inspect.signature(tool).parameters)[1:]:
            assert get_origin(hints[parameter]) is Annotated, (name, parameter)
            assert isinstance(hints[parameter].__metadata__[0], str), (name, parameter)


async def test_agents_find_each_other_and_their_channels(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2, channels=2)
    async with pair(cast) as (planner, worker):
        assert [each.__name__ for each in planner.functions] == list(planner.tools)
        me = await planner.whoami()
        assert (me["handle"], me["agent_id"], me["tenant_id"]) == ("agent-0", cast.agents[0], cast.tenant)
        found = await planner.agents_find(connected=True)
        assert {each["handle"]: each["connected"] for each in found["agents"]} == {"agent-0": True, "agent-1": True}
        one = await worker.agents_find(limit=1)
        assert (len(one["agents"]), one["has_more"]) == (1, True)
        assert (await planner.agents_find(capability="none"))["agents"] == []
        listed = await planner.channels_list()
        assert ({each["channel_id"] for each in listed["channels"]}, listed["has_more"]) == (set(cast.channels), False)
        limits = await planner.limits()
        assert {"agents", "messages_a_minute"} <= {each["name"] for each in limits["limits"]}
        with pytest.raises(errors.Invalid, match=r"limit: must be 1 to 200, not 0"):
            await planner.channels_list(limit=0)


async def test_pulled_messages_come_again_until_they_are_acknowledged(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2, channels=1)
    async with pair(cast) as (planner, worker):
        first = await planner.publish("channel-0", {"n": 1}, key="one")
        assert (first["duplicate"], first["subscribers"]) in ((False, 2), (False, None))
        assert (await planner.publish("channel-0", {"n": 1}, key="one"))["duplicate"] is True
        await planner.send("agent-1", "hello", caused_by=first["message_id"])

        pulled = await worker.inbox_pull()
        items = {item["channel"]: item for item in pulled["messages"]}
        news, direct = items["channel-0"], items[f"@{cast.agents[1]}"]
        assert (news["data"], news["sender"], news["sender_id"], news["is_direct"]) == (
            {"n": 1},
            "agent-0",
            cast.agents[0],
            False,
        )
        assert (direct["data"], direct["is_direct"], direct["caused_by"]) == ("hello", True, first["message_id"])
        assert len((await worker.inbox_pull())["messages"]) == 2, "nothing is acknowledged by pulling"

        await worker.ack(news["channel"], news["seq"] or 0, epoch=pulled["epoch"])
        await worker.ack(direct["channel"], direct["seq"] or 0)
        empty = await worker.inbox_pull()
        assert (empty["messages"], empty["requests"], empty["has_more"]) == ([], [], False)
        with pytest.raises(errors.Invalid, match="wait_s"):
            await worker.inbox_pull(wait_s=26)
        with pytest.raises(errors.ArtcafeError) as missing:
            await worker.publish("of-another-tenant", 1)
        assert fault_of(missing.value)["code"] == "channel_not_found"
        assert fault_of(missing.value)["can_retry"] is False


async def test_queue_message_is_extended_given_back_and_rejected(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2, channels=0)
    async with cast.rest() as rest:
        tasks = (await rest.tenant(cast.tenant).channels.create("tasks", type="queue")).id
        for agent in cast.agents:
            await rest.tenant(cast.tenant).subscriptions.create(tasks, agent)
    async with pair(cast) as (planner, worker):
        await planner.publish("tasks", {"task": 1})
        pulled = await worker.inbox_pull(channel="tasks", wait_s=25)
        (task,) = pulled["messages"]
        assert task["deliveries"] == 1
        extended = await worker.ack("tasks", task["seq"] or 0, receipt=task["receipt"], outcome="extend", epoch=pulled["epoch"])
        assert datetime.fromisoformat(extended["held_until"]) >= datetime.fromisoformat(task["held_until"])
        await worker.ack("tasks", task["seq"] or 0, receipt=extended["receipt"], outcome="retry", delay_s=0)
        (again,) = (await planner.inbox_pull(channel="tasks", wait_s=25))["messages"]
        assert again["deliveries"] == 2
        with pytest.raises(errors.NotHeld):
            await worker.ack("tasks", task["seq"] or 0, receipt=extended["receipt"])
        await planner.ack("tasks", again["seq"] or 0, receipt=again["receipt"], outcome="reject")
        assert (await planner.inbox_pull(channel="tasks"))["messages"] == []
        with pytest.raises(errors.Invalid, match="receipt: is required for the outcome 'retry'"):
            await worker.ack("tasks", 1, outcome="retry")
        with pytest.raises(errors.Invalid, match="delay_s"):
            await worker.ack("tasks", 1, delay_s=3)


# --- requests during a pull ----------------------------------------------------------------------------------------------


@pytest.fixture
def one_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a pull wait for longer than a request of a test."""
    monkeypatch.setattr(agent_tools, "SLICE_S", 25.0)


async def interrupted(planner: AgentTools, worker: AgentTools, **arguments: Any) -> None:
    """Let the worker wait for messages, end that by a request, and answer it before its deadline."""
    async with asyncio.TaskGroup() as group:
        pulling = group.create_task(worker.inbox_pull(wait_s=25, **arguments))
        await asyncio.sleep(0)  # The pull begins.
        asked = group.create_task(planner.ask("agent-1", 1, timeout_s=10))
        pulled = await pulling
        (request,) = pulled["requests"]
        assert (pulled["messages"], pulled["has_more"]) == ([], False)
        await worker.reply(request["request_id"], 2)
    assert asked.result()["data"] == 2


async def with_queue(platform: Platform) -> Cast:
    """Return two agents, and a queue for the second one, which holds a task for ten minutes."""
    cast = await platform.tenant_with(agents=2, channels=0)
    async with cast.rest() as rest:
        tasks = (await rest.tenant(cast.tenant).channels.create("tasks", type="queue", ack_wait_s=600)).id
        await rest.tenant(cast.tenant).subscriptions.create(tasks, cast.agents[1])
    return cast


@pytest.mark.usefixtures("one_slice")
async def test_request_ends_the_wait_of_a_pull_at_once(platform: Platform) -> None:
    cast = await with_queue(platform)
    async with pair(cast) as (planner, worker):
        for number in range(3):  # Each call goes on with the same pull: an agent may have two at a time.
            await interrupted(planner, worker)
            await interrupted(planner, worker, channel="tasks")
            async with asyncio.TaskGroup() as group:
                pulling = group.create_task(worker.inbox_pull(wait_s=25))
                await planner.publish("tasks", number)
            pulled = pulling.result()
            (task,) = pulled["messages"]
            assert (task["data"], pulled["requests"]) == (number, [])
            await worker.ack("tasks", task["seq"] or 0, receipt=task["receipt"])


@pytest.mark.usefixtures("one_slice")
async def test_task_that_comes_after_a_request_ended_the_call_is_held_by_nobody(platform: Platform) -> None:
    cast = await with_queue(platform)
    async with pair(cast) as (planner, worker):
        await interrupted(planner, worker, channel="tasks")
        await planner.publish("tasks", "late")
        pulled = await worker.inbox_pull(channel="tasks", limit=1, wait_s=25)
        assert [item["data"] for item in pulled["messages"]] == ["late"]


async def test_gap_that_comes_after_a_request_ended_the_call_is_returned_by_the_next(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast = await platform.tenant_with(agents=2, channels=0)
    inbox = f"@{cast.agents[1]}"
    async with pair(cast) as (planner, worker), cast.rest() as rest:
        ends = now() + timedelta(seconds=0.5)
        sent = await rest.tenant(cast.tenant).messages.publish(inbox, "hurry", expires_at=ends)
        while now() <= ends:  # noqa: ASYNC110 (waits for the clock)
            await asyncio.sleep(0.05)
        monkeypatch.setattr(agent_tools, "SLICE_S", 2.0)
        await interrupted(planner, worker)
        subscriptions = rest.tenant(cast.tenant).subscriptions
        while (await subscriptions.get(inbox, cast.agents[1])).cursor.seq != sent.seq:  # noqa: ASYNC110 (a row tells nobody)
            await asyncio.sleep(0.05)
        pulled = await worker.inbox_pull(wait_s=25)
        assert [(gap["channel"], gap["reason"]) for gap in pulled["gaps"]] == [(inbox, "expired")]
        assert (await worker.inbox_pull())["gaps"] == []


@pytest.mark.usefixtures("one_slice")
async def test_agent_closes_although_a_pull_goes_on(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2, channels=0)
    worker = cast.agent(1, queues=False, close_timeout_s=BOUND_S)
    tools = AgentTools(worker)
    async with cast.agent(0) as planner:
        async with asyncio.timeout(BOUND_S / 3), worker:
            await interrupted(AgentTools(planner), tools)
        async with asyncio.timeout(BOUND_S / 3), worker:
            pulling = asyncio.get_running_loop().create_task(tools.inbox_pull(wait_s=25))
            await asyncio.sleep(0)
        with pytest.raises((RuntimeError, errors.ArtcafeError)):
            await pulling


async def test_request_is_pulled_and_answered_once(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2, channels=0)
    async with pair(cast) as (planner, worker):
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(planner.ask("agent-1", {"question": 6}))
            (request,) = (await worker.inbox_pull(wait_s=25))["requests"]
            assert (request["sender_id"], request["data"]) == (cast.agents[0], {"question": 6})
            assert len((await worker.inbox_pull())["requests"]) == 1, "it waits until it is answered"
            await worker.reply(request["request_id"], {"answer": 42})
        assert (asked.result()["data"], asked.result()["agent"]) == ({"answer": 42}, "agent-1")
        assert (await worker.inbox_pull())["requests"] == []
        with pytest.raises(errors.NotPending):
            await worker.reply(request["request_id"], 1)
        with pytest.raises(errors.Invalid, match="combined"):
            await worker.reply(request["request_id"], 1, error="no")
        with pytest.raises(errors.Invalid, match="timeout_s"):
            await planner.ask("agent-1", 1, timeout_s=500)

        async def refuse() -> None:
            (waiting,) = (await worker.inbox_pull(wait_s=25))["requests"]
            await worker.reply(waiting["request_id"], error="ask another agent")

        async with asyncio.TaskGroup() as group:
            group.create_task(refuse())
            with pytest.raises(errors.AgentError) as refused:
                await planner.ask("agent-1", 1)
        fault = fault_of(refused.value)
        assert (fault["code"], fault["agent_code"], fault["was_delivered"]) == ("agent_error", "refused", True)
        with pytest.raises(errors.AgentNotFound):
            await planner.ask("nobody", 1)


async def test_functions_describe_their_arguments_to_pydantic_and_return_errors(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1, channels=0)
    async with asyncio.timeout(BOUND_S), cast.agent(queues=False) as agent:
        tools = AgentTools(agent)
        for function in tools.functions:
            hints = get_type_hints(function, include_extras=True)
            assert hints.pop("return") == dict[str, Any]
            assert inspect.iscoroutinefunction(function)
            described = input_schema(function)["properties"]
            assert described == input_schema(tools.tools[function.__name__])["properties"]
            for parameter in inspect.signature(function).parameters.values():
                assert parameter.annotation == hints[parameter.name]
                schema = TypeAdapter(parameter.annotation).json_schema()
                assert schema["description"] == described[parameter.name]["description"]
        publish = next(each for each in tools.functions if each.__name__ == "publish")
        refused = await publish(channel="no-such-channel", data=1)
        assert (refused["error"]["code"], refused["error"]["can_retry"]) == ("channel_not_found", False)


async def test_plain_functions_block_and_have_their_arguments_in_the_docstring(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2, channels=0)

    def use() -> None:
        with sync.Agent(cast.url, tenant=cast.tenant, agent=cast.agents[0], key=cast.keys[0], queues=False) as agent:
            functions = {each.__name__: each for each in AgentTools(agent).plain_functions}
            assert functions["whoami"]()["agent_id"] == cast.agents[0]
            assert functions["send"](agent="nobody", data=1)["error"]["code"] == "agent_not_found"
            docstring = inspect.getdoc(functions["send"]) or ""
            assert "\nArgs:\n    agent: The agent's handle or id.\n    data: Any JSON value" in docstring
            asked.set()
            while not (requests := functions["inbox_pull"](wait_s=25)["requests"]):
                pass
            functions["reply"](request_id=requests[0]["request_id"], data="yes")
            answered.wait(BOUND_S)

    asked, answered = threading.Event(), threading.Event()
    async with asyncio.timeout(BOUND_S), cast.agent(1) as other, asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(use))
        assert await asyncio.to_thread(asked.wait, BOUND_S)
        try:
            assert await other.ask("agent-0", "there?") == "yes"
        finally:
            answered.set()
