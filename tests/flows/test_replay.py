"""One challenge allows one attempt, even if several processes send the same proof at the same moment, to two servers."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from artcafe.sdk.keys import load_signer
from tests.fleet import Fleet, running_fleet
from tests.platform import Cast

CHALLENGES = 100
PROCESSES = 4
BOUND_S = 30.0
"""For one start of four Python processes, and for one answer, on a machine that is busy with other tests."""


@asynccontextmanager
async def redeeming_processes(fleet: Fleet) -> AsyncIterator[list[Process]]:
    """Return processes that are connected alternately to the two servers."""
    script = str(Path(__file__).with_name("redeem_proofs.py"))
    urls = [fleet.servers[number % 2].url for number in range(PROCESSES)]
    running = [await asyncio.create_subprocess_exec(sys.executable, script, url, stdin=PIPE, stdout=PIPE) for url in urls]
    try:
        for process in running:
            assert await next_line(process) == "ready"
        yield running
    finally:
        for process in running:
            process.kill()
            await process.wait()


async def next_line(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(BOUND_S):
        return (await process.stdout.readline()).decode().strip()


async def proof(http: httpx2.AsyncClient, url: str, cast: Cast) -> bytes:
    """Return a new challenge, signed, as the body that redeems it."""
    claim = {"tenant_id": cast.tenant, "agent_id": cast.agents[0]}
    challenge = (await http.post(f"{url}/v1/auth/challenges", json=claim)).json()
    signature = await load_signer(cast.keys[0]).sign(challenge["challenge"])
    return json.dumps({"challenge_id": challenge["challenge_id"], "signature": signature}).encode() + b"\n"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("engine", ["sqlite", "dynamodb"])
async def test_of_four_processes_with_the_same_proof_at_two_servers_one_is_admitted(
    request: pytest.FixtureRequest, tmp_path: Path, engine: str
) -> None:
    aws = request.getfixturevalue("aws") if engine == "dynamodb" else None
    with running_fleet(tmp_path, aws=aws) as fleet:
        cast = await fleet.tenant_with(channels=0)
        answers: Counter[tuple[str, ...]] = Counter()
        winners: Counter[int] = Counter()
        async with redeeming_processes(fleet) as processes, httpx2.AsyncClient(trust_env=False) as http:
            for number in range(CHALLENGES):
                line = await proof(http, fleet.servers[number % 2].url, cast)
                for process in processes:
                    assert process.stdin is not None
                    process.stdin.write(line)
                statuses = [await next_line(process) for process in processes]
                answers[tuple(sorted(statuses))] += 1
                winners.update([statuses.index("200")] if "200" in statuses else [])
        assert answers == {("200", "401", "401", "401"): CHALLENGES}
        assert len(winners) > 1, "they really raced"
