"""Queues while a server is killed or stopped and NATS is killed: one holder at a time, and no message lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from artcafe.errors import OurFault
from artcafe.observe.logs import log
from artcafe.sdk.keys import load_signer
from tests.faults.conftest import SEED, QueueReport
from tests.faults.processes import frozen
from tests.faults.queue_checker import NATS_WRITES_S, judge_queue
from tests.faults.queue_load import ACK_WAIT_S as LOAD_ACK_WAIT_S
from tests.faults.queue_load import working_on
from tests.fleet import Fleet, running_fleet
from tests.gateway.raw_client import RawClient, open_client
from tests.platform import Cast, Platform

ACK_WAIT_S: Final = 1
BACK_S: Final = 30.0
"""Longest wait for messages of a dead server: 1 s, and NATS's 6 s more, on a busy machine."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Run two servers on one NATS server."""
    with running_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


class Queue:
    """A new queue channel, its messages, and the sockets of its workers."""

    def __init__(self, fleet: Fleet, cast: Cast, channel: str) -> None:
        self.fleet, self.cast, self.channel = fleet, cast, channel

    @asynccontextmanager
    async def worker(self, server: Platform, window: int = 1) -> AsyncIterator[RawClient]:
        """Connect an agent to a server, and subscribe to the queue."""
        async with self.cast.rest() as rest:
            rest.token = None
            token = (await rest.login(self.cast.tenant, self.cast.agents[0], load_signer(self.cast.keys[0]))).access_token
        async with open_client(server.gateway_url) as raw:
            await raw.ask("connect", access_token=token, tenant_id=self.cast.tenant)
            assert "cursor" in await raw.ask("subscribe", channel=self.channel, max_unacked=window)
            yield raw

    async def publish(self, count: int = 1) -> list[int]:
        """Store messages, and return their sequences."""
        async with self.cast.rest() as rest:
            seqs = [(await rest.tenant(self.cast.tenant).messages.publish(self.channel, n)).seq for n in range(count)]
        return [seq for seq in seqs if seq is not None]


async def new_queue(fleet: Fleet, ack_wait_s: int = ACK_WAIT_S, *, key_ordered: bool = False) -> Queue:
    cast = await fleet.tenant_with(agents=1, channels=0)
    async with cast.rest() as rest:
        channel = await rest.tenant(cast.tenant).channels.create(
            "tasks", type="queue", ack_wait_s=ack_wait_s, key_ordered=key_ordered
        )
    return Queue(fleet, cast, channel.id)


async def message(raw: RawClient) -> dict[str, Any]:
    """Return the next message of a worker, which may take as long as NATS waits for a dead server."""
    async with asyncio.timeout(BACK_S):
        while True:
            with contextlib.suppress(TimeoutError):
                return await raw.message()


@pytest.mark.faults
@pytest.mark.timeout(180)
@pytest.mark.promise("9a")
async def test_messages_of_a_killed_server_go_to_another_one_and_are_not_lost(fleet: Fleet) -> None:
    queue = await new_queue(fleet)
    first, second = fleet.servers
    async with contextlib.AsyncExitStack() as stack:
        holder = await stack.enter_async_context(queue.worker(second, window=3))
        seqs = await queue.publish(3)
        assert sorted([(await message(holder))["seq"] for _ in range(3)]) == seqs
        heir = await stack.enter_async_context(queue.worker(first, window=3))
        second.kill()
        got = [await message(heir) for _ in range(3)]
        assert sorted((each["seq"], each["deliveries"]) for each in got) == [(seq, 2) for seq in seqs]
        for each in got:
            await heir.ack(queue.channel, each["seq"])
        assert await heir.is_quiet()
    await asyncio.to_thread(second.start)
    async with queue.worker(second) as again:
        await queue.publish(1)
        assert (await message(again))["deliveries"] == 1


@pytest.mark.faults
@pytest.mark.timeout(180)
@pytest.mark.promise("9a")
async def test_a_server_stopped_beyond_the_deadline_refuses_its_holders_acks(fleet: Fleet) -> None:
    queue = await new_queue(fleet)
    first, second = fleet.servers
    assert second.process is not None
    async with queue.worker(second) as late, contextlib.AsyncExitStack() as stack:
        (seq,) = await queue.publish()
        assert (await message(late))["seq"] == seq
        with frozen(second.process.pid):
            heir = await stack.enter_async_context(queue.worker(first))
            got = await message(heir)
            assert (got["seq"], got["deliveries"]) == (seq, 2)
            await late.ack(queue.channel, seq)  # it waits in the stopped server's socket
        refused = await late.next()
        assert refused["error"]["code"] == "not_held", refused
        answer = await heir.ask("extend", channel=queue.channel, seq=seq)  # the late ack and the timer took nothing from it
        assert answer.get("seq") == seq, answer
        await heir.ack(queue.channel, seq)
        await stack.aclose()
        (other,) = await queue.publish()
        assert (await message(late))["seq"] == other


