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


def test_the_table_has_every_action() -> None:
    assert set(WHO) == set(Action)


def test_an_owner_may_do_everything() -> None:
    assert all(may(member(Role.OWNER), action) for action in Action)


def test_each_role_may_what_the_one_below_it_may() -> None:
    ranks = (Role.VIEWER, Role.MEMBER, Role.ADMIN, Role.OWNER)
    for action in Action:
        allowed = [may(member(role), action) for role in ranks]
        assert allowed == sorted(allowed), action


def test_a_viewer_reads_what_a_member_reads_and_changes_nothing() -> None:
    for action in set(Action) - {Action.LEAVE}:  # which is about nobody but themselves
        is_reading = action.name.startswith("READ")
        assert may(member(Role.VIEWER), action) is (is_reading and may(member(Role.MEMBER), action)), action


def test_the_tenant_is_renamed_by_admins_and_deleted_by_owners() -> None:
    assert [role for role in Role if may(member(role), Action.RENAME_TENANT)] == [Role.OWNER, Role.ADMIN]
    assert [role for role in Role if may(member(role), Action.DELETE_TENANT)] == [Role.OWNER]


def test_admins_have_the_members_in_hand_but_for_the_owners() -> None:
    for action in (Action.READ_MEMBERS, Action.CHANGE_MEMBERS):
        assert [role for role in Role if may(member(role), action)] == [Role.OWNER, Role.ADMIN]
    assert [role for role in Role if may(member(role), Action.CHANGE_OWNERS)] == [Role.OWNER]
    assert all(may(member(role), Action.LEAVE) for role in Role)


def test_in_a_suspended_tenant_people_read_what_is_no_message_and_change_nothing() -> None:
    for role in Role:
        suspended = UserPrincipal(user_id=UserId("alice"), tenant_id=TENANT, role=role, is_suspended=True)
        for action in Action:
            if not may(member(role), action):
                assert not may(suspended, action), "what is forbidden is still said to be"
            elif action.name.startswith("READ") and action not in (Action.READ_MESSAGES, Action.READ_MANAGED):
                assert may(suspended, action)
            else:
                with pytest.raises(TenantSuspended):
                    check(suspended, action)


def test_members_change_agents_channels_and_subscriptions_and_publish() -> None:
    for action in (Action.CHANGE_AGENTS, Action.CHANGE_CHANNELS, Action.CHANGE_SUBSCRIPTION, Action.PUBLISH):
        assert may(member(Role.MEMBER), action)


def test_an_agent_finds_agents_publishes_and_has_its_own_subscriptions_in_hand() -> None:
    allowed = {action for action in Action if may(AGENT, action, AGENT.agent_id)}
    own = {Action.READ_SUBSCRIPTION, Action.CHANGE_SUBSCRIPTION}
    assert allowed == own | {Action.READ_AGENTS, Action.PUBLISH, Action.READ_MESSAGES}


def test_an_agent_has_no_say_in_what_is_about_another_agent() -> None:
    assert not may(AGENT, Action.READ_SUBSCRIPTION, OTHER)
    assert not may(AGENT, Action.CHANGE_SUBSCRIPTION, OTHER)
    assert not may(AGENT, Action.CHANGE_SUBSCRIPTION)


def test_a_refusal_says_who_may_not_do_what() -> None:
    with pytest.raises(Forbidden, match="a viewer may not create, change or delete agents"):
        check(member(Role.VIEWER), Action.CHANGE_AGENTS)
    with pytest.raises(Forbidden, match="an agent may not delete the tenant"):
        check(AGENT, Action.DELETE_TENANT)
    with pytest.raises(Forbidden, match="an admin may not delete the tenant"):
        check(member(Role.ADMIN), Action.DELETE_TENANT)


def test_another_tenant_does_not_exist_for_a_principal() -> None:
    require_tenant(AGENT, "ten_a")
    with pytest.raises(TenantNotFound):
        require_tenant(AGENT, "ten_b")
