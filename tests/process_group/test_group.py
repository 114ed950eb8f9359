"""`artcafe up --processes 2` as an operator and its agents see it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from artcafe.data_dir import DataDir
from artcafe.errors import StartRefused
from artcafe.sdk.client import Client
from tests.faults.processes import wait_for
from tests.platform import Platform, running
from tests.process_group.groups import (
    PROCESSES,
    children_of,
    events,
    is_running,
    kill,
    readiness,
    wait_until_all_serve,
    worker_pids,
    workers_of,
)

END_S = 30


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running(tmp_path_factory.mktemp("group"), [*PROCESSES, "--connects-per-s", "0"]) as platform:
        yield platform


@pytest.fixture
def own_platform(tmp_path: Path) -> Iterator[Platform]:
    with running(tmp_path, PROCESSES) as platform:
        yield platform


def test_up_is_announced_once_every_process_serves(platform: Platform) -> None:
    assert readiness(platform.url) == {"status": "ready", "tables": "ok", "nats": "ok", "processes": "ok"}
    assert sorted(worker_pids(platform)) == [1, 2]
    told = json.loads((platform.data / "server.json").read_text())
    assert told["pid"] == platform.process.pid  # type: ignore[union-attr]  # it runs


def test_the_supervisor_holds_the_data_folder(platform: Platform) -> None:
    assert platform.process is not None
    with pytest.raises(StartRefused, match=rf"in use by another artcafe \(process {platform.process.pid}\)"):
        DataDir.acquire(platform.data)


async def test_sockets_that_last_are_spread_evenly(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1, channels=1)
    port = int(platform.gateway_url.split(":")[2].split("/")[0])
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        pids = worker_pids(platform)
        wait_for(lambda: sum(_open_to(pid, port) for pid in pids.values()) >= 40, "40 sockets")
        counts = [_open_to(pid, port) for pid in pids.values()]
    assert cast.agents
    assert abs(counts[0] - counts[1]) <= 4, counts


def _open_to(pid: int, port: int) -> int:
    """How many connections to a port of this machine a process has: by the inodes of its descriptors (proc(5), tcp)."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {words[9] for words in lines if words[1].endswith(f":{port:04X}") and words[3] == "01"}
    found = 0
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += os.readlink(each).removeprefix("socket:[").rstrip("]") in inodes
    return found


async def test_a_message_of_one_process_reaches_agents_of_all(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=4, channels=1)
    async with contextlib.AsyncExitStack() as stack:
        agents = [await stack.enter_async_context(cast.agent(number)) for number in range(4)]
        readers = [agent.messages() for agent in agents]
        receipt = await agents[0].publish(cast.channels[0], {"n": 1})
        async with asyncio.timeout(END_S):
            for reader in readers:
                async for message in reader:
                    assert message.seq == receipt.seq
                    break


async def test_a_withdrawn_agent_is_out_at_every_process(platform: Platform) -> None:
    """Deleted at one process, its connections at the others end within the 5 s of the contract."""
    cast = await platform.tenant_with(agents=1, channels=0)
    async with contextlib.AsyncExitStack() as stack:
        agents = [await stack.enter_async_context(cast.agent()) for _ in range(4)]
        async with cast.rest() as rest:
            await rest.tenant(cast.tenant).agents.delete(cast.agents[0])
        async with asyncio.timeout(10):
            for agent in agents:
                with pytest.raises(Exception, match=r"."):
                    async for _ in agent.messages():
                        pass


async def test_a_killed_process_is_started_again_and_says_why(own_platform: Platform) -> None:
    platform, before = own_platform, worker_pids(own_platform)

    kill(before[1])

    wait_for(lambda: worker_pids(platform).get(1, before[1]) != before[1], "another process 1")
    wait_until_all_serve(platform)
    assert worker_pids(platform)[2] == before[2]
    (line,) = events(platform, "process.ended")
    assert "process=1" in line
    assert "killed by SIGKILL" in line
    assert platform.stop() == 0


