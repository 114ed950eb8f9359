"""Many agents, channels, subscribers and tenants on one server.

First 10,000 agents with 1,000 channels in ten tenants, each agent subscribed to one channel: the time in which all log in on
sockets by signature (64 at a time), the memory that they take, and a stored message to each of the channels.

Then the server's processor time of a delivery, with 1 to 10,000 subscribers of one stored channel: sockets of one agent each. The
time of a message without subscribers is subtracted, so that what is left is the deliveries'. At last the processor time of a
stored message with one delivery, one message at a time, as 1 to 1,000 tenants take turns; and the time from a publish to its
delivery at a tenth of the rate that the same agent publishes at with 256 waiting.

`--only` of agents, subscribers, tenants and capacity runs some of the four parts; `--divide 100` runs them with a hundredth of
the agents, subscribers and tenants, to try them.

All clients are in this process, which shares the cores with the server: rates are lower than with clients elsewhere.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import resource
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from artcafe.sdk.keys import load_signer
from artcafe.wire import frames, replies
from bench import report
from bench.bench_env import BenchEnv, bench_env, largest_plan
from bench.publish import DATA
from bench.raw_client import Publisher, RawSocket, connect, masked
from bench.readers import Counter
from bench.report import Options, Sample, Table
from tests.platform import Cast

AGENTS: Final = 10_000
CHANNELS: Final = 1_000
SHARED_BY: Final = 10
"""Tenants of these agents and channels. One actor may make 20,000 changes in a tenant, and then one a second."""
SUBSCRIBERS: Final = (1, 10, 100, 1_000, 10_000)
COMPARED: Final = 1_000
"""Subscribers whose deliveries the others are compared with."""
TENANTS: Final = (1, 10, 100, 1_000)
TOGETHER: Final = 16
"""Requests that create agents, channels and subscriptions at a time."""
LOGINS: Final = 64
WAITING: Final = 16
"""Publishes waiting for their answer."""
DELIVERIES: Final = 20_000
"""Least deliveries of a measurement with few subscribers, and half of the most."""
ROUNDS: Final = 3
TURNS: Final = 1_000
"""Messages of a measurement with several tenants."""
IDLE_S: Final = 3.0
"""How long the processor time of idle tenants is measured at a time."""
SETTLE_S: Final = 3.0
"""Wait after the last login: subscriptions begin after its reply."""
FULL: Final = 256
"""Publishes waiting when the capacity is measured."""
RATED_S: Final = 3.0
PATIENCE_S: Final = 60.0
_PONG: Final = b"\x8a\x80" + bytes(4)
"""An unsolicited pong, which keeps a connection alive (RFC 6455, section 5.5.3)."""

ALIVE_S: Final = 3.0

T = TypeVar("T")
Part = Callable[[BenchEnv, Options], Awaitable[Table]]


_connected: Final[set[Reader]] = set()
"""The open sockets of readers."""


class Reader(Counter):
    """A connected agent. `done_at`: when it had received all that it waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.done_at = 0.0
        self.arrived: list[float] = []
        """When each message arrived."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        _connected.add(self)

    @property
    def is_counting(self) -> bool:
        """Whether frames are counted, and pings not answered."""
        return self._expected >= 0

    def connection_lost(self, exc: Exception | None) -> None:
        _connected.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self.count
        super().data_received(data)
        self.arrived += [time.perf_counter()] * (self.count - before)
        if self.done.is_set() and not self.done_at:
            self.done_at = time.perf_counter()

    def expect(self, messages: int) -> None:
        """Count messages from now on."""
        self.count, self.done_at, self.arrived = 0, 0.0, []
        self.done.clear()
        self.await_messages(messages)


class Sender:
    """Publishes one message after another, with a number of them waiting for their answer."""

    def __init__(self, line: RawSocket) -> None:
        self._line, self._numbers = line, itertools.count(1)
        self.sent_at: list[float] = []
        self._waiting = asyncio.Semaphore()
        self._refused: bytes | None = None
        line.on_frame = self._answered

    async def publish(self, channels: Iterable[str], waiting: int) -> None:
        """Publish a message to each channel, in order. Return when all are stored. Raises `RuntimeError` if one is refused."""
        self._waiting, self.sent_at = asyncio.Semaphore(waiting), []
        for channel in channels:
            await self._waiting.acquire()
            self.send(channel)
        for _ in range(waiting):
            await self._waiting.acquire()
        if self._refused is not None:
            raise RuntimeError(self._refused.decode())

    def send(self, channel: str) -> None:
        """Publish a message without waiting."""
        self.sent_at.append(time.perf_counter())
        body = b'{"id":%d,"publish":{"channel":"%b","data":%b}}' % (next(self._numbers), channel.encode(), DATA)
        self._line.transport.write(masked(body))

    def close(self) -> None:
        self._line.close()

    def _answered(self, payload: bytes) -> None:
        if payload.startswith(b'{"id"'):
            self._waiting.release()
            if b'"error"' in payload:
                self._refused = payload


def parts(options: Options) -> list[Callable[[Options], Awaitable[list[Table]]]]:
    """Return the parts to run, each on a server of its own."""
    return [partial(_run_part, PARTS[name]) for name in options.only or PARTS]


async def run(options: Options) -> list[Table]:
    """Return the tables of every part."""
    return [table for part in parts(options) for table in await part(options)]


async def _run_part(part: Part, options: Options) -> list[Table]:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(_keep_alive())
        flags = [*largest_plan(options), "--connections-per-address", "0"]
        async with bench_env(options, flags=flags) as env:
            table = await part(env, options)
        keeping.cancel()
    return [table]


# --- many agents --------------------------------------------------------------------------------------------------------------


async def _many_agents(env: BenchEnv, options: Options) -> Table:
    """Connect the agents, and publish a message to each channel."""
    agents, channels = _divided(AGENTS, options), _divided(CHANNELS, options)
    begun = time.perf_counter()
    casts = [await _tenant(env, agents // SHARED_BY, channels // SHARED_BY) for _ in range(SHARED_BY)]
    created_s = time.perf_counter() - begun
    server = _server_of(env)
    before, cpu = report.resident_bytes(server), report.process_seconds(server)
    readers, logins = await _log_in(env, casts)
    login_us = (report.process_seconds(server) - cpu) / agents * 1e6
    everyone = [reader for each in readers for reader in each]
    await asyncio.sleep(SETTLE_S)
    after = report.resident_bytes(server)
    burst, burst_us = await _burst(env, casts, readers)
    table = Table(f"{agents:,} connected agents and {channels:,} channels of {SHARED_BY} tenants", ["", "", "server CPU"])
    table.rows = [
        ("created over REST, with their subscriptions", f"{created_s:,.0f} s", ""),
        (
            f"logins of all on sockets, {LOGINS} at a time",
            f"{logins.seconds:.1f} s, {logins.rate:,.0f}/s; p50 / p99 {_p50_p99(logins)} ms",
            f"{login_us:,.0f} µs a login",
        ),
        (
            "memory of the server",
            f"{before / 2**20:,.0f} → {after / 2**20:,.0f} MiB",
            f"{(after - before) / agents:,.0f} B an agent",
        ),
        (
            f"a message to each channel, {burst.count:,} deliveries",
            f"{burst.seconds:.2f} s, {burst.rate:,.0f}/s; p50 / p99 {_p50_p99(burst)} ms",
            f"{burst_us:,.1f} µs a delivery",
        ),
    ]
    for each in everyone:
        each.close()
    return table


async def _tenant(env: BenchEnv, agents: int, channels: int) -> Cast:
    """Create a tenant with agents, each subscribed to the channel of its turn."""
    cast = await env.platform.tenant_with(agents=0, channels=channels)
    cast.agents += [""] * agents
    cast.keys += [env.platform.folder / f"{cast.tenant}-{number}" for number in range(agents)]
    async with cast.rest() as rest:

        async def make(number: int) -> None:
            key = Ed25519PrivateKey.generate()
            cast.keys[number].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
            cast.keys[number].chmod(0o600)
            public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
            cast.agents[number] = (await rest.tenant(cast.tenant).agents.create(f"member {number}", public)).id
            await rest.tenant(cast.tenant).subscriptions.create(cast.channels[number % channels], cast.agents[number])

        await _each(range(agents), make, TOGETHER)
    return cast


async def _log_in(env: BenchEnv, casts: Sequence[Cast]) -> tuple[list[list[Reader]], Sample]:
    """Connect every agent by its signature. Return the sockets by tenant, and the time of each login."""
    readers: list[dict[int, Reader]] = [{} for _ in casts]
    signers = [[load_signer(key) for key in cast.keys] for cast in casts]
    latencies: list[float] = []
    parts = urlsplit(env.platform.gateway_url)

    async def log_in(at: tuple[int, int]) -> None:
        tenant, number = at
        cast, begun = casts[tenant], time.perf_counter()
        _, line = await asyncio.get_running_loop().create_connection(Reader, parts.hostname or "", parts.port or 0)
        await line.upgrade(parts.path, parts.netloc)
        request = frames.command("challenge", frames.Challenge(cast.tenant, cast.agents[number]), 0)
        posed = replies.parse_incoming(await line.ask(request)).challenge
        assert posed is not None
        signature = await signers[tenant][number].sign(posed.challenge)
        await line.ask(frames.command("connect", frames.Connect(challenge_id=posed.challenge_id, signature=signature), 1))
        latencies.append(time.perf_counter() - begun)
        line.expect(1)
        readers[tenant][number] = line

    places = [(tenant, number) for tenant, cast in enumerate(casts) for number in range(len(cast.agents))]
    random.shuffle(places)
    begun = time.perf_counter()
    await _each(places, log_in, LOGINS)
    elapsed = time.perf_counter() - begun
    return [[each[number] for number in sorted(each)] for each in readers], Sample(len(places), elapsed, latencies)


async def _burst(env: BenchEnv, casts: Sequence[Cast], readers: Sequence[Sequence[Reader]]) -> tuple[Sample, float]:
    """Publish a message to each channel. Return the deliveries to every agent, and the server's processor time of each in µs."""
    senders = [Sender(await connect(env.platform.gateway_url, cast.tenant, await env.token(cast))) for cast in casts]
    everyone = [reader for each in readers for reader in each]
    for reader in everyone:
        reader.expect(1)
    cpu = report.process_seconds(_server_of(env))
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for sender, cast in zip(senders, casts, strict=True):
            group.create_task(sender.publish(cast.channels, WAITING))
    await _all_done(everyone)
    elapsed = time.perf_counter() - begun
    spent = report.process_seconds(_server_of(env)) - cpu
    latencies = [
        reader.done_at - sender.sent_at[number % len(cast.channels)]
        for sender, cast, each in zip(senders, casts, readers, strict=True)
        for number, reader in enumerate(each)
    ]
    for sender in senders:
        sender.close()
    return Sample(len(everyone), elapsed, latencies), spent / len(everyone) * 1e6


