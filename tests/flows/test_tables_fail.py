"""The effect on agents and people when the tables throttle, fail, lose answers or are unreachable."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import boto3
import httpx2
import pytest

from artcafe.cli.operate.server_runner import SAME_SIGNAL_S
from artcafe.cli.terminal.signals import INTERRUPTED
from artcafe.errors import ArtcafeError, BadCredentials, LimitReached, Unavailable
from artcafe.sdk.client import Client
from artcafe.sdk.keys import load_signer
from tests import ssh_keygen
from tests.aws import Aws
from tests.docs.test_dynamodb_page import policy
from tests.faulty_aws import READS, WRITES, Fault, FaultyAws, faulty
from tests.flows.test_end_to_end import take
from tests.platform import Cast, Platform, running
from tests.services.service_env import new_key


@pytest.fixture(scope="module")
def proxy(aws: Aws) -> Iterator[FaultyAws]:
    with faulty(aws.url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def flags(aws: Aws, proxy: FaultyAws) -> list[str]:
    return aws.tables_flags(proxy.url)


@pytest.fixture
def platform(flags: list[str], tmp_path: Path) -> Iterator[Platform]:
    """Yield an `artcafe up` whose tables are behind the proxy.

    One for each test: a fault leaves AWS's client little of its budget of retries, and the next test's calls would fail at once.
    """
    with running(tmp_path, flags) as platform:
        yield platform


@pytest.fixture(autouse=True)
def spared(proxy: FaultyAws) -> Iterator[None]:
    yield
    proxy.spare()


async def log_in(cast: Cast, number: int = 0) -> str:
    async with Client(cast.url) as rest:
        signer = load_signer(cast.keys[number])
        return (await rest.login(cast.tenant, cast.agents[number], signer)).access_token


async def ready_with(platform: Platform, status: int) -> tuple[str, str]:
    """Return the states of the server's parts once it answers with this status; an answer may be a second old."""
    async with asyncio.timeout(20), httpx2.AsyncClient(base_url=platform.url, trust_env=False) as client:
        while (answer := await client.get("/health/ready", timeout=10)).status_code != status:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.1)
    states = answer.json()
    return states["tables"], states["nats"]


async def test_without_tables_agents_continue_logins_fail_closed_and_readiness_names_the_tables(
    platform: Platform, proxy: FaultyAws
) -> None:
    cast = await platform.tenant_with(agents=2)
    async with cast.agent(0) as sender, cast.agent(1) as receiver:
        await sender.publish(cast.channels[0], "before")
        await take(receiver, 1)
        proxy.shut()
        try:
            for number in range(50):
                await sender.publish(cast.channels[0], number)
            assert [message.data for message in await take(receiver, 50)] == list(range(50))
            with pytest.raises(Unavailable, match="DynamoDB"):
                await log_in(cast)
            tables, nats = await ready_with(platform, 503)
            assert nats == "ok"
            assert "DynamoDB" in tables
        finally:
            proxy.open()
        assert await ready_with(platform, 200) == ("ok", "ok")
        await log_in(cast)
        await sender.publish(cast.channels[0], "after")
        assert [message.data for message in await take(receiver, 1)] == ["after"]
    async with cast.agent(1) as back:
        await back.publish(cast.channels[0], "last")
        (message,) = await take(back, 1)
    assert message.data == "last", "every acknowledgement was written, though the tables were away meanwhile"


@pytest.mark.parametrize("operation", ["PutItem", "UpdateItem", "GetItem"])
async def test_login_whose_table_call_keeps_failing_gets_no_token_and_succeeds_afterwards(
    platform: Platform, proxy: FaultyAws, operation: str
) -> None:
    cast = await platform.tenant_with()
    proxy.strike(Fault.FAILED, operation)
    with pytest.raises(Unavailable):
        await log_in(cast)
    proxy.spare()
    assert await log_in(cast)


async def test_logins_with_every_fifth_table_answer_lost_all_succeed(platform: Platform, proxy: FaultyAws) -> None:
    cast = await platform.tenant_with(agents=4)
    lost = proxy.strike(Fault.LOST, "PutItem", "UpdateItem", "GetItem", every=5)
    async with asyncio.TaskGroup() as group:
        logins = [group.create_task(log_in(cast, number % 4)) for number in range(24)]
    assert lost.struck >= 12
    assert len({login.result() for login in logins}) == 24


