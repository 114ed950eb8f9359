"""`artcafe.sync.Agent`: the SDK for synchronous programs."""

from __future__ import annotations

import asyncio
import inspect
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, assert_type

import msgspec
import pytest

import artcafe
from artcafe import sync
from artcafe.errors import ChannelNotFound, PayloadMismatch, RequestTimedOut
from artcafe.sdk.blocking import call
from artcafe.sdk.records import AgentInfo, ChannelInfo
from tests.casts import recast
from tests.platform import Cast, Platform

BOUND_S = 60
LISTEN = """
from artcafe.sync import Agent
with Agent() as agent:
    try:
        print("ready", flush=True)
        for message in agent.messages(auto_ack=True):
            print(message.data, flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""
RUN = """
from artcafe.sync import Agent
agent = Agent()
@agent.on("CHANNEL")
def handle(message):
    print(message.data, flush=True)
agent.run()
print("closed", agent.state, flush=True)
"""


@pytest.fixture(scope="module")
def home(platform_on_a_file: Platform) -> Cast:
    return asyncio.run(platform_on_a_file.tenant_with())


@pytest.fixture
def cast(home: Cast) -> Cast:
    return asyncio.run(recast(home, agents=2))


def agent_of(cast: Cast, number: int = 0, **options: Any) -> sync.Agent:
    return sync.Agent(cast.url, tenant=cast.tenant, agent=cast.agents[number], key=cast.keys[number], **options)


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_agent_has_every_method_of_the_asynchronous_one_with_the_same_parameters() -> None:
    names = public(sync.Agent) - {"tenant", "agent", "async_agent"}  # Those are attributes of an instance there.
    assert names == public(artcafe.Agent) - {"end_run"}
    for name in names:
        ours, theirs = getattr(sync.Agent, name), getattr(artcafe.Agent, name)
        if callable(theirs):
            assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters), name
            assert not inspect.iscoroutinefunction(ours), name
    for ours, theirs in ((sync.Message, artcafe.Message), (sync.TrackedReceipt, artcafe.TrackedReceipt)):
        assert public(theirs) - {"end", "take"} <= public(ours)  # The connection calls those two.


def synchronous_forms(ours: object, theirs: object) -> Iterator[tuple[type, type]]:
    """Yield the class of a synchronous object with that of its asynchronous one, and those of the objects in them."""
    yield type(ours), type(theirs)
    for name in {name for name in vars(ours) if not name.startswith("_")}:
        yield from synchronous_forms(getattr(ours, name), getattr(theirs, name))


def test_client_has_every_method_of_the_asynchronous_one_with_the_same_parameters() -> None:
    ours, theirs = sync.Client("http://127.0.0.1:1").tenant("ten_1"), artcafe.Client("http://127.0.0.1:1").tenant("ten_1")
    forms = [(sync.Client, artcafe.Client), (type(ours.inbox("a")), type(theirs.inbox("a"))), *synchronous_forms(ours, theirs)]
    assert public_of(ours) == public_of(theirs)
    assert len(forms) == 16
    for our_class, their_class in forms:
        assert public(our_class) - {"of"} == public(their_class), our_class
        for name in public(their_class):
            method, original = getattr(our_class, name), getattr(their_class, name)
            if callable(original):
                assert list(inspect.signature(method).parameters) == list(inspect.signature(original).parameters), name
                assert not inspect.iscoroutinefunction(method), name


def public_of(calls: object) -> set[str]:
    return {name for name in vars(calls) if not name.startswith("_")}


def test_client_calls_lists_pulls_and_follows(cast: Cast) -> None:
    threads: list[threading.Thread] = []

    def fetch() -> str:
        threads.append(threading.current_thread())
        return cast.token

    with sync.Client(cast.url, fetch) as client:
        tenant = client.tenant(cast.tenant)
        channel = tenant.channels.create("made by a script", access="open")
        assert_type(channel, ChannelInfo)
        assert_type(next(tenant.agents.list(limit=1)), AgentInfo)
        assert channel.id in {each.id for each in tenant.channels.list()}
        tenant.subscriptions.create(channel.id, cast.agents[0])
        assert [tenant.messages.publish(channel.id, number).seq for number in (1, 2)] == [1, 2]
        with pytest.raises(ChannelNotFound):
            tenant.channels.get("chn_unknown")
        followed = tenant.messages.follow(channel.id, after=0)
        assert [item.data for item in (followed.next(BOUND_S), followed.next(BOUND_S)) if isinstance(item, sync.Message)] == [
            1,
            2,
        ]
        with pytest.raises(TimeoutError):
            followed.next(timeout_s=0.05)
        tenant.messages.publish(channel.id, 3)
        third = followed.next(BOUND_S)
        assert isinstance(third, sync.Message)
        assert (third.data, followed.last_id is None) == (3, False)
        with pytest.raises(RuntimeError, match="acknowledges nothing"):
            third.ack()
        followed.close()
    assert threads
    assert threading.main_thread() not in threads
    assert all(thread.name.startswith("artcafe-handler") for thread in threads)
    with agent_of(cast) as agent:
        inbox = agent.client().tenant(cast.tenant).inbox(cast.agents[0])
        pulled = inbox.pull(channel=channel.id)
        assert [message.data for message in pulled] == [1, 2, 3]
        pulled[1].ack()
        pulled[0].ack()
        assert [message.data for message in inbox.pull(channel=channel.id)] == [3]
        inbox.ack(channel.id, 3)
        assert len(inbox.pull(channel=channel.id)) == 0
    with sync.Client(cast.url) as client:
        client.login(cast.tenant, cast.agents[0], cast.keys[0])
        assert client.me().agent_id == cast.agents[0]


def test_token_function_of_a_synchronous_client_is_a_plain_one() -> None:
    async def fetch() -> str:
        return "token"

    with pytest.raises(TypeError, match="no plain function"):
        sync.Client("http://127.0.0.1:1", fetch)  # type: ignore[arg-type]  # That is the mistake.


def test_messages_are_published_received_acknowledged_and_read_again(cast: Cast) -> None:
    (channel,) = cast.channels
    with agent_of(cast) as agent:
        assert (agent.state, agent.tenant) == ("connected", cast.tenant)
        receipts = [agent.publish(channel, number) for number in range(3)]
        with pytest.raises(ChannelNotFound):
            agent.publish("no-such-channel", 1)
        messages = agent.messages(channel)
        first = next(messages)
        assert (first.data, first.seq, first.is_settled) == (0, receipts[0].seq, False)
        first.ack()
        assert first.is_settled
        agent.flush()
        assert [each.data for each in agent.history(channel, after=0).messages] == [0, 1, 2]
    assert agent.state == "closed"
    with pytest.raises(RuntimeError, match="closed"):
        agent.publish(channel, 1)
    with agent_of(cast, max_unacked=8) as agent:
        messages = agent.messages(channel, auto_ack=True)
        assert [next(messages).data for _ in range(2)] == [1, 2]
        with pytest.raises(TimeoutError):
            messages.next(timeout_s=0.05)
        agent.publish(channel, "after the timeout")
        assert messages.next(timeout_s=BOUND_S).data == "after the timeout"
        threading.Timer(0.1, agent.close).start()
        assert list(messages) == []


def test_answer_names_the_handled_message_and_receipts_are_waited_for(cast: Cast) -> None:
    with agent_of(cast, 0) as asker, agent_of(cast, 1) as answerer:
        asker.send(cast.agents[1], "question")
        for message in answerer.messages("@"):
            answerer.publish(f"@{cast.agents[0]}", "answer")  # The loop's message is its cause.
            message.ack()
            break
        (answer,) = [asker.messages("@").next(BOUND_S)]
        assert (answer.data, answer.caused_by) == ("answer", message.message_id)
        tracked = asker.publish(f"@{cast.agents[1]}", "and", receipt="acked", receipt_s=BOUND_S)
        answerer.messages("@").next(BOUND_S).ack()
        assert tracked.wait(BOUND_S).is_reached
        assert [each.state for each in tracked][-1] == "acked"
        pulled = asker.pull(limit=10)
        assert [each.data for each in pulled] == ["answer"]
        pulled.ack()


def test_functions_run_in_threads_and_may_call_the_agent(cast: Cast) -> None:
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()
    agent, other = agent_of(cast, 0), agent_of(cast, 1)
    both = threading.Barrier(2, timeout=BOUND_S)

    @agent.on(cast.channels[0], concurrency=2)
    def handle(message: sync.Message) -> None:
        both.wait()  # Two threads run it at once.
        message.reply({"handled": message.data})

    other.on_direct(lambda message: seen.put((message.data, message.caused_by is not None)))
    agent.on_state(lambda event: seen.put(event.kind))

    @agent.on_request
    def count(request: artcafe.Request) -> Iterator[int]:
        yield from range(request.data)

    with pytest.raises(TypeError, match="no plain function"):

        @agent.on("news")
        async def coroutine(message: sync.Message) -> None: ...

    with agent, other:
        assert seen.get(timeout=BOUND_S) == "connected"
        for number in range(2):
            other.publish(cast.channels[0], number)
        found = [seen.get(timeout=BOUND_S) for _ in range(2)]
        assert sorted(found, key=str) == [({"handled": 0}, True), ({"handled": 1}, True)]
        assert list(other.ask_stream(cast.agents[0], 3)) == [0, 1, 2]
        parts = other.ask_stream(cast.agents[0], 1_000)
        assert next(parts) == 0
        parts.close()  # type: ignore[attr-defined]  # It is a generator.
        agent.on_request(lambda request: threading.Event().wait(0.5))
        with pytest.raises(RequestTimedOut):
            other.ask(cast.agents[0], 1, timeout_s=0.1)


class Order(msgspec.Struct):
    number: int


def test_typed_messages_and_failures(cast: Cast) -> None:
    (channel,) = cast.channels
    failures: queue.SimpleQueue[artcafe.Failure] = queue.SimpleQueue()
    with agent_of(cast) as agent:
        agent.publish(channel, "no order")
        agent.publish(channel, {"number": 7})
        orders = agent.messages(channel, type=Order)
        with pytest.raises(PayloadMismatch):
            orders.next(BOUND_S)
        order = orders.next(BOUND_S)
        assert (order.data.number, order.raw) == (7, b'{"number":7}')
        agent.on_failure(failures.put)
        agent.publish(channel, "again no order")
        agent.publish(channel, {"number": 8})
        assert orders.next(BOUND_S).data == Order(8)
        failure = failures.get(timeout=BOUND_S)
        assert (failure.message.data, isinstance(failure.message, sync.Message)) == ("again no order", True)


def started(cast: Cast, program: str) -> subprocess.Popen[str]:
    given = {"URL": cast.url, "TENANT": cast.tenant, "AGENT": cast.agents[0], "KEY": str(cast.keys[0])}
    environ = {**os.environ, **{f"ARTCAFE_{name}": value for name, value in given.items()}}
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environ, text=True)


def test_ctrl_c_interrupts_a_waiting_loop_and_no_acknowledged_message_comes_again(cast: Cast) -> None:
    with started(cast, LISTEN) as program, agent_of(cast, 1) as agent:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        for number in range(2):
            agent.publish(cast.channels[0], number)
            assert program.stdout.readline() == f"{number}\n"
        program.send_signal(signal.SIGINT)
        assert program.stdout.read() == "interrupted\n"
        assert program.wait(BOUND_S) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_ends_at_a_signal(cast: Cast, number: signal.Signals) -> None:
    with started(cast, RUN.replace("CHANNEL", cast.channels[0])) as program, agent_of(cast, 1) as agent:
        assert program.stdout is not None
        agent.publish(cast.channels[0], "work")
        assert program.stdout.readline() == "work\n"
        program.send_signal(number)
        assert program.stdout.read() == "closed closed\n"
        assert program.wait(BOUND_S) == 0


def test_blocking_call_on_the_background_loop_raises_in_place_of_stopping_it(cast: Cast) -> None:
    agent = agent_of(cast)

    async def misuse() -> None:
        agent.start()

    with pytest.raises(RuntimeError, match=r"artcafe\.Agent in coroutines"):
        call(misuse())
