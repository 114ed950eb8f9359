"""Rows without effect, reported for a person, because the right value is unknown. Pure.

`integrity` finds the defects with a known fix, and `membership_repair` those of memberships.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from artcafe.errors import BadKey
from artcafe.maintenance.integrity import Defect, Finding, TenantRows
from artcafe.model import USER_PREFIX, AgentStatus, SubscriptionStatus, TenantStatus
from artcafe.rules import ids, inboxes, keys
from artcafe.rules.plans import Plans
from artcafe.tables import agent_rows, limit_rows, rows
from artcafe.tables.catalog import AGENTS, CHANNEL_SUBSCRIPTIONS, CHANNELS, TENANTS, Table
from artcafe.tables.engine.values import Item
from artcafe.wire.sshkeys import parse_public_key


def faults(had: TenantRows, plans: Plans) -> Iterator[Finding]:
    """Yield the faults of a tenant's rows; none for a tenant in deletion. `plans`: the catalogue that the row's plan is in."""
    if rows.is_deleting(had.tenant):
        return
    tenant_id = str(had.tenant["id"])
    of_table = (
        (TENANTS, [had.tenant], partial(_of_tenant, plans)),
        (AGENTS, had.agents, _of_agent),
        (CHANNELS, had.channels, _of_channel),
    )
    for table, items, wrong in of_table:
        for item in items:
            if agent_rows.is_claim(item) or rows.is_deleting(item):
                continue
            for what, message in wrong(item):
                yield _finding(tenant_id, what, table, item, message)
    agents, channels = ({str(item["id"]) for item in items} for items in (had.agents, had.channels))
    for item in had.subscriptions:
        for what, message in _of_subscription(item, agents, channels):
            yield _finding(tenant_id, what, CHANNEL_SUBSCRIPTIONS, item, message)


def orphan(table: Table, item: Item) -> Finding:
    """Return the finding for a row whose tenant does not exist."""
    tenant_id = str(item["tenant_id"])
    key = " ".join(str(item[name]) for name in table.key_attributes if name != "tenant_id")
    message = "its tenant does not exist, so it has no effect: add a row for the tenant, or delete this one"
    return Finding(what=Defect.ORPHAN, tenant_id=tenant_id, table=table.name, key=key, message=message, is_fixable=False)


Wrong = Iterator[tuple[Defect, str]]


def _of_tenant(plans: Plans, item: Item) -> Wrong:
    plan, unkept, status = limit_rows.plan_of(item), limit_rows.unenforced_of(item), item.get("status")
    if plan not in plans:
        yield (
            Defect.PLAN,
            f"its plan {plan!r} is unknown: limits missing in its row are those of the plan {plans.default!r}",
        )
    if unkept:
        yield Defect.LIMIT, f"these limits of its row are not enforced: {', '.join(unkept)}"
    if status not in (None, "", *TenantStatus):
        yield Defect.STATUS, f"its status {status!r} is unknown, and does not suspend the tenant"


def _of_agent(item: Item) -> Wrong:
    id, status = str(item["id"]), item.get("status")
    if (message := _unnameable(id)) is not None:
        yield Defect.ADDRESS, message
    if id.startswith(USER_PREFIX):
        yield Defect.ADDRESS, f"its id begins with {USER_PREFIX!r}, like those of people, so it cannot log in: give it another id"
    if status not in (None, *agent_rows.LIVENESS, *AgentStatus):
        yield Defect.STATUS, f"its status {status!r} is unknown, so it is disabled"
    agent = agent_rows.agent_of(item)
    for key in () if agent is None else keys.all_of(agent):
        if (problem := _refused(key.line)) is not None:
            yield Defect.KEY, f"it cannot log in with its key: {problem}"


def _of_channel(item: Item) -> Wrong:
    id = str(item["id"])
    if (message := _unnameable(id)) is not None:
        yield Defect.ADDRESS, message
    if inboxes.owner_of(id) is not None:
        yield (
            Defect.ADDRESS,
            f"its id begins with {inboxes.PREFIX!r}, like those of inboxes, so no message reaches it: create a channel in its"
            " place ('artcafe channel create'), subscribe its agents to that, and delete this row with its subscriptions",
        )
    if item.get("status") not in (None, "", "active"):
        yield Defect.STATUS, f"its status {item['status']!r} is unknown and ignored: the channel is in use"


def _of_subscription(item: Item, agents: set[str], channels: set[str]) -> Wrong:
    subscription, status = rows.subscription_of(item), item.get("status")
    if not subscription.channel_id or not subscription.agent_id:
        return  # `integrity` reports it.
    if subscription.agent_id not in agents:
        yield Defect.ORPHAN, f"there is no agent {subscription.agent_id}, so nothing is delivered: delete it"
    if subscription.channel_id not in channels:
        yield Defect.ORPHAN, f"there is no channel {subscription.channel_id}, so it delivers nothing: delete it"
    if status not in (None, "", *SubscriptionStatus):
        yield Defect.STATUS, f"its status {status!r} is unknown, so it receives nothing"
    if not subscription.permissions:
        yield Defect.PERMISSIONS, "it lets its agent neither receive nor publish"


def _unnameable(id: str) -> str | None:
    if ids.is_possible(id):
        return None
    return f"its id is no printable text of at most {ids.MAX_BYTES} bytes, so nobody can name it"


def _refused(line: str) -> str | None:
    """Return why a key would be refused today; None if it would be accepted."""
    try:
        parse_public_key(line)
    except BadKey as exc:
        return exc.problem
    return None


def _finding(tenant_id: str, what: Defect, table: Table, item: Item, message: str) -> Finding:
    return Finding(what=what, tenant_id=tenant_id, table=table.name, key=str(item["id"]), message=message, is_fixable=False)
