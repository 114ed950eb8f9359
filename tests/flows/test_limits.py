"""The limits of a plan on two servers: 50 requests at once meet exactly the limit, and a change takes effect on both.

`pytest -s` prints the table of the races.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import click
import httpx2
import pytest
from click.testing import CliRunner

from artcafe.cli.commands import artcafe
from artcafe.data_dir import read_secret
from artcafe.errors import LimitReached
from artcafe.identity.local import LocalIdentity
from artcafe.observe.clock import now
from artcafe.rules.plans import Limit
from artcafe.rules.secrets import derive
from tests.fleet import Fleet, running_fleet
from tests.plain_http import NO_AUTHORITIES
from tests.services.service_env import new_key

AT_ONCE = 50
SOON_S = 20.0
"""Within this time a change takes effect on every server."""
LIMITS = dict.fromkeys(Limit, 1000000) | {
    Limit.AGENTS: 12,
    Limit.CHANNELS: 55,
    Limit.MEMBERS: 7,
    Limit.AGENT_SUBSCRIPTIONS: 10,
    Limit.AGENT_CONNECTIONS: 100,
    Limit.MESSAGE_BYTES: 1000,
    Limit.STORAGE_BYTES: 60_000,
    Limit.RETENTION_S: 3600,
}


def plan(name: str, limits: dict[Limit, int], *, self_serve: bool = True) -> str:
    numbers = "\n".join(f"{limit} = {number}" for limit, number in limits.items())
    return f"[plans.{name}]\nself_serve = {str(self_serve).lower()}\n[plans.{name}.limits]\n{numbers}\n"


CATALOGUE = (
    'default = "small"\n'
    + plan("small", LIMITS)
    + plan("tiny", {**LIMITS, Limit.AGENTS: 1, Limit.MESSAGE_BYTES: 100, Limit.STORAGE_BYTES: 1000})
    + plan("large", {**LIMITS, Limit.AGENTS: 100}, self_serve=False)
)


@pytest.fixture(scope="module", params=["sqlite", "dynamodb"])
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    aws = request.getfixturevalue("aws") if request.param == "dynamodb" else None
    folder = tmp_path_factory.mktemp("limits")
    file = folder / "plans.toml"
    file.write_text(CATALOGUE)
    with running_fleet(folder, aws=aws, flags=["--plans-file", str(file)]) as fleet:
        yield fleet


class Organisation:
    """A tenant, and its owner's clients of both servers."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self._identity = LocalIdentity(derive(read_secret(fleet.secret), "local-identity"))
        self._urls = [server.url for server in fleet.servers]
        self.name, self.path = name, ""
        self._opened: list[httpx2.AsyncClient] = []
        self.clients = self.of(f"owner-of-{name}@example.com")

    def of(self, user: str) -> list[httpx2.AsyncClient]:
        """Return a person's clients, one for each server."""
        headers = {"Authorization": f"Bearer {self._identity.issue(user, now())}"}
        opened = [
            httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False, verify=NO_AUTHORITIES, timeout=60)
            for url in self._urls
        ]
        self._opened += opened
        return opened

    async def close(self) -> None:
        for client in self._opened:
            await client.aclose()

    async def create(self) -> None:
        made = await self.clients[0].post("/v1/tenants", json={"name": self.name})
        self.id = made.json()["id"]
        self.path = f"/v1/tenants/{self.id}"

    async def made(self, what: str, **body: Any) -> str:
        """Create something, and return its id."""
        made = await self.clients[0].post(f"{self.path}/{what}", json=body)
        assert made.status_code == 201, made.text
        return str(made.json()["id"])

    async def used(self, limit: Limit) -> int | None:
        answer = await self.clients[1].get(f"{self.path}/limits")
        found = {each["name"]: each for each in answer.json()["items"]}
        return None if found[limit]["used"] is None else int(found[limit]["used"])

    async def race(self, request: Callable[[int, httpx2.AsyncClient], Any]) -> tuple[int, int]:
        """Send 50 requests at once, in turns to both servers. Return how many were done, and refused by the limit."""

        async def one(number: int) -> httpx2.Response:
            answer: httpx2.Response = await request(number, self.clients[number % len(self.clients)])
            return answer

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number)) for number in range(AT_ONCE)]
        answers = [task.result() for task in tasks]
        kinds = Counter((answer.status_code, answer.json().get("code")) for answer in answers)
        refused = sum(number for (status, _), number in kinds.items() if status == 402)
        assert all(status in (200, 201) for status, _ in kinds if status != 402), kinds
        return AT_ONCE - refused, refused


@pytest.fixture
async def tenant(fleet: Fleet, request: pytest.FixtureRequest) -> AsyncIterator[Organisation]:
    organisation = Organisation(fleet, request.node.originalname[:40].replace("_", "-"))
    await organisation.create()
    yield organisation
    await organisation.close()


