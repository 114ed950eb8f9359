"""The metrics of running servers: their values move by what happened, and only their own listener shows them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from artcafe.cli.operate.demo import run_demo
from artcafe.errors import ArtcafeError
from artcafe.observe import metrics
from artcafe.sdk.agent import Agent
from tests.conftest import Require
from tests.faults.processes import wait_for
from tests.platform import Cast, Platform, running
from tests.prometheus import PROMTOOL, Samples, complaints, scrape, value

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A server that no other test uses, so that nothing else moves its metrics."""
    with running(tmp_path_factory.mktemp("metrics")) as platform:
        yield platform


@pytest.fixture
def cast(server: Platform) -> Cast:
    return asyncio.run(server.tenant_with(agents=2, channels=1))


async def until(url: str | None, condition: Callable[[Samples], bool]) -> Samples:
    """Scrape until the condition holds: gauges are set every 2 s."""
    async with asyncio.timeout(20):
        while not condition(samples := await asyncio.to_thread(scrape, url)):  # noqa: ASYNC110 (it asks another process)
            await asyncio.sleep(0.1)
    return samples


@asynccontextmanager
async def connected(*agents: Agent) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for agent in agents:
            await stack.enter_async_context(agent)
        yield


async def test_ends_of_queue_deliveries_are_counted_by_their_outcome(server: Platform, cast: Cast) -> None:
    before = scrape(server.metrics_url)

    def ended(now: Samples, outcome: str) -> float:
        name = "artcafe_queue_deliveries_ended_total"
        return value(now, name, outcome=outcome) - value(before, name, outcome=outcome)

    async with cast.rest() as rest:
        queue = await rest.tenant(cast.tenant).channels.create("tasks", type="queue", ack_wait_s=1)
        for number in range(4):
            await rest.tenant(cast.tenant).messages.publish(queue.id, number)
    agent = Agent(server.url, tenant=cast.tenant, agent=cast.agents[0], key=cast.keys[0])
    async with agent:
        messages = agent.messages(queue.id)
        for _ in range(2):
            await (await anext(messages)).ack()
        await (await anext(messages)).nak(60)
        await anext(messages)  # its deadline passes, and it is delivered again
        await anext(messages)
        await until(server.metrics_url, lambda now: value(now, "artcafe_queue_messages_held") >= 1)
    after = await until(server.metrics_url, lambda now: ended(now, "returned") >= 1)
    outcomes = {outcome: ended(after, outcome) for outcome in metrics.QUEUE_OUTCOMES}
    assert outcomes == {"acked": 2, "nacked": 1, "expired": 1, "returned": 1}
    redelivered = "artcafe_queue_redeliveries_total"
    assert value(after, redelivered) - value(before, redelivered) == 1
    await until(server.metrics_url, lambda now: value(now, "artcafe_queue_messages_held") == 0)


async def test_publishes_and_deliveries_are_counted_exactly(server: Platform, cast: Cast) -> None:
    before = scrape(server.metrics_url)

    def moved(samples: Samples, name: str, **labels: str) -> float:
        return value(samples, name, **labels) - value(before, name, **labels)

    first, second = cast.agent(0), cast.agent(1)
    async with connected(first, second):
        messages = second.messages()
        for number in range(3):
            await first.publish(cast.channels[0], {"number": number})
        for _ in range(3):
            message = await anext(messages)
            await message.ack()
        await first.publish(cast.channels[0], {"number": "keyed"}, key="k")
        await first.publish(cast.channels[0], {"number": "keyed"}, key="k")
        with pytest.raises(ArtcafeError):
            await first.publish(cast.channels[0], {"number": "other"}, key="k")
        with pytest.raises(ArtcafeError):
            await first.publish("chn_none", {"number": 1})
        after = await until(server.metrics_url, lambda now: moved(now, "artcafe_deliveries_total") >= 8)
    assert moved(after, "artcafe_publishes_total", outcome="stored") == 4
    assert moved(after, "artcafe_publishes_total", outcome="duplicate") == 1
    assert moved(after, "artcafe_publishes_total", outcome="refused") == 2
    assert moved(after, "artcafe_publishes_total") == 7
    assert moved(after, "artcafe_publish_seconds_count") == 4
    assert moved(after, "artcafe_publish_seconds_sum") > 0
    assert moved(after, "artcafe_deliveries_total") == 8
    assert 0 < moved(after, "artcafe_delivery_lag_seconds_count") <= 8
    assert moved(after, "artcafe_errors_total", code="key_reused") == 1
    assert moved(after, "artcafe_errors_total", code="channel_not_found") == 1


async def test_logins_accepted_and_refused_are_counted_with_their_reason(server: Platform, cast: Cast) -> None:
    before = scrape(server.metrics_url)
    async with connected(cast.agent(0)):
        pass
    stranger = Agent(cast.url, tenant=cast.tenant, agent=cast.agents[0], key=cast.keys[1])
    with pytest.raises(ArtcafeError):
        async with connected(stranger):
            pass
    after = scrape(server.metrics_url)
    changed = {key: after[key] - before[key] for key in after if key[0] == "artcafe_logins_total" and after[key] != before[key]}
    assert changed == {
        ("artcafe_logins_total", frozenset({("outcome", "accepted")})): 1,
        ("artcafe_logins_total", frozenset({("outcome", "unknown_key")})): 1,
    }
    name = "artcafe_login_seconds_count"
    assert value(after, name) - value(before, name) == 2


