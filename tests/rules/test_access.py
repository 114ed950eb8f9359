from __future__ import annotations

import pytest

from artcafe.errors import Forbidden, TenantNotFound, TenantSuspended
from artcafe.model import AgentId, AgentPrincipal, Principal, Role, TenantId, UserId, UserPrincipal
from artcafe.rules.access import WHO, Action, check, require_tenant

TENANT = TenantId("ten_a")
AGENT = AgentPrincipal(agent_id=AgentId("agt_a"), tenant_id=TENANT, epoch=0)
OTHER = AgentId("agt_b")


def member(role: Role) -> UserPrincipal:
    return UserPrincipal(user_id=UserId("alice"), tenant_id=TENANT, role=role)


def may(principal: Principal, action: Action, subject: AgentId | None = None) -> bool:
    try:
        check(principal, action, subject)
    except Forbidden:
        return False
    return True


def test_table_has_every_action() -> None:
    assert set(WHO) == set(Action)


def test_owner_may_do_everything_but_read_the_inboxes_of_agents_and_pull_for_them() -> None:
    assert {action for action in Action if not may(member(Role.OWNER), action)} == {Action.READ_INBOX, Action.PULL}


def test_each_role_includes_the_permissions_of_the_role_below() -> None:
    ranks = (Role.VIEWER, Role.MEMBER, Role.ADMIN, Role.OWNER)
    for action in Action:
        allowed = [may(member(role), action) for role in ranks]
        assert allowed == sorted(allowed), action


def test_viewer_reads_like_a_member_and_changes_nothing() -> None:
    for action in set(Action) - {Action.LEAVE}:  # every member may leave
        is_reading = action.name.startswith("READ")
        assert may(member(Role.VIEWER), action) is (is_reading and may(member(Role.MEMBER), action)), action


def test_admins_rename_the_tenant_and_owners_delete_it() -> None:
    assert [role for role in Role if may(member(role), Action.RENAME_TENANT)] == [Role.OWNER, Role.ADMIN]
    assert [role for role in Role if may(member(role), Action.DELETE_TENANT)] == [Role.OWNER]


def test_admins_manage_all_members_except_owners() -> None:
    for action in (Action.READ_MEMBERS, Action.CHANGE_MEMBERS):
        assert [role for role in Role if may(member(role), action)] == [Role.OWNER, Role.ADMIN]
    assert [role for role in Role if may(member(role), Action.CHANGE_OWNERS)] == [Role.OWNER]
    assert all(may(member(role), Action.LEAVE) for role in Role)


def test_people_of_a_suspended_tenant_read_everything_except_messages_and_change_nothing() -> None:
    messages = {Action.READ_MESSAGES, Action.READ_MANAGED, Action.READ_SCHEDULED}
    for role in Role:
        suspended = UserPrincipal(user_id=UserId("alice"), tenant_id=TENANT, role=role, is_suspended=True)
        for action in Action:
            if not may(member(role), action):
                assert not may(suspended, action), "a forbidden action raises Forbidden, not TenantSuspended"
            elif action.name.startswith("READ") and action not in messages:
                assert may(suspended, action)
            else:
                with pytest.raises(TenantSuspended):
                    check(suspended, action)


def test_members_change_agents_channels_and_subscriptions_and_publish() -> None:
    for action in (Action.CHANGE_AGENTS, Action.CHANGE_CHANNELS, Action.CHANGE_SUBSCRIPTION, Action.PUBLISH):
        assert may(member(Role.MEMBER), action)


def test_agent_reads_agents_and_channels_sends_messages_and_requests_and_manages_what_is_its_own() -> None:
    allowed = {action for action in Action if may(AGENT, action, AGENT.agent_id)}
    own = {Action.READ_SUBSCRIPTION, Action.CHANGE_SUBSCRIPTION, Action.READ_INBOX, Action.PULL}
    shared = {Action.READ_AGENTS, Action.READ_CHANNELS, Action.READ_LIMITS, Action.READ_MESSAGES}
    # A service limits an agent to the scheduled messages that it published.
    sending = {Action.PUBLISH, Action.REQUEST, Action.READ_SCHEDULED, Action.CANCEL_SCHEDULED}
    assert allowed == own | shared | sending
    assert {action for action in Action if may(AGENT, action, OTHER)} == shared | sending


def test_agent_has_no_permission_for_another_agents_resources() -> None:
    assert not may(AGENT, Action.READ_SUBSCRIPTION, OTHER)
    assert not may(AGENT, Action.CHANGE_SUBSCRIPTION, OTHER)
    assert not may(AGENT, Action.CHANGE_SUBSCRIPTION)


def test_refusal_names_the_role_and_the_action() -> None:
    with pytest.raises(Forbidden, match="a viewer may not create, change or delete agents"):
        check(member(Role.VIEWER), Action.CHANGE_AGENTS)
    with pytest.raises(Forbidden, match="an agent may not delete the tenant"):
        check(AGENT, Action.DELETE_TENANT)
    with pytest.raises(Forbidden, match="an admin may not delete the tenant"):
        check(member(Role.ADMIN), Action.DELETE_TENANT)


def test_foreign_tenant_is_not_found_by_a_principal() -> None:
    require_tenant(AGENT, "ten_a")
    with pytest.raises(TenantNotFound):
        require_tenant(AGENT, "ten_b")