# --- subscribers --------------------------------------------------------------------------------------------------------------


async def _subscribers(env: BenchEnv, options: Options) -> Table:
    """Measure channels with as many subscribers as `SUBSCRIBERS`, and one without."""
    counts = (0, *dict.fromkeys(_divided(count, options) for count in SUBSCRIBERS))
    cast = await env.platform.tenant_with(agents=len(counts), channels=len(counts), subscribed=False)
    wide = dict(zip(counts, cast.channels, strict=True))
    readers: dict[int, list[Reader]] = {}
    async with cast.rest() as rest:
        for number, count in enumerate(counts):
            await rest.tenant(cast.tenant).subscriptions.create(cast.channels[number], cast.agents[number])
            token = await env.token(cast, number)
            sockets = [await connect(env.platform.gateway_url, cast.tenant, token, Reader) for _ in range(count)]
            readers[count] = [each for each in sockets if isinstance(each, Reader)]
    for each in itertools.chain.from_iterable(readers.values()):
        each.expect(1)
    await asyncio.sleep(SETTLE_S)
    sender = Sender(await connect(env.platform.gateway_url, cast.tenant, await env.token(cast)))
    table = await _by_subscribers(env, readers, sender, wide, _divided(COMPARED, options))
    sender.close()
    for each in itertools.chain.from_iterable(readers.values()):
        each.close()
    return table


