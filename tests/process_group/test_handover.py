"""Connections that one process accepts and others serve."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from artcafe.process_group.handover import GATEWAY, REST, Acceptor, Receiver, send
from artcafe.resources import Adopt

WAIT_S = 20


class Process:
    """Takes connections up to `most`, and counts them."""

    def __init__(self, load: int = 0, most: int = 1000) -> None:
        self.load, self._most = load, most
        self.taken: list[tuple[bytes, int]] = []
        self.took = asyncio.Event()

    def take(self, kind: bytes, connection: socket.socket) -> bool:
        if len(self.taken) >= self._most:
            return False
        self.taken.append((kind, connection.getpeername()[1]))
        self.load += 1
        self.took.set()
        return True


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def dial(listener: socket.socket, count: int) -> list[socket.socket]:
    return [socket.create_connection(listener.getsockname(), WAIT_S) for _ in range(count)]


async def until_taken(processes: list[Process], count: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while (missing := count - sum(len(each.taken) for each in processes)) > 0:
            last = processes[-1]
            last.took.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.01 * missing):
                    await last.took.wait()


async def test_connections_go_to_the_process_with_the_fewest(listener: socket.socket) -> None:
    processes = [Process(load=0), Process(load=40)]
    acceptor = Acceptor(GATEWAY, listener, lambda: processes)
    acceptor.resume()

    clients = dial(listener, 60)
    await until_taken(processes, 60)

    assert [each.load for each in processes] == [50, 50]
    acceptor.close()
    for each in clients:
        each.close()


async def test_connections_wait_until_a_process_serves_and_none_is_lost(listener: socket.socket) -> None:
    processes: list[Process] = []
    acceptor = Acceptor(REST, listener, lambda: processes)
    acceptor.resume()
    clients = dial(listener, 5)
    await asyncio.sleep(0.1)

    processes.append(Process())
    acceptor.resume()
    await until_taken(processes, 5)

    assert {port for _, port in processes[0].taken} == {each.getsockname()[1] for each in clients}
    acceptor.close()
    for each in clients:
        each.close()


async def test_a_connection_that_nobody_can_take_now_is_taken_later(listener: socket.socket) -> None:
    full = Process(most=2)
    processes = [full]
    acceptor = Acceptor(REST, listener, lambda: processes)
    acceptor.resume()
    clients = dial(listener, 4)
    await until_taken(processes, 2)

    processes.append(Process(load=10))
    await until_taken(processes, 4)

    assert len(processes[1].taken) == 2
    acceptor.close()
    for each in clients:
        each.close()


async def test_a_process_serves_what_it_is_sent_by_kind_until_the_end() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    receiver, came = Receiver(theirs), asyncio.Queue[tuple[str, bytes]]()

    def adopting(name: str) -> Adopt:
        async def adopt(connection: socket.socket) -> None:
            with connection:
                await came.put((name, await asyncio.get_running_loop().sock_recv(connection, 10)))

        return adopt

    async with asyncio.TaskGroup() as group:
        running = group.create_task(receiver.run(adopting("rest"), adopting("gateway")))
        for kind, text in ((REST, b"one"), (GATEWAY, b"two"), (REST, b"three")):
            near, far = socket.socketpair()
            with near, far:
                near.sendall(text)
                assert send(ours, kind, far)
        async with asyncio.timeout(WAIT_S):
            got = {await came.get() for _ in range(3)}
        ours.close()
        async with asyncio.timeout(WAIT_S):
            await running
    assert got == {("rest", b"one"), ("gateway", b"two"), ("rest", b"three")}
    assert receiver.ended.is_set()


async def test_a_connection_that_ended_on_the_way_harms_no_other() -> None:
    ours, theirs = socket.socketpair()
    receiver, served = Receiver(theirs), asyncio.Queue[int]()

    async def adopt(connection: socket.socket) -> None:
        if served.empty():
            await served.put(1)
            raise ConnectionResetError
        await served.put(2)
        connection.close()

    async with asyncio.TaskGroup() as group:
        running = group.create_task(receiver.run(adopt, adopt))
        for _ in range(2):
            near, far = socket.socketpair()
            with near, far:
                assert send(ours, REST, far)
            await asyncio.sleep(0.05)
        ours.close()
        await running
    assert served.qsize() == 2


def test_a_process_that_reads_nothing_takes_no_more_once_its_socket_is_full() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    near, far = socket.socketpair()
    with ours, theirs, near, far:
        sent = 0
        while send(ours, REST, far):
            sent += 1
            assert sent < 100_000
        assert sent > 10


def test_a_process_that_is_gone_takes_none() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    near, far = socket.socketpair()
    with ours, near, far:
        assert not send(ours, REST, far)
