"""Memory of an idle agent: the server's resident memory as 5,000 agents connect, with one socket each.

Each agent has a key, a login over REST and one subscription to the silent channel of its tenant of 100 agents. All agents are
created and logged in before the first measurement. Then they connect in steps of 1,000. Each step is one sample, including the
memory of its tenants.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import statistics
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from artcafe.sdk.client import Client
from artcafe.sdk.keys import load_signer
from bench import report
from bench.bench_env import bench_env
from bench.fanout import sockets
from bench.fanout.load import LoadGenerator
from bench.fanout.servers import ArtCafe
from bench.report import Options, Table
from tests.platform import Cast

STEPS: Final = 5
STEP: Final = 1000
TENANT: Final = 100
"""Agents of one tenant, the limit of its plan."""
TOGETHER: Final = 16
"""Agents created concurrently."""
SETTLE_S: Final = 2.0
"""Wait after the last connect: subscriptions begin after its reply."""


async def run(options: Options) -> list[Table]:
    """Return a table of the bytes per agent."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(LoadGenerator())  # raises the limit of open files
        env = await stack.enter_async_context(bench_env(options))
        waiting: list[tuple[ArtCafe, str]] = []
        for _ in range(STEPS * STEP // TENANT + 1):
            cast = await env.platform.tenant_with(agents=0, channels=1)
            server = ArtCafe(env, cast)
            waiting += [(server, token) for token in await _agents(cast, env.platform.folder)]
        connected = [_next(waiting)]
        assert env.platform.process is not None
        pid = env.platform.process.pid
        sizes = [report.resident_bytes(pid)]
        for _ in range(STEPS):
            connected += [_next(waiting) for _ in range(STEP)]
            await asyncio.sleep(SETTLE_S)
            for each in connected:
                each.send(sockets.PONG)
            sizes.append(report.resident_bytes(pid))
        for each in connected:
            each.close()
    steps = [(after - before) / STEP for before, after in itertools.pairwise(sizes)]
    table = Table(
        f"{STEPS * STEP:,} idle agents",
        ["", "bytes an agent"],
        [f"The server's resident memory was {sizes[0] / 2**20:.0f} MiB with one agent and {sizes[-1] / 2**20:.0f} MiB with all."],
    )
    spread = f"{statistics.median(steps):,.0f} ({min(steps):,.0f}–{max(steps):,.0f})"
    table.rows.append((f"median of {STEPS} thousands (lowest–highest)", spread))
    table.rows.append(("all together", f"{(sizes[-1] - sizes[0]) / STEPS / STEP:,.0f}"))
    return [table]


def _next(waiting: list[tuple[ArtCafe, str]]) -> socket.socket:
    server, token = waiting.pop()
    return server.connect(token)


async def _agents(cast: Cast, folder: Path) -> list[str]:
    """Create agents, and return a token of each."""
    tokens: list[str] = []
    numbers = itertools.count()

    async def make(rest: Client, login: Client) -> None:
        while (number := next(numbers)) < TENANT:
            key, file = Ed25519PrivateKey.generate(), folder / f"{cast.tenant}-{number}"
            file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
            file.chmod(0o600)
            public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
            agent = (await rest.tenant(cast.tenant).agents.create(f"idle {number}", public)).id
            await rest.tenant(cast.tenant).subscriptions.create(cast.channels[0], agent)
            tokens.append((await login.login(cast.tenant, agent, load_signer(file))).access_token)

    async with cast.rest() as rest, Client(cast.url, None) as login, asyncio.TaskGroup() as group:
        for _ in range(TOGETHER):
            group.create_task(make(rest, login))
    return tokens