async def _by_subscribers(
    env: BenchEnv, readers: Mapping[int, Sequence[Reader]], sender: Sender, wide: Mapping[int, str], compared: int
) -> Table:
    table = Table(
        "A delivery by the number of subscribers",
        [
            "subscribers of the channel",
            "messages",
            "deliveries/s",
            "server CPU a message, µs",
            "a delivery, µs",
            f"to {compared:,}'s",
        ],
        [
            f"Medians of {ROUNDS} rounds, {WAITING} publishes waiting. The first row's processor time is subtracted before it is",
            "divided by the deliveries.",
        ],
    )
    taken: dict[int, list[tuple[float, float]]] = {count: [] for count in wide}
    for _ in range(ROUNDS):
        for count, channel in wide.items():
            taken[count].append(await _deliver(env, readers[count], sender, [channel] * _messages(count)))
    cost = {count: statistics.median(cpu for _, cpu in found) / _messages(count) * 1e6 for count, found in taken.items()}
    each = {count: (cost[count] - cost[0]) / count for count in wide if count}
    for count, found in taken.items():
        rate = statistics.median(_messages(count) * count / seconds for seconds, _ in found)
        cells = ("", "", "") if not count else (f"{rate:,.0f}", f"{each[count]:.2f}", f"{each[count] / each[compared]:.2f}×")
        table.rows.append((f"{count:,}", f"{_messages(count):,}", cells[0], f"{cost[count]:,.1f}", *cells[1:]))
    return table