def show(what: str, result: tuple[int, int]) -> None:
    click.echo(f"{what:<22}{LIMITS[Limit(what)]:>10,}{AT_ONCE:>10}{result[0]:>8}{result[1]:>10}")


async def test_fifty_at_once_on_two_servers_get_exactly_the_limit(tenant: Organisation) -> None:
    click.echo(f"\n{'limit':<22}{'number':>10}{'at once':>10}{'done':>8}{'refused':>10}")

    keys = [new_key() for _ in range(AT_ONCE)]
    agents = await tenant.race(lambda n, at: at.post(f"{tenant.path}/agents", json={"name": f"a{n}", "public_key": keys[n]}))
    show("agents", agents)
    assert (agents, await tenant.used(Limit.AGENTS)) == ((12, 38), 12)

    names = [f"c{number}" for number in range(45)]
    channels = [await tenant.made("channels", name=name) for name in names]
    result = await tenant.race(lambda n, at: at.post(f"{tenant.path}/channels", json={"name": f"new {n}"}))
    show("channels", result)
    assert (result, await tenant.used(Limit.CHANNELS)) == ((10, 40), 55)

    listed = await tenant.clients[0].get(f"{tenant.path}/channels", params={"limit": 200})
    channels = [each["id"] for each in listed.json()["items"]][:AT_ONCE]
    found = await tenant.clients[0].get(f"{tenant.path}/agents")
    agent = found.json()["items"][0]["id"]
    result = await tenant.race(lambda n, at: at.put(f"{tenant.path}/channels/{channels[n]}/subscriptions/{agent}"))
    show("agent_subscriptions", result)
    own = await tenant.clients[1].get(f"{tenant.path}/agents/{agent}/subscriptions")
    assert (result, len(own.json()["items"])) == ((10, 40), 10)

    people = [f"m{number}@{tenant.name}.example.com" for number in range(AT_ONCE)]
    tokens = []
    for person in people:
        invited = await tenant.clients[0].post(f"{tenant.path}/members", json={"address": person, "role": "member"})
        tokens.append(invited.json()["token"])
    clients = [tenant.of(person)[number % 2] for number, person in enumerate(people)]
    result = await tenant.race(lambda n, _: clients[n].post("/v1/invitations/acceptances", json={"token": tokens[n]}))
    show("members", result)
    assert (result, await tenant.used(Limit.MEMBERS)) == ((6, 44), 7), "the owner is the first"

    quota = await tenant.clients[0].get(f"{tenant.path}/limits")
    assert {each["name"]: each["limit"] for each in quota.json()["items"]} == {limit.value: LIMITS[limit] for limit in Limit}
    result = await tenant.race(
        lambda n, at: at.patch(f"{tenant.path}/channels/{channels[n // 2]}", json={"retention_s": 3600 + (n // 2) % 2})
    )
    show("retention_s", result)
    assert result == (26, 24)

    messages, text = f"{tenant.path}/channels/{channels[0]}/messages", "x" * 998  # 1,000 bytes with its quotes
    result = await tenant.race(lambda n, at: at.post(messages, json={"data": text + "x" * ((n // 2) % 2)}))
    show("message_bytes", result)
    assert result == (26, 24)

    result = await tenant.race(lambda _, at: at.post(messages, json={"data": text}))
    show("storage_bytes", result)
    used = await tenant.used(Limit.STORAGE_BYTES)
    assert used is not None
    assert LIMITS[Limit.STORAGE_BYTES] - 1200 < used <= LIMITS[Limit.STORAGE_BYTES]


async def test_sdk_raises_the_limit_with_its_number_and_use(fleet: Fleet) -> None:
    cast = await fleet.tenant_with(agents=1, channels=1)
    async with cast.rest() as rest:
        for number in range(11):
            await rest.tenant(cast.tenant).agents.create(f"a{number}", new_key())
        with pytest.raises(LimitReached) as refused:
            await rest.tenant(cast.tenant).agents.create("one more", new_key())
        assert (refused.value.limit, refused.value.most, refused.value.used) == ("agents", 12, 12)
        shown = await rest.tenant(cast.tenant).limits()
        assert (shown.plan, len(shown.items)) == ("small", len(Limit))
        assert [(each.limit, each.used, each.left) for each in shown.items if each.name == "agents"] == [(12, 12, 0)]
        assert (await rest.tenant(cast.tenant).update(plan="tiny")).plan == "tiny"
        await rest.tenant(cast.tenant).update(plan="small")
    async with cast.agent() as agent:
        with pytest.raises(LimitReached) as too_large:
            await agent.publish(cast.channels[0], "x" * 999)
        assert (too_large.value.limit, too_large.value.most, too_large.value.used) == ("message_bytes", 1000, 1001)
        assert (await agent.publish(cast.channels[0], "x" * 998)).seq is not None


async def soon(condition: Callable[[], Any]) -> None:
    """Wait until the condition holds, for at most the time in which a change takes effect."""
    async with asyncio.timeout(SOON_S):
        while not await condition():  # noqa: ASYNC110 (another process has no event)
            await asyncio.sleep(0.1)


async def test_other_plan_takes_effect_on_both_servers_and_removes_nothing(tenant: Organisation) -> None:
    here, there = tenant.clients
    channel = await tenant.made("channels", name="news")
    for number in range(3):
        await tenant.made("agents", name=f"a{number}", public_key=new_key())
    messages = f"{tenant.path}/channels/{channel}/messages"
    for at in tenant.clients:
        assert (await at.post(messages, json={"data": "x" * 500})).status_code == 201

    assert (await here.patch(tenant.path, json={"plan": "tiny"})).json()["plan"] == "tiny"
    for at in tenant.clients:

        async def is_refused(at: httpx2.AsyncClient = at) -> bool:
            answer = await at.post(messages, json={"data": "x" * 500})
            return answer.status_code == 402 and answer.json()["limit"]["name"] == "message_bytes"

        await soon(is_refused)

    async def is_full() -> bool:
        answer = await there.post(messages, json={"data": "x"})
        return bool(answer.status_code == 402 and answer.json()["code"] == "quota_full")

    await soon(is_full)
    refused = (await there.post(f"{tenant.path}/agents", json={"name": "more", "public_key": new_key()})).json()
    assert refused["limit"] == {"name": "agents", "limit": 1, "used": 3, "left": 0, "resets_at": None}
    assert len((await there.get(f"{tenant.path}/agents")).json()["items"]) == 3
    assert len((await there.get(messages)).json()["items"]) >= 2

    for wrong, status in (("large", 403), ("none", 422)):
        assert (await there.patch(tenant.path, json={"plan": wrong})).status_code == status
    assert (await there.patch(tenant.path, json={"plan": "small"})).json()["plan"] == "small"
    await soon(lambda: _is_stored(here, messages))
    audit = await here.get(f"{tenant.path}/audit", params={"action": "tenant.change"})
    done = [each["facts"]["plan"] for each in audit.json()["items"] if each["outcome"] == "done"]
    assert done == ["small", "tiny"], "newest first"


async def _is_stored(at: httpx2.AsyncClient, messages: str) -> bool:
    return (await at.post(messages, json={"data": "x" * 500})).status_code == 201


async def test_operator_gives_any_plan_and_own_limits(fleet: Fleet, tenant: Organisation) -> None:
    def operate(*words: str) -> str:
        member = fleet.servers[0]
        result = CliRunner().invoke(artcafe, [*words, "--data-dir", str(member.data), "--json"], env=environ)
        assert result.exit_code == 0, result.output
        return result.stdout

    flags = fleet.servers[0]._flags
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    environ = {f"ARTCAFE_{flag.removeprefix('--').replace('-', '_').upper()}": value for flag, value in given.items()}
    for number in range(12):
        await tenant.made("agents", name=f"a{number}", public_key=new_key())
    there = tenant.clients[1]

    async def is_made(name: str) -> bool:
        return (await there.post(f"{tenant.path}/agents", json={"name": name, "public_key": new_key()})).status_code == 201

    assert not await is_made("thirteen")
    await asyncio.to_thread(operate, "tenant", "plan", tenant.id, "large")
    assert await is_made("thirteen")
    await asyncio.to_thread(operate, "tenant", "limits", tenant.id, "agents=13", "message_bytes=10", "channels=unlimited")
    assert not await is_made("fourteen")
    shown = (await there.get(f"{tenant.path}/limits")).json()
    numbers = {each["name"]: each["limit"] for each in shown["items"]}
    assert (shown["plan"], numbers["agents"], numbers["message_bytes"], numbers["channels"]) == ("large", 13, 10, None)
    await asyncio.to_thread(operate, "tenant", "limits", tenant.id, "agents=plan", "channels=plan")
    assert await is_made("fourteen")
    assert (await there.get(tenant.path)).json()["limits"] == {"message_bytes": 10}
    audit = await there.get(f"{tenant.path}/audit", params={"action": "tenant.change"})
    done = [each["facts"] for each in audit.json()["items"] if each["outcome"] == "done"]
    assert done == [
        {"agents": "plan", "channels": "plan"},
        {"agents": "13", "message_bytes": "10", "channels": "unlimited"},
        {"plan": "large"},
    ]