async def test_readiness_counts_the_processes_that_serve(own_platform: Platform) -> None:
    platform, victim = own_platform, worker_pids(own_platform)[1]
    os.kill(victim, signal.SIGSTOP)
    try:
        # It is silent after 5 s; its share of the questions waits as long, so they are put with a limit.
        wait_for(lambda: len(events(platform, "process.silent")) == 1, "a silent process")
        wait_for(lambda: readiness(platform.url).get("processes") == "1 of 2 server processes serve", "one that serves")
    finally:
        os.kill(victim, signal.SIGCONT)
    wait_until_all_serve(platform)
    assert worker_pids(platform)[1] == victim


async def test_hangup_replaces_every_process_and_agents_come_back(own_platform: Platform) -> None:
    platform, before = own_platform, worker_pids(own_platform)
    assert platform.process is not None
    cast = await platform.tenant_with(agents=4, channels=1)
    async with contextlib.AsyncExitStack() as stack:
        agents = [await stack.enter_async_context(cast.agent(number)) for number in range(4)]

        platform.process.send_signal(signal.SIGHUP)

        async with asyncio.timeout(2 * END_S):
            while not events(platform, "group.restarted"):
                # Nobody is refused meanwhile: new connections find a process that serves.
                async with Client(platform.url, cast.token) as rest:
                    assert (await rest.tenants().__anext__()).id == cast.tenant
                await agents[0].publish(cast.channels[0], {"at": time.monotonic()})
        for agent in agents:
            async with asyncio.timeout(END_S):
                await agent.publish(cast.channels[0], {"still": "here"})
    after = worker_pids(platform)
    assert sorted(after) == [1, 2]
    assert not set(after.values()) & set(before.values())
    assert platform.stop() == 0


async def test_sigterm_in_a_rolling_restart_ends_everything(own_platform: Platform) -> None:
    platform = own_platform
    assert platform.process is not None
    platform.process.send_signal(signal.SIGHUP)
    wait_for(lambda: len(children_of(platform.process.pid)) > 4, "a process more")  # type: ignore[union-attr]  # it runs
    children = children_of(platform.process.pid)

    platform.process.terminate()
    platform.process.send_signal(signal.SIGHUP)

    assert platform.process.wait(END_S) == 0
    wait_for(lambda: not any(map(is_running, children)), "the end of all")
    assert not (platform.data / "server.json").exists()


async def test_killing_the_supervisor_ends_its_processes(own_platform: Platform) -> None:
    assert own_platform.process is not None
    children = children_of(own_platform.process.pid)
    assert len(workers_of(own_platform.process.pid)) == 2

    own_platform.kill()

    wait_for(lambda: not any(map(is_running, children)), "the end of all children")


def test_a_process_that_is_terminated_by_itself_is_replaced(own_platform: Platform) -> None:
    before = worker_pids(own_platform)
    os.kill(before[2], signal.SIGTERM)

    wait_for(lambda: worker_pids(own_platform).get(2, before[2]) != before[2], "another process 2")
    wait_until_all_serve(own_platform)


def test_hangup_of_a_single_process_of_the_group_ends_nothing(own_platform: Platform) -> None:
    before = worker_pids(own_platform)
    for pid in before.values():
        os.kill(pid, signal.SIGHUP)

    assert readiness(own_platform.url)["processes"] == "ok"
    assert worker_pids(own_platform) == before


async def test_a_rolling_restart_takes_over_settings_and_refuses_wrong_ones(tmp_path: Path) -> None:
    config = tmp_path / "artcafe.toml"
    config.write_text('log_level = "info"\nprocesses = 2\n')
    with running(tmp_path / "group", ["--config", str(config)]) as platform:
        assert platform.process is not None
        before = worker_pids(platform)
        config.write_text("requests_per_s = -1\n")
        platform.process.send_signal(signal.SIGHUP)
        wait_for(lambda: bool(events(platform, "group.not_restarted")), "a refusal")
        assert worker_pids(platform) == before

        config.write_text('log_level = "info"\nprocesses = 3\nrequests_per_s = 0.1\n')
        platform.process.send_signal(signal.SIGHUP)
        wait_for(lambda: bool(events(platform, "group.restarted")), "a rolling restart")
        assert "processes" in events(platform, "group.settings_kept")[0]
        assert sorted(worker_pids(platform)) == [1, 2]
        assert readiness(platform.url)["status"] == "ready"
        assert readiness(platform.url)["status"] == 429  # one in ten seconds, counted by both processes together