async def test_sockets_are_counted_while_they_are_open(server: Platform, cast: Cast) -> None:
    await until(server.metrics_url, lambda now: value(now, "artcafe_sockets", process="1") == 0)
    async with connected(cast.agent(0), cast.agent(1)):
        now = await until(server.metrics_url, lambda now: value(now, "artcafe_sockets", process="1") == 2)
        assert value(now, "artcafe_connections", process="1") >= 2
        await until(server.metrics_url, lambda now: value(now, "artcafe_channel_feeds", process="1") == 1)
    await until(server.metrics_url, lambda now: value(now, "artcafe_sockets", process="1") == 0)


async def test_raw_socket_before_connect_is_counted_apart(server: Platform) -> None:
    port = int(server.gateway_url.split(":")[2].split("/")[0])
    key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: artcafe.v1"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        raw.sendall(f"GET /v1/connect HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{key}\r\n\r\n".encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 101")
        await until(server.metrics_url, lambda now: value(now, "artcafe_sockets_connecting", process="1") == 1)


async def test_agent_that_acknowledges_nothing_is_counted_as_behind(server: Platform, cast: Cast) -> None:
    async with connected(cast.agent(0, max_unacked=1), publisher := cast.agent(1)):
        for number in range(3):
            await publisher.publish(cast.channels[0], {"number": number})
        await until(server.metrics_url, lambda now: value(now, "artcafe_deliveries_behind", process="1") >= 1)
    await until(server.metrics_url, lambda now: value(now, "artcafe_deliveries_behind", process="1") == 0)


async def test_requests_are_counted_by_status_and_errors_by_code(server: Platform) -> None:
    before = scrape(server.metrics_url)
    async with httpx2.AsyncClient(base_url=server.url) as rest:
        assert (await rest.get("/health/live")).status_code == 200
        assert (await rest.get("/v1/me")).status_code == 401
        assert (await rest.get("/nothing")).status_code == 404
    after = scrape(server.metrics_url)
    for labels, count in (({"status": "2xx"}, 1), ({"status": "4xx"}, 2), ({"status": "5xx"}, 0)):
        name = "artcafe_http_requests_total"
        assert value(after, name, **labels) - value(before, name, **labels) == count
    for code in ("unauthenticated", "route_not_found"):
        name = "artcafe_errors_total"
        assert value(after, name, code=code) - value(before, name, code=code) == 1
    assert value(after, "artcafe_http_request_seconds_count") - value(before, "artcafe_http_request_seconds_count") == 3


async def test_state_of_nats_and_of_the_process_is_shown(server: Platform, cast: Cast) -> None:
    async with connected(cast.agent(0)) as _:
        pass
    now = await until(server.metrics_url, lambda now: value(now, "artcafe_nats_streams") >= 1)
    assert value(now, "artcafe_nats_up", process="1") == 1
    assert value(now, "artcafe_nats_servers") == 1
    assert value(now, "artcafe_nats_stored_bytes") > 0
    assert value(now, "artcafe_processes") == 1
    assert value(now, "artcafe_process_resident_bytes", process="1") > 10e6
    assert ("artcafe_event_loop_delay_seconds", frozenset({("process", "1")})) in now


async def test_restart_of_nats_is_counted(server: Platform) -> None:
    before = scrape(server.metrics_url)
    os.kill(server.nats_pid, signal.SIGKILL)
    name = "artcafe_nats_restarts_total"
    now = await until(server.metrics_url, lambda now: value(now, name) == value(before, name) + 1)
    assert value(now, "artcafe_nats_connections_lost_total") >= value(before, "artcafe_nats_connections_lost_total") + 2
    await until(server.metrics_url, lambda now: value(now, "artcafe_nats_up", process="1") == 1)


async def test_table_calls_are_timed_by_verb_and_table(server: Platform) -> None:
    name, labels = "artcafe_table_call_seconds_count", {"verb": "transact", "table": "several"}
    before = scrape(server.metrics_url)
    await server.tenant_with(agents=0, channels=0)
    after = scrape(server.metrics_url)
    assert value(after, name, **labels) - value(before, name, **labels) == 1
    assert value(after, "artcafe_table_failures_total") == 0