def _messages(count: int) -> int:
    return min(2_000, max(20, DELIVERIES // max(count, 1)))


async def _deliver(env: BenchEnv, readers: Sequence[Reader], sender: Sender, channels: Sequence[str]) -> tuple[float, float]:
    """Publish, and wait until these readers have every message. Return seconds, and the server's processor seconds."""
    for each in readers:
        each.expect(len(channels))
    cpu, begun = report.process_seconds(_server_of(env)), time.perf_counter()
    await sender.publish(channels, WAITING)
    await _all_done(readers)
    return time.perf_counter() - begun, report.process_seconds(_server_of(env)) - cpu


# --- many tenants -------------------------------------------------------------------------------------------------------------


async def _many_tenants(env: BenchEnv, options: Options) -> Table:
    """Measure stored messages of one agent in each tenant, which receives them too, as more tenants take turns."""
    pairs: list[tuple[Sender, Reader, str]] = []
    table = Table(
        f"A stored message and its delivery, one at a time, as tenants take turns ({TURNS:,} messages)",
        [
            "tenants",
            "messages/s",
            "server CPU of the idle tenants, ms a second",
            "of a message, µs",
            "to one tenant's",
            "NATS CPU of the idle tenants, ms a second",
            "of a message, µs",
            "memory of the server",
        ],
        [
            f"Medians of {ROUNDS} rounds. The agent that publishes receives its message on another socket. The time of the idle",
            f"tenants is measured for {IDLE_S:.0f} s before and after each round, and is not in that of a message.",
        ],
    )
    first = 0.0
    for count in dict.fromkeys(_divided(each, options) for each in TENANTS):
        await _each(range(count - len(pairs)), lambda _: _pair(env, pairs), TOGETHER)
        await _in_turns(pairs)  # each tenant's first message opens its log
        rounds = [await _round_of_tenants(env, pairs) for _ in range(ROUNDS)]
        rate = statistics.median(each.messages_a_s for each in rounds)
        idle, message = (_median_of(each.idle for each in rounds), _median_of(each.message for each in rounds))
        first = first or message.server
        table.rows.append(
            (
                f"{count:,}",
                f"{rate:,.0f}",
                f"{idle.server * 1e3:,.1f}",
                f"{message.server * 1e6:,.0f}",
                f"{message.server / first:.2f}×",
                f"{idle.nats * 1e3:,.1f}",
                f"{message.nats * 1e6:,.0f}",
                f"{report.resident_bytes(_server_of(env)) / 2**20:,.0f} MiB",
            )
        )
    for sender, reader, _ in pairs:
        sender.close()
        reader.close()
    return table


class CpuSeconds(NamedTuple):
    """Processor seconds of the server and of nats-server."""

    server: float
    nats: float

    def minus(self, other: CpuSeconds, times: float = 1.0) -> CpuSeconds:
        return CpuSeconds(self.server - other.server * times, self.nats - other.nats * times)

    def per(self, divisor: float) -> CpuSeconds:
        return CpuSeconds(self.server / divisor, self.nats / divisor)


class TenantRound(NamedTuple):
    """One round with several tenants: the processor time of the idle ones a second, and that of a message without it."""

    messages_a_s: float
    idle: CpuSeconds
    message: CpuSeconds


def _median_of(found: Iterable[CpuSeconds]) -> CpuSeconds:
    servers, nats = zip(*found, strict=True)
    return CpuSeconds(statistics.median(servers), statistics.median(nats))


def _cpu_seconds(env: BenchEnv) -> CpuSeconds:
    return CpuSeconds(report.process_seconds(_server_of(env)), report.process_seconds(env.platform.nats_pid))


async def _round_of_tenants(env: BenchEnv, pairs: Sequence[tuple[Sender, Reader, str]]) -> TenantRound:
    before = await _idle(env)
    begun, cpu = time.perf_counter(), _cpu_seconds(env)
    await _in_turns(pairs)
    seconds, spent = time.perf_counter() - begun, _cpu_seconds(env).minus(cpu)
    after = await _idle(env)
    idle = CpuSeconds((before.server + after.server) / 2, (before.nats + after.nats) / 2)
    return TenantRound(TURNS / seconds, idle, spent.minus(idle, seconds).per(TURNS))


async def _idle(env: BenchEnv) -> CpuSeconds:
    """Return the processor time a second while nothing is published."""
    begun, cpu = time.perf_counter(), _cpu_seconds(env)
    await asyncio.sleep(IDLE_S)
    return _cpu_seconds(env).minus(cpu).per(time.perf_counter() - begun)


async def _pair(env: BenchEnv, pairs: list[tuple[Sender, Reader, str]]) -> None:
    cast = await env.platform.tenant_with(agents=1, channels=1)
    token = await env.token(cast)
    reader = await connect(env.platform.gateway_url, cast.tenant, token, Reader)
    sender = Sender(await connect(env.platform.gateway_url, cast.tenant, token))
    assert isinstance(reader, Reader)
    pairs.append((sender, reader, cast.channels[0]))


async def _in_turns(pairs: Sequence[tuple[Sender, Reader, str]]) -> None:
    """Publish and receive messages, one after the other."""
    for number in range(TURNS):
        sender, reader, channel = pairs[number % len(pairs)]
        reader.expect(1)
        await sender.publish([channel], 1)
        await _all_done([reader])


# --- a tenth of the capacity ---------------------------------------------------------------------------------------------------


async def _tenth_of_capacity(env: BenchEnv, options: Options) -> Table:
    """Publish at a tenth of the highest rate, and measure the time from when a message was due until it arrived."""
    del options  # One agent has no size to divide.
    table = Table(
        "From a publish to its delivery, at a tenth of the capacity",
        ["publishes/s", "with 256 waiting", "p50 / p99, ms"],
        [f"Rounds of {RATED_S:.0f} s: one agent publishes, another one receives. The time begins when a publish is due."],
    )
    cast = await env.platform.tenant_with(agents=2, channels=1, subscribed=False)
    async with cast.rest() as rest:
        await rest.tenant(cast.tenant).subscriptions.create(cast.channels[0], cast.agents[1])
    reader = await connect(env.platform.gateway_url, cast.tenant, await env.token(cast, 1), Reader)
    assert isinstance(reader, Reader)
    line = await connect(env.platform.gateway_url, cast.tenant, await env.token(cast))
    for _ in range(ROUNDS):
        reader.expect(1)
        publisher = Publisher(line, cast.channels[0], DATA)
        begun = time.perf_counter()
        await publisher.run(FULL, partial(_is_within, begun))
        capacity = len(publisher.latencies_s) / (time.perf_counter() - begun)
        await asyncio.sleep(SETTLE_S)
        rate = capacity / 10
        count = int(rate * RATED_S)
        reader.expect(count)
        due = await _at_rate(Sender(line), cast.channels[0], rate, count)
        await _all_done([reader])
        await asyncio.sleep(SETTLE_S)  # the last answers, which the next round must not get
        sample = Sample(count, RATED_S, [at - begun for at, begun in zip(reader.arrived, due, strict=True)])
        table.rows.append((f"{rate:,.0f}", f"{capacity:,.0f}", _p50_p99(sample)))
    line.close()
    reader.close()
    return table


def _is_within(begun: float) -> bool:
    return time.perf_counter() - begun < RATED_S


async def _at_rate(sender: Sender, channel: str, rate: float, count: int) -> list[float]:
    """Publish at a rate, and return when each message was due."""
    begun = time.perf_counter() + 0.01
    due = [begun + number / rate for number in range(count)]
    for at in due:
        if (wait_s := at - time.perf_counter()) > 0:
            await asyncio.sleep(wait_s)
        sender.send(channel)
    return due


# --- common -------------------------------------------------------------------------------------------------------------------


async def _each(items: Iterable[T], work: Callable[[T], Awaitable[object]], together: int) -> None:
    """Do the work for each item, with so many under way."""
    rest = iter(items)

    async def worker() -> None:
        for item in rest:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(together):
            group.create_task(worker())


async def _keep_alive() -> None:
    """Keep the readers' connections alive until cancelled: while they count messages they answer no pings."""
    while True:
        await asyncio.sleep(ALIVE_S)
        for each in _connected:
            if each.is_counting:
                each.transport.write(_PONG)


async def _all_done(readers: Sequence[Reader]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        for each in readers:
            await each.done.wait()
            if not each.done_at:
                raise ConnectionError("the server closed a reader's socket")


def _server_of(env: BenchEnv) -> int:
    assert env.platform.process is not None
    return env.platform.process.pid


def _p50_p99(sample: Sample) -> str:
    return f"{sample.quantile_ms(0.5):,.1f} / {sample.quantile_ms(0.99):,.1f}"


def _divided(number: int, options: Options) -> int:
    """Return a size of the whole bench, or of a smaller trial of it."""
    return max(1, number // options.divide)


PARTS: Final[Mapping[str, Part]] = {
    "agents": _many_agents,
    "subscribers": _subscribers,
    "tenants": _many_tenants,
    "capacity": _tenth_of_capacity,
}
