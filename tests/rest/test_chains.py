from __future__ import annotations

from collections.abc import Iterator

import pytest

from artcafe.model import TenantId
from artcafe.tables.catalog import TENANTS
from artcafe.tables.engine.writes import ItemKey, Put
from tests.rest.rest_app import Caller, RestApp, Tenant

ATTRIBUTES = ["id", "tenant_id", "status", "messages", "max_messages", "max_hops", "releases"]


@pytest.fixture
def publish(rest_app: RestApp, tenant: Tenant) -> Iterator[str]:
    """Yield the path of a channel's messages, in a tenant whose messages may be answered once."""
    engine = rest_app.store._tables

    async def set_limits(limits: dict[str, int]) -> None:
        (row,) = await engine.get(TENANTS, [ItemKey(tenant.id)], consistent=True)
        assert row is not None
        await engine.put(Put(TENANTS, {**row, "limits": limits}))
        rest_app.services.invalidation.notify(TenantId(tenant.id))

    rest_app.run(set_limits({"hops": 1}))
    yield f"{tenant.path}/channels/{tenant.channel()}/messages"
    rest_app.run(set_limits({}))


def test_answers_are_read_with_their_chain_and_stopped_above_the_limit(tenant: Tenant, owner: Caller, publish: str) -> None:
    channel = publish.split("/")[-2]
    first = owner.post(publish, json={"data": 1}).json()
    second = owner.post(publish, json={"data": 2, "caused_by": {"channel": channel, "seq": first["seq"]}}).json()
    stopped = owner.post(publish, json={"data": 3, "caused_by": second["message_id"]})
    problem = stopped.json()

    assert (stopped.status_code, problem["code"]) == (402, "loop_stopped")
    assert (problem["chain"], problem["hops"]) == (first["message_id"], 2)
    assert (problem["limit"]["name"], problem["limit"]["limit"], problem["limit"]["used"]) == ("hops", 1, 2)
    newest, oldest = owner.get(publish).json()["items"]
    assert {"caused_by", "hops", "chain"}.isdisjoint(oldest)
    assert (newest["caused_by"], newest["hops"], newest["chain"]) == (first["message_id"], 1, first["message_id"])

    path = f"{tenant.path}/chains/{first['message_id']}"
    chain = owner.get(path).json()
    assert list(chain) == ATTRIBUTES
    assert (chain["status"], chain["messages"], chain["max_hops"], chain["releases"]) == ("stopped", 2, 1, 0)
    for _ in range(2):  # A repeat changes nothing.
        released = owner.patch(path, json={"status": "active"})
        assert (released.status_code, released.json()["status"], released.json()["releases"]) == (200, "active", 1)
    assert owner.post(publish, json={"data": 3, "caused_by": second["message_id"]}).status_code == 201


@pytest.mark.parametrize(
    ("caused_by", "status", "code"),
    [
        ("msg_00000000000000000000000000", 422, "cause_not_found"),
        ({"channel": "chn_none", "seq": 1}, 422, "cause_not_found"),
        ({"channel": "chn_none"}, 422, "invalid"),
        ({"channel": "chn_none", "seq": 0}, 422, "invalid"),
        (5, 422, "invalid"),
    ],
)
def test_unknown_or_malformed_cause_is_refused(owner: Caller, publish: str, caused_by: object, status: int, code: str) -> None:
    refused = owner.post(publish, json={"data": 1, "caused_by": caused_by})
    assert (refused.status_code, refused.json()["code"]) == (status, code)


@pytest.mark.parametrize("body", [{}, {"status": "stopped"}, {"status": "active", "messages": 1}])
def test_chain_can_only_be_released(tenant: Tenant, owner: Caller, body: object) -> None:
    refused = owner.patch(f"{tenant.path}/chains/msg_1", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