def test_names_exposed_are_the_names_documented(server: Platform) -> None:
    assert server.metrics_url is not None
    exposed = set(re.findall(r"^# TYPE (\w+) ", httpx2.get(server.metrics_url).text, re.MULTILINE))
    documented = set(re.findall(r"^\| `(artcafe_\w+)` \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE))
    assert exposed == documented == {metric.name for metric in metrics.METRICS}


def test_public_listeners_have_no_metrics_and_the_metrics_listener_nothing_else(server: Platform) -> None:
    gateway = server.gateway_url.replace("ws:", "http:").removesuffix("/v1/connect")
    for url in (f"{server.url}/metrics", f"{gateway}/metrics"):
        answer = httpx2.get(url)
        assert answer.status_code == 404
        assert "artcafe_" not in answer.text
    assert server.metrics_url is not None
    base = server.metrics_url.removesuffix("/metrics")
    token = server.token("alice@example.com")
    for path in ("/", "/v1", "/v1/me", "/v1/tenants", "/health/ready", "/openapi.json", "/v1/connect"):
        assert httpx2.get(f"{base}{path}", headers={"Authorization": f"Bearer {token}"}).status_code == 404


def test_no_id_of_a_tenant_or_agent_is_in_the_metrics(server: Platform, cast: Cast) -> None:
    assert server.metrics_url is not None
    text = httpx2.get(server.metrics_url).text
    assert not [each for each in (cast.tenant, *cast.agents, *cast.channels, "ten_", "agt_", "chn_", "usr:") if each in text]


async def test_scrapes_under_load_are_answered_and_lose_no_count(server: Platform, cast: Cast) -> None:
    before = scrape(server.metrics_url)
    publisher = cast.agent(0)

    async def publish() -> None:
        async with connected(publisher):
            for number in range(300):
                await publisher.publish(cast.channels[0], {"number": number})

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        publishing = group.create_task(publish())
        scrapes = 0
        while not publishing.done():
            await asyncio.to_thread(scrape, server.metrics_url)
            scrapes += 1
    after = scrape(server.metrics_url)
    assert scrapes > 1
    assert value(after, "artcafe_publishes_total") - value(before, "artcafe_publishes_total") == 300


async def test_promtool_accepts_the_metrics_after_the_demo(server: Platform, require: Require, tmp_path: Path) -> None:
    require("promtool", PROMTOOL is not None)
    await run_demo(server.url, server.token("demo@example.com"), tmp_path / "demo")
    assert server.metrics_url is not None
    text = (await asyncio.to_thread(httpx2.get, server.metrics_url)).text
    assert "artcafe_publishes_total" in text
    assert complaints(text) == ""
    assert complaints("artcafe_x 1\n"), "it accepts anything"


# --- the setting ------------------------------------------------------------------------------------------------------


def test_off_opens_no_listener(tmp_path: Path) -> None:
    with running(tmp_path, ["--metrics-listen", "off"]) as platform:
        assert platform.metrics_url is None
        assert httpx2.get(f"{platform.url}/health/live").status_code == 200
        wait_for(lambda: "Metrics  off" in platform.log(), "the ready message")
        assert platform.process is not None
        assert len(listening_ports(platform.process.pid)) == 2


def listens(own: socket.socket) -> bool:
    """Listen on the default address of the metrics, and return whether it was free."""
    try:
        own.bind(("127.0.0.1", 8082))
        own.listen()
    except OSError:
        return False
    return True


def test_server_starts_without_metrics_if_only_the_default_address_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wait_for(lambda: listens(taken), "the address: another test's server may have it")
        with running(tmp_path, default_metrics=True) as platform:
            assert platform.metrics_url is None
            why = "127.0.0.1:8082 is taken; choose another address with --metrics-listen"
            wait_for(lambda: why in platform.log(), "the ready message")
            assert "metrics.not_served" in platform.log()


async def test_named_tenant_has_series_of_its_own(tmp_path: Path) -> None:
    with running(tmp_path / "first") as platform:
        cast = await platform.tenant_with(agents=1, channels=1)
        other = await platform.tenant_with(agents=1, channels=1)
        platform.stop()
        platform.set_flags(["--metrics-tenants", cast.tenant])
        platform.start()
        for each in (cast, other):
            async with connected(agent := each.agent(0)):
                await agent.publish(each.channels[0], {"n": 1})
                if each is cast:
                    now = await until(
                        platform.metrics_url, lambda now: value(now, "artcafe_sockets", tenant=cast.tenant, process="1") == 1
                    )
        now = scrape(platform.metrics_url)
        assert value(now, "artcafe_publishes_total", outcome="stored", tenant=cast.tenant) == 1
        assert value(now, "artcafe_publishes_total", outcome="stored") == 2
        assert not [key for key in now if ("tenant", other.tenant) in key[1]]


def listening_ports(pid: int) -> set[int]:
    """Return the TCP ports on which a process listens: by the inodes of its descriptors (proc(5), tcp)."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {words[9]: int(words[1].rpartition(":")[2], 16) for words in lines if words[3] == "0A"}
    found = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor has been closed since
            match = re.fullmatch(r"socket:\[(\d+)\]", str(each.readlink()))
            if match and match[1] in inodes:
                found.add(inodes[match[1]])
    return found


def test_server_info_names_the_metrics(server: Platform) -> None:
    assert json.loads((server.data / "server.json").read_text())["metrics_url"] == server.metrics_url
