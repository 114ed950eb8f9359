"""Logins a second, and the duration of a login while 500 sockets connect at once.

A login over REST is a challenge and a token, on one kept connection; a login on a socket is the upgrade, a challenge and
`connect`. Every proof is a real signature, made by this process, which shares the machine's cores with the server: the second
table has the processor time of both.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from artcafe.sdk.keys import Signer, load_signer
from artcafe.wire import frames, replies
from bench.bench_env import BenchEnv, bench_env
from bench.raw_client import RawSocket
from bench.report import Options, Sample, Table, cpu_seconds, median_latency, median_rate
from tests.platform import Cast

AGENTS: Final = 20
AT_ONCE: Final = (1, 16)
STORM: Final = 500
BESIDE: Final = "REST, while the storm lasts"

Login = Callable[[], Awaitable[object]]


class Http:
    """One persistent HTTP/1.1 connection that posts JSON with little work for this process."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader, self._writer, self._host = reader, writer, host

    @classmethod
    async def open(cls, url: str) -> Http:
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port), parts.netloc)

    async def post(self, path: str, **body: object) -> dict[str, Any]:
        """Return the answer's object. Raise `RuntimeError` for a refusal."""
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
        self._writer.write(head.encode() + b"\r\n\r\n" + content)
        head_of_answer = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = int(head_of_answer.partition("content-length: ")[2].partition("\r\n")[0])
        body_of_answer: dict[str, Any] = json.loads(await self._reader.readexactly(size))
        if head_of_answer[9] != "2":
            raise RuntimeError(body_of_answer)
        return body_of_answer

    def close(self) -> None:
        self._writer.close()


class Crowd:
    """Agents of one tenant, in turns."""

    def __init__(self, env: BenchEnv, cast: Cast) -> None:
        self._env, self._cast = env, cast
        self._signers: list[Signer] = [load_signer(key) for key in cast.keys]
        self._turn = 0
        self.lines: list[RawSocket] = []

    def _next(self) -> tuple[str, Signer]:
        self._turn = (self._turn + 1) % AGENTS
        return self._cast.agents[self._turn], self._signers[self._turn]

    async def over_rest(self, http: Http) -> None:
        agent, signer = self._next()
        posed = await http.post("/v1/auth/challenges", tenant_id=self._cast.tenant, agent_id=agent)
        signature = await signer.sign(posed["challenge"])
        await http.post("/v1/auth/tokens", challenge_id=posed["challenge_id"], signature=signature)

    async def on_a_socket(self) -> None:
        """Log in, and keep the socket open in `lines`."""
        agent, signer = self._next()
        parts = urlsplit(self._env.platform.gateway_url)
        _, line = await asyncio.get_running_loop().create_connection(RawSocket, parts.hostname or "", parts.port or 0)
        self.lines.append(line)
        await line.upgrade(parts.path, parts.netloc)
        posed = replies.parse_incoming(await line.ask(frames.command("challenge", frames.Challenge(self._cast.tenant, agent), 0)))
        assert posed.challenge is not None
        signature = await signer.sign(posed.challenge.challenge)
        proof = frames.Connect(challenge_id=posed.challenge.challenge_id, signature=signature)
        await line.ask(frames.command("connect", proof, 1))

    def leave(self) -> None:
        """Close every socket."""
        while self.lines:
            self.lines.pop().close()


async def run(options: Options) -> list[Table]:
    """Return the tables of this bench."""
    async with bench_env(options) as env:
        crowd = Crowd(env, await env.platform.tenant_with(agents=AGENTS, channels=0))
        return [await _rates(env, crowd, options), await _storm(env, crowd, options)]


async def _rates(env: BenchEnv, crowd: Crowd, options: Options) -> Table:
    table = Table(
        "Logins a second",
        ["", *(f"{count} at once" for count in AT_ONCE), *(f"p50 / p99 ms, {count} at once" for count in AT_ONCE)],
        [f"Medians (lowest–highest) of {options.rounds} rounds, in turns; {AGENTS} agents with Ed25519 keys."],
    )
    samples: dict[tuple[str, int], list[Sample]] = {}
    https = [await Http.open(env.platform.url) for _ in range(max(AT_ONCE))]
    for _ in range(options.rounds):
        for count in AT_ONCE:
            rest: list[Login] = [partial(crowd.over_rest, http) for http in https[:count]]
            samples.setdefault(("over REST", count), []).append(await sample(rest, options.seconds))
            samples.setdefault(("on a socket", count), []).append(await sample([crowd.on_a_socket] * count, options.seconds))
            crowd.leave()
    for http in https:
        http.close()
    for way in ("over REST", "on a socket"):
        found = [samples[way, count] for count in AT_ONCE]
        table.rows.append([way, *map(median_rate, found), *map(median_latency, found)])
    return table


async def sample(logins: list[Login], seconds: float) -> Sample:
    """Log each agent in repeatedly for this long."""
    latencies: list[float] = []
    began = time.perf_counter()

    async def again(login: Login) -> None:
        while (start := time.perf_counter()) < began + seconds:
            await login()
            latencies.append(time.perf_counter() - start)

    async with asyncio.TaskGroup() as group:
        for login in logins:
            group.create_task(again(login))
    return Sample(len(latencies), time.perf_counter() - began, latencies)


async def _storm(env: BenchEnv, crowd: Crowd, options: Options) -> Table:
    table = Table(
        f"{STORM} sockets at once",
        ["login", "p50 / p99 ms", "all in, s", "processor time of the server, ms a login", "of this process"],
        [
            f"Medians of {options.rounds} storms. The time of one of them is from its first packet to the answer of `connect`.",
            "Beside each storm one agent logs in over REST, again and again, on a connection that was there before.",
        ],
    )
    storms: list[Sample] = []
    beside: list[Sample] = []
    server = mine = 0.0
    http = await Http.open(env.platform.url)
    assert env.platform.process is not None
    for _ in range(options.rounds):
        before = cpu_seconds(env.platform.process.pid), cpu_seconds(os.getpid())
        storm, one = await _one_storm(crowd, http)
        server += cpu_seconds(env.platform.process.pid) - before[0]
        mine += cpu_seconds(os.getpid()) - before[1]
        storms.append(storm)
        beside.append(one)
        crowd.leave()
    http.close()
    logins = sum(sample.count for sample in (*storms, *beside))
    seconds = sorted(sample.seconds for sample in storms)[len(storms) // 2]
    table.rows.append(
        ["on a socket", median_latency(storms), f"{seconds:.2f}", f"{1000 * server / logins:.2f}", f"{1000 * mine / logins:.2f}"]
    )
    table.rows.append([BESIDE, median_latency(beside), "", "", ""])
    return table


async def _one_storm(crowd: Crowd, http: Http) -> tuple[Sample, Sample]:
    """Run the storm, and the logins over REST during it."""
    stormed: list[float] = []
    beside: list[float] = []
    began = time.perf_counter()

    async def one() -> None:
        await crowd.on_a_socket()
        stormed.append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as group:
        for _ in range(STORM):
            group.create_task(one())
        while len(stormed) < STORM:
            start = time.perf_counter()
            await crowd.over_rest(http)
            beside.append(time.perf_counter() - start)
    took = time.perf_counter() - began
    return Sample(STORM, took, stormed), Sample(len(beside), took, beside)