async def test_challenge_allows_one_attempt_even_if_the_answer_that_consumed_it_was_lost(
    platform: Platform, proxy: FaultyAws
) -> None:
    cast = await platform.tenant_with()
    async with httpx2.AsyncClient(base_url=platform.url, trust_env=False, timeout=30) as client:
        ids = {"tenant_id": cast.tenant, "agent_id": cast.agents[0]}
        challenge = (await client.post("/v1/auth/challenges", json=ids)).json()
        signature = ssh_keygen.sign(cast.keys[0], challenge["challenge"].encode())
        proof = {"challenge_id": challenge["challenge_id"], "signature": signature}
        proxy.strike(Fault.LOST, "UpdateItem", most=2)
        async with asyncio.TaskGroup() as group:
            tries = [group.create_task(client.post("/v1/auth/tokens", json=proof)) for _ in range(4)]
        assert sorted(each.result().status_code for each in tries) == [200, 401, 401, 401]
        assert (await client.post("/v1/auth/tokens", json=proof)).json()["type"].endswith(BadCredentials.code)


async def test_fifty_creations_at_once_with_conflicts_and_lost_answers_create_exactly_the_limit(
    platform: Platform, proxy: FaultyAws, flags: list[str]
) -> None:
    cast = await platform.tenant_with(agents=1)
    operator = boto3.client("dynamodb", flags[1].removeprefix("dynamodb:"), endpoint_url=proxy.url)
    operator.update_item(
        TableName="artcafe-tenants",
        Key={"id": {"S": cast.tenant}},
        UpdateExpression="SET limits = :limits",
        ExpressionAttributeValues={":limits": {"M": {"agents": {"N": "10"}}}},
    )
    rules = [proxy.strike(fault, "TransactWriteItems", every=every) for fault, every in ((Fault.LOST, 4), (Fault.CONFLICT, 3))]
    # With a key each, since AWS's client gives an answer up whenever its budget of retries is used up.
    async with Client(cast.url, cast.token, max_retry_s=60) as rest:

        async def create(number: int) -> bool:
            try:
                await rest.tenant(cast.tenant).agents.create(f"agent {number}", new_key(), key=f"create {number}")
            except LimitReached:
                return False
            return True

        async with asyncio.TaskGroup() as group:
            creates = [group.create_task(create(number)) for number in range(50)]
        assert all(rule.struck for rule in rules)
        assert sum(task.result() for task in creates) == 9
        proxy.spare()
        assert len([agent async for agent in rest.tenant(cast.tenant).agents.list()]) == 10


async def test_write_with_all_answers_lost_is_applied_once_by_a_request_with_the_same_key(
    platform: Platform, proxy: FaultyAws
) -> None:
    cast = await platform.tenant_with(agents=0, channels=0)
    async with cast.rest() as rest:
        proxy.strike(Fault.LOST, *WRITES)
        with pytest.raises(Unavailable, match="whether anything was changed is unknown"):
            await rest.tenant(cast.tenant).channels.create("plans", key="once")
        proxy.spare()
        made = await rest.tenant(cast.tenant).channels.create("plans", key="once")
        assert [channel.id async for channel in rest.tenant(cast.tenant).channels.list()] == [made.id]


async def test_missing_permission_is_named_by_the_log_and_by_readiness_until_it_is_granted(
    proxy: FaultyAws, flags: list[str], tmp_path: Path
) -> None:
    proxy.denied = {("Scan", "artcafe-tenants"), ("Query", "artcafe-channels")}
    with running(tmp_path, [*flags, "--operators", "root"]) as own:
        # Both are found by the start, before anybody needs them, and the server is ready.
        found = {(line["action"], line["table"]) for line in lines_of(own, "tables.denied")}
        assert found == {("dynamodb:Query", "artcafe-channels"), ("dynamodb:Scan", "artcafe-tenants")}
        denied = "denied: dynamodb:Query on artcafe-channels, dynamodb:Scan on artcafe-tenants"
        assert await permissions_of(own) == denied
        async with Client(own.url, own.token("root")) as root:
            with pytest.raises(Unavailable, match="operator must grant it a permission"):
                _ = [each async for each in root.suspended_tenants()]
            states = {each.name: each.problem for each in (await root.platform_state()).readiness}
            assert states == {"tables": None, "nats": None, "permissions": denied}
            proxy.spare()
            async with asyncio.timeout(20):
                while await permissions_of(own) != "ok":  # noqa: ASYNC110 (an answer may be a second old)
                    await asyncio.sleep(0.1)
            assert [each async for each in root.suspended_tenants()] == []
    assert len(lines_of(own, "tables.denied")) == len(lines_of(own, "tables.allowed")) == 2


