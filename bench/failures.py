"""Whether the time of a failed login reveals that an agent exists: an unknown agent against a wrong signature, in turns.

Only the answer to the signature is timed. The last column is how often the slower of two such times, one of each kind, is that of
the row's kind: 50% reveals nothing, and 100% everything.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Final

from artcafe.sdk.keys import Signer, load_signer
from bench.bench_env import BenchEnv, bench_env
from bench.login import Http
from bench.report import Options, Table
from tests import ssh_keygen

EACH_ROUND: Final = 60
NOBODY: Final = "0" * 26
KNOWN: Final = "an agent, by another key"


async def run(options: Options) -> list[Table]:
    """Return the table of this bench."""
    async with bench_env(options) as env:
        cast = await env.platform.tenant_with(agents=1, channels=0)
        stranger = load_signer(ssh_keygen.make_key(Path(env.platform.folder) / "stranger"))
        claims = {
            KNOWN: (cast.tenant, cast.agents[0]),
            "the same, repeated": (cast.tenant, cast.agents[0]),
            "no such agent": (cast.tenant, f"agt_{NOBODY}"),
            "no such tenant": (f"ten_{NOBODY}", cast.agents[0]),
        }
        return [await _table(env, stranger, claims, options)]


async def _table(env: BenchEnv, stranger: Signer, claims: dict[str, tuple[str, str]], options: Options) -> Table:
    times: dict[str, list[float]] = {name: [] for name in claims}
    http = await Http.open(env.platform.url)
    for _ in range(options.rounds * EACH_ROUND):
        for name, (tenant, agent) in claims.items():
            times[name].append(await _failed(http, stranger, tenant, agent))
    http.close()
    table = Table(
        "Time of a failed login",
        ["the challenge was for", "p50 ms", "p25–p75 ms", "slower"],
        [
            f"{options.rounds * EACH_ROUND} of each, in turns, over REST."
            " The second row repeats the first: the difference between them is chance."
        ],
    )
    for name, found in times.items():
        low, middle, high = statistics.quantiles(found, n=4)
        share = _slower_share(found, times[KNOWN])
        table.rows.append([name, f"{1000 * middle:.3f}", f"{1000 * low:.3f}–{1000 * high:.3f}", f"{100 * share:.0f}%"])
    return table


async def _failed(http: Http, stranger: Signer, tenant: str, agent: str) -> float:
    posed = await http.post("/v1/auth/challenges", tenant_id=tenant, agent_id=agent)
    signature = await stranger.sign(posed["challenge"])
    start = time.perf_counter()
    try:
        await http.post("/v1/auth/tokens", challenge_id=posed["challenge_id"], signature=signature)
    except RuntimeError:
        return time.perf_counter() - start
    raise AssertionError("a stranger was let in")


def _slower_share(found: list[float], known: list[float]) -> float:
    """Return the probability that one of the first is the slower (the Mann-Whitney statistic over all pairs)."""
    pairs = [(one > other) + (one == other) / 2 for one in found for other in known]
    return sum(pairs) / len(pairs)
