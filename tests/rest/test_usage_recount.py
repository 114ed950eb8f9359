from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import httpx2
import pytest
from starlette.types import Message

from artcafe.errors import Unavailable
from artcafe.model import Role, TenantId
from artcafe.observe.clock import now
from artcafe.rest.slow_json import SlowJsonResponse
from artcafe.rules.usage import Metric, PeriodKind, period_of
from artcafe.tables.usage_run_store import CountKey, RunRow
from tests.cli.manage.shell_user import Person
from tests.rest.rest_app import RestApp, Tenant


@pytest.fixture
def filled(rest_app: RestApp) -> Tenant:
    """Return a tenant with five stored messages."""
    tenant = rest_app.tenant()
    path = f"{tenant.path}/channels/{tenant.channel()}/messages"
    for number in range(5):
        assert tenant.owner.post(path, json={"data": number}).status_code == 201
    return tenant


def recount(tenant: Tenant, **query: str) -> httpx2.Response:
    return tenant.owner.get(f"{tenant.path}/usage/recount", params=query)


def falsify(rest_app: RestApp, tenant: Tenant) -> None:
    """Add 7 to the messages of the current hour, as a defect would."""
    runs = rest_app.services.store.usage_runs(TenantId(tenant.id))
    counts = {CountKey(Metric.MESSAGES_STORED): 7}
    row = RunRow(period_of(now(), PeriodKind.HOUR), "srv_defect", 0, 1, counts, is_new=True)
    assert rest_app.run(runs.write(row, now()))
    rest_app.run(runs.add_to_metrics(row, now()))


def test_recount_is_equal_to_the_usage(filled: Tenant) -> None:
    found = recount(filled).json()
    assert (found["equal"], found["whole"], found["messages_read"], found["up_to"]) == (True, True, 5, 5)
    assert {each["verdict"] for each in found["compared"]} == {"equal"}
    assert found["sums"] == []


def test_difference_is_shown_with_its_sequences(rest_app: RestApp, filled: Tenant) -> None:
    assert recount(filled).json()["equal"]
    falsify(rest_app, filled)
    found = recount(filled).json()
    assert not found["equal"]
    (different,) = [each for each in found["compared"] if each["verdict"] == "different"]
    assert different["counted_messages"] - different["found_messages"] == 7
    assert (different["found_first_seq"], different["found_last_seq"]) == (1, 5)


def test_command_exits_with_5_for_a_difference_only(rest_app: RestApp, filled: Tenant) -> None:
    assert filled.owner.token is not None
    admin = Person({"URL": rest_app.url, "TOKEN": filled.owner.token, "TENANT": filled.id})
    equal = admin.run("usage", "recount")
    assert (equal.code, "5 messages" in equal.stderr, "is equal" in equal.stderr) == (0, True, True), equal
    falsify(rest_app, filled)
    different = admin.run("usage", "recount")
    assert different.code == 5
    assert "1-5" in different.stdout
    assert "the usage is different" in different.stderr
    (document,) = [line for line in admin.run("usage", "recount", "--json").stdout.splitlines() if line.startswith("{")]
    assert json.loads(document)["equal"] is False, "between lines of the server's log"


def test_empty_tenant_is_equal(rest_app: RestApp) -> None:
    found = recount(rest_app.tenant()).json()
    assert (found["equal"], found["messages_read"], found["compared"]) == (True, 0, [])


def test_invalid_period_and_foreign_callers_are_refused(rest_app: RestApp, filled: Tenant) -> None:
    refused = recount(filled, period="2026-13")
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
    assert rest_app.tenant().owner.get(f"{filled.path}/usage/recount").status_code == 404
    for caller in (filled.member(Role.VIEWER), filled.member(Role.MEMBER), filled.agent().login()):
        assert caller.get(f"{filled.path}/usage/recount").status_code == 403


async def sent(work: Callable[[], Awaitable[bytes]], messages: list[Message]) -> None:
    """Send a response that keeps its connection in use every millisecond."""

    async def receive() -> Message:
        raise AssertionError("the request has no body")

    async def send(message: Message) -> None:
        messages.append(message)

    await SlowJsonResponse(work, keep_alive_s=0.001)({"type": "http"}, receive, send)


async def test_slow_response_keeps_its_connection_in_use_and_is_json() -> None:
    messages: list[Message] = []
    may_end = asyncio.Event()

    async def work() -> bytes:
        await may_end.wait()
        return b'{"equal":true}'

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(sent(work, messages))
        while len(messages) < 5:  # noqa: ASYNC110 (a response has no event)
            await asyncio.sleep(0.001)
        may_end.set()
    assert messages[0]["type"] == "http.response.start"
    assert json.loads(b"".join(message["body"] for message in messages[1:])) == {"equal": True}
    assert [message["more_body"] for message in messages[1:]] == [True] * (len(messages) - 2) + [False]


async def test_early_error_is_raised_before_the_response_starts() -> None:
    messages: list[Message] = []

    async def work() -> bytes:
        raise Unavailable("the meter")

    with pytest.raises(Unavailable):
        await sent(work, messages)
    assert messages == []