async def test_group_of_processes_tries_each_permission_once_and_all_of_them_report_a_denial(
    proxy: FaultyAws, flags: list[str], tmp_path: Path
) -> None:
    trial = ("DeleteItem", "artcafe-terms-acceptance")  # no server ever deletes such a row
    before = proxy.tables[trial]
    proxy.denied = {("Query", "artcafe-channels")}
    with running(tmp_path, [*flags, "--processes", "2"]) as own:
        assert proxy.tables[trial] == before + 1
        for _ in range(8):  # a new connection each, so that both processes answer
            assert await permissions_of(own) == "denied: dynamodb:Query on artcafe-channels"
        assert {line["process"] for line in lines_of(own, "tables.denied") if "process" in line} == {"1", "2"}
        assert own.metrics_url is not None
        gauges = {f'artcafe_table_permissions_denied{{process="{number}"}} 1' for number in (1, 2)}
        async with asyncio.timeout(20), httpx2.AsyncClient(trust_env=False) as client:
            while not gauges <= {*(await client.get(own.metrics_url)).text.splitlines()}:  # noqa: ASYNC110 (it is sampled)
                await asyncio.sleep(0.2)


@pytest.mark.usefixtures("platform")
async def test_documented_policy_is_enough_for_a_server(proxy: FaultyAws, flags: list[str], tmp_path: Path) -> None:
    """The tables exist. What a server does to rows is in `tests/tables`; here it does some of everything."""
    proxy.refused.clear()
    proxy.allowed = frozenset.union(*map(frozenset, policy()))
    with running(tmp_path / "own", flags) as own:
        cast = await own.tenant_with(agents=2)
        async with cast.agent(0) as sender, cast.agent(1) as receiver:
            await sender.publish(cast.channels[0], "hello")
            await take(receiver, 1)
        async with cast.rest() as rest:
            tenant = rest.tenant(cast.tenant)
            await tenant.agents.update(cast.agents[0], status="disabled")
            await tenant.agents.delete(cast.agents[0])
            await tenant.channels.delete(cast.channels[0])
            assert [each.id async for each in tenant.agents.list()] == [cast.agents[1]]
        assert await permissions_of(own) == "ok"
    assert not proxy.refused


async def permissions_of(platform: Platform) -> str:
    async with httpx2.AsyncClient(base_url=platform.url, trust_env=False) as client:
        answer = await client.get("/health/ready", timeout=10)
    assert answer.status_code == 200
    found: str = answer.json()["permissions"]
    return found


def lines_of(platform: Platform, event: str) -> list[dict[str, str]]:
    """Return the fields of each line of the server's log with this event."""
    lines = [line for line in platform.log().splitlines() if f" {event} " in line]
    return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines]


async def test_second_signal_ends_a_server_that_drains_slowly(proxy: FaultyAws, flags: list[str], tmp_path: Path) -> None:
    with running(tmp_path, flags) as own:
        cast = await own.tenant_with(agents=0, channels=0)
        held = proxy.strike(Fault.HELD, *READS)
        async with cast.rest() as rest, asyncio.TaskGroup() as group:

            async def create() -> None:
                with contextlib.suppress(ArtcafeError, OSError):
                    await rest.tenant(cast.tenant).channels.create("never")

            group.create_task(create())
            assert await asyncio.to_thread(held.first.wait, 20)
            assert own.process is not None
            own.process.send_signal(signal.SIGINT)
            await asyncio.sleep(SAME_SIGNAL_S * 1.5)
            own.process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(own.process.wait, 20) == INTERRUPTED