@pytest.mark.faults
@pytest.mark.timeout(240)
@pytest.mark.promise("9a", "11b")
async def test_every_message_is_done_while_nats_is_killed_again_and_again(fleet: Fleet) -> None:
    queue = await new_queue(fleet, ack_wait_s=5)
    count, done, deliveries = 400, set[int](), Counter[int]()
    expected = await queue.publish(count // 2)
    over = asyncio.Event()

    async def work(server: Platform) -> None:
        async with queue.worker(server, window=8) as raw:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    frame = raw.pushes.pop(0) if raw.pushes else await raw.next()
                    if "message" in frame:
                        seq = frame["message"]["seq"]
                        deliveries[seq] += 1
                        await asyncio.sleep(0.005)
                        await raw.ack(queue.channel, seq)
                        done.add(seq)
                        if len(done) == count:
                            over.set()

    async def kill() -> None:
        node = fleet.nats.nodes[0]
        for _ in range(3):
            await asyncio.sleep(1.0)
            os.kill(fleet.nats.pid(node.name), signal.SIGKILL)
            fleet.nats.kill(node.name)
            await asyncio.to_thread(fleet.nats.start, node)

    async def publish_more() -> None:
        while len(expected) < count:
            with contextlib.suppress(OurFault):
                expected.extend(await queue.publish(1))

    async with asyncio.timeout(200), asyncio.TaskGroup() as group:
        for server in (*fleet.servers, *fleet.servers):
            group.create_task(work(server))
        group.create_task(kill())
        group.create_task(publish_more())
    assert done >= set(expected)
    log.info("queues.nats_killed", messages=count, deliveries=sum(deliveries.values()))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("key_ordered", [False, True])
@pytest.mark.promise("9a", "9c")
async def test_delivery_that_a_killed_nats_has_forgotten_gets_no_second_holder(fleet: Fleet, key_ordered: bool) -> None:
    queue = await new_queue(fleet, ack_wait_s=60, key_ordered=key_ordered)
    node = fleet.nats.nodes[0]
    async with queue.worker(fleet.servers[1]) as other, contextlib.AsyncExitStack() as stack:
        (own,) = await queue.publish()
        assert (await message(other))["seq"] == own
        holder = await stack.enter_async_context(queue.worker(fleet.servers[0]))
        await asyncio.sleep(NATS_WRITES_S + 0.2)
        (kept,) = await queue.publish()
        assert (await message(holder))["seq"] == kept
        os.kill(fleet.nats.pid(node.name), signal.SIGKILL)
        fleet.nats.kill(node.name)
        await asyncio.to_thread(fleet.nats.start, node)
        new = await until_published(queue)
        await other.ack(queue.channel, own)
        assert (await message(other))["seq"] == new
        await holder.ack(queue.channel, kept)
        await other.ack(queue.channel, new)
        assert await holder.is_quiet()
        assert await other.is_quiet()


async def until_published(queue: Queue) -> int:
    """Publish one message as soon as NATS is back, and return its sequence."""
    while True:
        with contextlib.suppress(OurFault):
            return (await queue.publish())[0]


KEYS: Final = 8
FAULTS: Final = ("kill -9 of one server", "kill -9 of nats-server", "SIGSTOP of one server")


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.promise("9a", "9c")
async def test_two_servers_hold_one_task_of_each_key_in_order(fleet: Fleet, queue_report: QueueReport, fault: str) -> None:
    chance, victim = random.Random(f"{SEED} {fault}"), fleet.servers[1]
    async with fleet.balanced(), working_on(fleet, SEED, keys=KEYS) as load:
        for _ in range(4):
            await load.done(chance.randrange(20, 80))
            if fault == "kill -9 of one server":
                victim.kill()
                await load.done(20)
                await asyncio.to_thread(victim.start)
            elif fault == "kill -9 of nats-server":
                node = fleet.nats.nodes[0]
                os.kill(fleet.nats.pid(node.name), signal.SIGKILL)
                fleet.nats.kill(node.name)
                await asyncio.to_thread(fleet.nats.start, node)
            else:
                assert victim.process is not None
                with frozen(victim.process.pid):
                    await asyncio.sleep(2 * LOAD_ACK_WAIT_S)
        await load.done(50)
        verdict = judge_queue(await load.end(is_faulted=True, slack_s=LOAD_ACK_WAIT_S if "STOP" in fault else 2.0))
    queue_report(f"4 × {fault}, of a fleet of two, ordered by key", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"
