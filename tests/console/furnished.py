"""A tenant with something to see on each screen: channels of each type, a conversation, dead letters, a stopped chain, an agent
that is behind, a refused login, and hostile names and payloads."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from artcafe.errors import ArtcafeError, LoopStopped
from artcafe.sdk.agent import Agent
from artcafe.sdk.client import Client
from artcafe.sdk.tenant_client import TenantClient
from tests import ssh_keygen

MARKUP: Final = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
RIGHT_TO_LEFT: Final = "שלוםعال" * 9 + "ם"
"""64 characters that are written from right to left."""
AGENTS: Final = ("planner", "researcher", "critic", "worker")
BEHIND: Final = 40
"""Messages in `news` above the cursor of `critic`."""
LETTERS: Final = 3


@dataclass(frozen=True)
class Furnished:
    """What the tests look for."""

    tenant: str
    token: str
    question: str
    """The id of the first message of the conversation in `work-log`."""
    stopped: str
    """The id of the chain that the loop guard has stopped."""


async def furnish(url: str, token: str, folder: Path, *, name: str = "Acme") -> Furnished:
    """Create the tenant. `folder` gets the agents' keys."""
    async with Client(url, token) as rest:
        tenant = (await rest.create_tenant(name)).id
        scope = rest.tenant(tenant)
        for agent in AGENTS:
            key = ssh_keygen.make_key(folder / agent)
            await scope.agents.create(agent, ssh_keygen.public_line(key), capabilities=["text"])
        await _add_channels(scope)
        question = await _converse(scope)
        await _publish_news(scope)
        await _leave_letters(scope, Agent(url, tenant=tenant, agent="worker", key=folder / "worker"))
        stopped = await _loop(scope)
        with contextlib.suppress(ArtcafeError):
            await rest.login(tenant, "planner", folder / "critic")
        return Furnished(tenant, token, question, stopped)


async def _add_channels(scope: TenantClient) -> None:
    await scope.channels.create("News", handle="news", description="What happens.", access="managed")
    await scope.channels.create("Work log", handle="work-log")
    await scope.channels.create("Results", handle="results")
    await scope.channels.create("Jobs", handle="jobs", type="queue", max_deliveries=1, back_off=[1, 10])
    await scope.channels.create("Prices", handle="prices", type="live")
    await scope.channels.create(MARKUP[:64], handle="markup", description=MARKUP)
    await scope.channels.create(RIGHT_TO_LEFT, handle="right-to-left")
    for channel, agent in (("news", "planner"), ("news", "critic"), ("work-log", "researcher"), ("results", "planner")):
        await scope.subscriptions.create(channel, agent)


async def _converse(scope: TenantClient) -> str:
    """Publish a question, two answers in another channel, and a criticism of one of them."""
    question = await scope.messages.publish("work-log", {"question": "How tall is the Eiffel Tower?"}, reply_to="results")
    for answer in ("330 metres, antennas included.", "About 300 metres."):
        answered = await scope.messages.publish("results", {"answer": answer}, caused_by=question.message_id)
    await scope.messages.publish("work-log", {"criticism": "Which is it?"}, caused_by=answered.message_id)
    assert question.message_id is not None
    return question.message_id


async def _publish_news(scope: TenantClient) -> None:
    for number in range(BEHIND):
        await scope.messages.publish("news", {"n": number, "tags": ["a", "b"], "text": "Nothing new."}, headers={"edition": "1"})
    await scope.messages.publish("markup", {"html": MARKUP, MARKUP: [MARKUP, None, True, 1.5]}, headers={"x-markup": MARKUP})
    await scope.messages.publish("right-to-left", RIGHT_TO_LEFT)


async def _leave_letters(scope: TenantClient, worker: Agent) -> None:
    """Let the worker reject jobs, and move the planner's cursor to the end of the news."""
    for number in range(LETTERS):
        await scope.messages.publish("jobs", {"job": number})
    async with worker, asyncio.timeout(60):
        taken = 0
        async for message in worker.messages("jobs"):
            await message.nak(dead=True)
            taken += 1
            if taken == LETTERS:
                break
    await scope.subscriptions.update("news", "planner", cursor="last")
    await scope.subscriptions.update("news", "critic", cursor="first")


async def _loop(scope: TenantClient) -> str:
    """Answer answers until the loop guard stops the chain."""
    limits = await scope.limits()
    hops = next(each.limit for each in limits.items if each.name == "hops") or 0
    first = cause = (await scope.messages.publish("work-log", {"ping": 0})).message_id
    with contextlib.suppress(LoopStopped):
        for number in range(1, hops + 2):
            cause = (await scope.messages.publish("work-log", {"ping": number}, caused_by=cause)).message_id
    assert first is not None
    return first
