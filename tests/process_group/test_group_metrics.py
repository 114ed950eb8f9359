"""The metrics of a process group: added up at one address, also after a process was killed or replaced."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from artcafe.observe import metrics
from artcafe.process_group.group_metrics import COLUMN_BYTES, GroupMetrics, count_in_column
from artcafe.sdk.agent import Agent
from tests.conftest import Require
from tests.faults.processes import wait_for
from tests.platform import Platform, running
from tests.process_group.groups import PROCESSES, wait_until_all_serve, worker_pids
from tests.prometheus import PROMTOOL, Samples, complaints, parse, scrape, value

LOST = metrics.NATS_LOST.series[0].first
UP = metrics.NATS_UP.series[0].first


@pytest.fixture
def memory() -> memoryview:
    return memoryview(bytearray(3 * COLUMN_BYTES))


def column(memory: memoryview, number: int) -> memoryview[float]:
    """Return the cells of a column, of which the first is set once a process counts in it."""
    return memory[number * COLUMN_BYTES :][:COLUMN_BYTES].cast("d")


def texts(group: GroupMetrics) -> Samples:
    return parse(group.text().decode())


def test_columns_are_added_up_and_an_ended_process_keeps_its_counts(memory: memoryview) -> None:
    group = GroupMetrics(memory)
    base = value(texts(group), "artcafe_nats_connections_lost_total")
    for number, count in ((0, 2.0), (2, 5.0)):
        group.assign(number, number + 1)
        column(memory, number)[0], column(memory, number)[1 + LOST], column(memory, number)[1 + UP] = 1.0, count, 1.0
    samples = texts(group)
    assert value(samples, "artcafe_nats_connections_lost_total") == base + 7
    assert value(samples, "artcafe_nats_up", process="3") == 1
    group.free(2)
    assert bytes(memory[2 * COLUMN_BYTES :]) == bytes(COLUMN_BYTES)
    samples = texts(group)
    assert value(samples, "artcafe_nats_connections_lost_total") == base + 7
    assert ("artcafe_nats_up", frozenset({("process", "3")})) not in samples
    group.assign(2, 3)
    column(memory, 2)[0], column(memory, 2)[1 + LOST] = 1.0, 1.0
    assert value(texts(group), "artcafe_nats_connections_lost_total") == base + 8


def test_process_that_does_not_count_yet_has_no_gauges(memory: memoryview) -> None:
    group = GroupMetrics(memory)
    group.assign(0, 1)
    assert not [key for key in texts(group) if ("process", "1") in key[1]]


def test_process_of_another_layout_counts_alone(memory: memoryview) -> None:
    assert count_in_column(memory, 1, metrics.LAYOUT + 1) is False
    metrics.NATS_LOST.of().add(0)
    assert bytes(memory) == bytes(3 * COLUMN_BYTES)


# --- a group as an operator runs it -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running(tmp_path_factory.mktemp("group"), PROCESSES) as platform:
        yield platform


def until(platform: Platform, condition: Callable[[Samples], bool], what: str) -> Samples:
    """Scrape until the condition holds."""
    last: list[Samples] = []

    def holds() -> bool:
        last[:] = [scrape(platform.metrics_url)]
        return condition(last[0])

    wait_for(holds, what)
    return last[0]


async def publish(agent: Agent, channel: str, count: int) -> None:
    async with agent:
        for number in range(count):
            await agent.publish(channel, {"number": number})


async def test_publishes_of_all_processes_are_added_up_and_survive_their_kill(platform: Platform) -> None:
    wait_until_all_serve(platform)
    cast = await platform.tenant_with(agents=4, channels=1)
    before = value(scrape(platform.metrics_url), "artcafe_publishes_total", outcome="stored")
    async with asyncio.TaskGroup() as group:  # four sockets on two processes
        for number in range(4):
            group.create_task(publish(cast.agent(number), cast.channels[0], 5))
    counted = scrape(platform.metrics_url)
    assert value(counted, "artcafe_publishes_total", outcome="stored") == before + 20
    restarts = value(counted, "artcafe_process_restarts_total")
    for pid in worker_pids(platform).values():
        os.kill(pid, signal.SIGKILL)
    killed = until(platform, lambda now: value(now, "artcafe_process_restarts_total") == restarts + 2, "two restarts")
    assert value(killed, "artcafe_publishes_total", outcome="stored") == before + 20
    until(platform, lambda now: value(now, "artcafe_processes") == 2, "two processes that serve")
    await publish(cast.agent(0), cast.channels[0], 3)
    assert value(scrape(platform.metrics_url), "artcafe_publishes_total", outcome="stored") == before + 23


async def test_rolling_restart_keeps_the_counters(platform: Platform) -> None:
    wait_until_all_serve(platform)
    cast = await platform.tenant_with(agents=1, channels=1)
    await publish(cast.agent(0), cast.channels[0], 1)
    before = scrape(platform.metrics_url)
    old = set(worker_pids(platform).values())
    assert platform.process is not None
    platform.process.send_signal(signal.SIGHUP)
    wait_for(lambda: len(worker_pids(platform)) == 2 and not old & set(worker_pids(platform).values()), "new processes")
    after = until(platform, lambda now: value(now, "artcafe_processes") == 2, "two processes that serve")
    for name in ("artcafe_publishes_total", "artcafe_logins_total", "artcafe_http_requests_total"):
        assert value(after, name) >= value(before, name) > 0
    assert value(after, "artcafe_process_restarts_total") == value(before, "artcafe_process_restarts_total")


def test_gauges_of_each_process_and_of_the_supervisor_are_shown_once(platform: Platform, require: Require) -> None:
    wait_until_all_serve(platform)
    is_complete = "the gauges of both processes"
    now = until(platform, lambda now: all(value(now, "artcafe_nats_up", process=each) == 1 for each in "12"), is_complete)
    loops = {dict(labels)["process"] for name, labels in now if name == "artcafe_event_loop_delay_seconds"}
    assert loops == {"0", "1", "2"}
    require("promtool", PROMTOOL is not None)
    assert platform.metrics_url is not None
    assert complaints(httpx2.get(platform.metrics_url).text) == ""


def test_taken_address_stops_the_start_of_a_group_too(platform: Platform, tmp_path: Path) -> None:
    assert platform.metrics_url is not None
    address = platform.metrics_url.removeprefix("http://").removesuffix("/metrics")
    second = Platform(tmp_path, [*PROCESSES, "--metrics-listen", address])
    with pytest.raises(AssertionError, match="ended with"):
        second.start()
    assert f"cannot listen on {address}" in second.log()
