"""A backlog pulled over REST, 200 messages a call: each page is acknowledged before the next one is requested.

One agent pulls on one kept connection, so two calls a page follow each other: the pull, and the ack, which is answered when the
cursor is written. Messages have 200 bytes of data. The client parses each page as JSON, and shares the machine's cores with the
server. A queue's messages are acknowledged one by one, in one call with a receipt for each.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from bench.bench_env import BenchEnv, bench_env
from bench.deliver import publish_all
from bench.publish import DATA
from bench.raw_client import Publisher
from bench.report import Options, Sample, Table, cpu_seconds, median_latency, median_rate
from tests.platform import Cast

BACKLOG: Final = 5_000
LIMIT: Final = 200
GOAL: Final = 5_000
"""Messages a second that a pull of a broadcast backlog must reach."""


async def run(options: Options) -> list[Table]:
    """Return the table."""
    taken: dict[str, list[Sample]] = defaultdict(list)
    cpu_s: dict[str, float] = defaultdict(float)
    async with bench_env(options) as env:
        cast = await env.platform.tenant_with(agents=2, channels=0)
        line = await env.line(cast, await env.token(cast, 0))
        client = await _Client.open(env, cast, await env.token(cast, 1))
        for kind in ("broadcast", "queue"):
            async with cast.rest() as rest:
                channel = (await rest.tenant(cast.tenant).channels.create(f"{kind} backlog", type=kind)).id
                await rest.tenant(cast.tenant).subscriptions.create(channel, cast.agents[1])
            for number in range(options.rounds + 1):
                await publish_all(Publisher(line, channel, DATA), BACKLOG)
                before = sum(map(cpu_seconds, env.server_pids()))
                sample = await _pull_all(client, channel, is_queue=kind == "queue")
                if number:
                    taken[kind].append(sample)
                    cpu_s[kind] += sum(map(cpu_seconds, env.server_pids())) - before
        client.close()
    table = Table(
        f"A backlog of {BACKLOG:,} messages pulled over REST, {LIMIT} a call, each page acknowledged",
        ["channel", "messages/s", "a page and its ack: p50 / p99", "messages per second of the server's processor time"],
        [f"Medians (lowest–highest) of {options.rounds} rounds. The goal for broadcast is {GOAL:,} messages a second."],
    )
    for kind, samples in taken.items():
        by_processor = sum(sample.count for sample in samples) / cpu_s[kind]
        table.rows.append([kind, median_rate(samples), f"{median_latency(samples)} ms", f"{by_processor:,.0f}"])
    return [table]


async def _pull_all(client: _Client, channel: str, *, is_queue: bool) -> Sample:
    """Pull and acknowledge until nothing is left."""
    count, latencies, began = 0, [], time.monotonic()
    while count < BACKLOG:
        at = time.monotonic()
        page = await client.call("GET", f"/inbox?limit={LIMIT}&channel={channel}")
        items = page["items"]
        shown = items if is_queue else items[-1:]
        acks = [{name: item[name] for name in ("channel", "seq", "receipt") if name in item} for item in shown]
        answer = await client.call("POST", "/acks", {"acks": acks, "epoch": page["epoch"]})
        if any(each["error"] for each in answer["acks"]):
            raise RuntimeError(answer)
        count += len(items)
        latencies.append(time.monotonic() - at)
    return Sample(count, time.monotonic() - began, latencies)


class _Client:
    """One kept HTTP/1.1 connection of an agent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, path: str, token: str) -> None:
        self._reader, self._writer, self._path = reader, writer, path
        self._head = f"Host: {host}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json"

    @classmethod
    async def open(cls, env: BenchEnv, cast: Cast, token: str) -> _Client:
        """Connect the tenant's second agent."""
        parts = urlsplit(env.platform.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 22)
        return cls(reader, writer, parts.netloc, f"/v1/tenants/{cast.tenant}/agents/{cast.agents[1]}", token)

    async def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Return the answer's object. Raise `RuntimeError` for a refusal."""
        content = b"" if body is None else msgspec.json.encode(body)
        head = f"{method} {self._path}{path} HTTP/1.1\r\n{self._head}\r\nContent-Length: {len(content)}\r\n\r\n"
        self._writer.write(head.encode() + content)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = int(answer.partition("content-length: ")[2].partition("\r\n")[0])
        found: dict[str, Any] = msgspec.json.decode(await self._reader.readexactly(size))
        if answer[9] != "2":
            raise RuntimeError(found)
        return found

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()
