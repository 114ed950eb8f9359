"""What an agent holds by pulls comes again at once when the agent loses its access to the queue, on any server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
import pytest_asyncio

from artcafe.delivery.pull_holds import ACK, EXTEND
from artcafe.model import AgentStatus, Channel, Permission, SubscriptionStatus, TenantStatus
from artcafe.rules.queues import QueueChange
from tests.delivery.test_queue_pull import LONG, Worker, a_queue, a_worker, another_server, data_of, publish
from tests.gateway.gateway_app import GatewayApp, gateway_app, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG_HELD = QueueChange(ack_wait_s=3600)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def it(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayApp]:
    """Yield the server shared by the tests of this module."""
    async with gateway_app(tmp_path_factory.mktemp("server")) as made:
        yield made


async def pause(it: GatewayApp, one: Worker, queue: Channel) -> None:
    await it.services.subscriptions.set_status(it.owner, queue.id, one.principal.agent_id, SubscriptionStatus.PAUSED)


async def delete_subscription(it: GatewayApp, one: Worker, queue: Channel) -> None:
    await it.services.subscriptions.delete(it.owner, queue.id, one.principal.agent_id)


async def take_permission(it: GatewayApp, one: Worker, queue: Channel) -> None:
    only = frozenset({Permission.PUBLISH})
    await it.services.subscriptions.put(it.owner, queue.id, one.principal.agent_id, permissions=only)


async def disable(it: GatewayApp, one: Worker, _: Channel) -> None:
    await it.services.agents.update(it.owner, one.principal.agent_id, status=AgentStatus.DISABLED)


async def delete_agent(it: GatewayApp, one: Worker, _: Channel) -> None:
    await it.services.agents.delete(it.owner, one.principal.agent_id)


Change = Callable[[GatewayApp, Worker, Channel], Awaitable[None]]
CHANGES: list[Change] = [pause, delete_subscription, take_permission, disable, delete_agent]


def holds(it: GatewayApp, one: Worker) -> bool:
    """Return whether the agent holds a message by a pull from the first server."""
    held = it.services.pulls.holds._holders
    return any(holder.held for (_, agent, _), holder in held.items() if agent == one.principal.agent_id)


@pytest.mark.promise("p13b")
@pytest.mark.parametrize("change", CHANGES)
async def test_held_message_comes_again_at_once_when_its_holder_loses_access(it: GatewayApp, change: Change) -> None:
    queue = await a_queue(it, LONG_HELD)
    one, other = await a_worker(it, queue), await a_worker(it, queue)
    await publish(it, queue, 1)
    (item,) = await one.pull()
    await change(it, one, queue)
    (again,) = await other.pull(LONG)
    assert (again["data"], again["deliveries"]) == (1, 2)
    assert await one.code(ACK, item) == "not_held"
    assert await other.code(ACK, again) is None


async def test_other_server_applies_the_change_to_what_it_has_pulled(it: GatewayApp) -> None:
    queue = await a_queue(it, LONG_HELD)
    one, other = await a_worker(it, queue), await a_worker(it, queue)
    await publish(it, queue, 1)
    async with another_server(it) as there:
        (item,) = await replace(one, services=there).pull()
        await pause(it, one, queue)
        # In a server these run as background loops; the announcement of the change is `tests/flows/test_fleet_revocations.py`'s.
        key = (it.owner.tenant_id, one.principal.agent_id, queue.id)
        await there.pulls.revocation._revoke(it.owner.tenant_id, [key])
        assert data_of(await other.pull(LONG)) == [1]
        assert await one.code(EXTEND, item) == "not_held"


async def test_access_that_stays_gives_nothing_back(it: GatewayApp) -> None:
    queue, another = await a_queue(it, LONG_HELD), await a_queue(it)
    one = await a_worker(it, queue, another)
    await publish(it, queue, 1)
    (item,) = await one.pull()
    await it.services.agents.update(it.owner, one.principal.agent_id, name="renamed")
    await it.services.channels.update(it.owner, queue.id, name="renamed")
    await it.services.subscriptions.delete(it.owner, another.id, one.principal.agent_id)
    it.services.invalidation.notify(it.owner.tenant_id)
    # These changes may not have been read yet: read them before the ack.
    key = (it.owner.tenant_id, one.principal.agent_id, queue.id)
    await it.services.pulls.revocation._revoke(it.owner.tenant_id, [key])
    assert holds(it, one)
    assert await one.code(ACK, item) is None


async def test_suspension_of_the_tenant_gives_nothing_back(it: GatewayApp) -> None:
    """Nobody else of the tenant may have it, and the agent goes on when the tenant is resumed."""
    queue = await a_queue(it, LONG_HELD)
    one = await a_worker(it, queue)
    await publish(it, queue, 1)
    (item,) = await one.pull()
    await it.suspend()
    key = (it.owner.tenant_id, one.principal.agent_id, queue.id)
    await it.services.pulls.revocation._revoke(it.owner.tenant_id, [key])
    await it.suspend(TenantStatus.ACTIVE)
    assert await one.code(ACK, item) is None


async def test_nothing_of_a_deleted_queue_is_held(it: GatewayApp) -> None:
    queue = await a_queue(it, LONG_HELD)
    one = await a_worker(it, queue)
    await publish(it, queue, 1)
    (item,) = await one.pull()
    await it.services.channels.delete(it.owner, queue.id)
    await until(lambda: not holds(it, one))
    assert await one.code(ACK, item) == "not_held"
    it.services.pulls.holds.sweep()
    assert (it.owner.tenant_id, queue.id) not in it.services.queue_hub._feeds
