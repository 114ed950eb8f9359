"""The permission table: the contract's section 3, column "who". The services check whether a resource exists."""

from __future__ import annotations

from enum import Enum, StrEnum, auto
from typing import Final

from artcafe.errors import ChannelNotFound, Forbidden, TenantNotFound, TenantSuspended
from artcafe.model import AgentId, AgentPrincipal, Principal, Role


class Action(StrEnum):
    """An action in a tenant; its value completes the error message "a viewer may not …"."""

    READ_TENANT = "read the tenant"
    RENAME_TENANT = "change the tenant"
    CHANGE_PLAN = "change the tenant's plan"
    DELETE_TENANT = "delete the tenant"
    READ_LIMITS = "read the tenant's limits"
    READ_MEMBERS = "see members and invitations"
    CHANGE_MEMBERS = "invite, change or remove members"
    CHANGE_OWNERS = "grant or revoke the owner role"
    LEAVE = "leave the tenant"
    READ_AGENTS = "read agents"
    CHANGE_AGENTS = "create, change or delete agents"
    READ_KEYS = "read an agent's keys"
    READ_WAKE = "read an agent's wake policy"
    READ_CHANNELS = "read channels"
    CHANGE_CHANNELS = "create, change or delete channels"
    READ_SUBSCRIPTIONS = "list a channel's subscriptions"
    READ_SUBSCRIPTION = "read this agent's subscriptions"
    CHANGE_SUBSCRIPTION = "change this agent's subscriptions"
    GIVE_PERMISSIONS = "give an agent permissions"
    READ_HIDDEN = "find a managed channel without a subscription to it, which a member of the tenant must create"
    PUBLISH = "publish messages"
    PUBLISH_MANAGED = "publish to this managed channel without a subscription that allows it"
    REQUEST = "send requests to agents"
    READ_MESSAGES = "read messages"
    READ_MANAGED = "receive this managed channel without a subscription that allows it"
    PULL = "pull or acknowledge this agent's messages: only the agent itself can"
    READ_INBOX = "read this inbox, which its agent alone may read"
    READ_SCHEDULED = "read scheduled messages"
    CANCEL_SCHEDULED = "cancel scheduled messages"
    READ_CHAINS = "read chains of answers"
    RELEASE_CHAINS = "release a stopped chain of answers"
    REDRIVE = "send dead letters back to their queue"
    READ_AUDIT = "read the audit"
    READ_USAGE = "read the usage"


class AgentAccess(Enum):
    """The agents of the tenant with permission for an action."""

    NONE = auto()
    ITSELF = auto()
    """Only the agent the request is about."""
    ANY = auto()


_OWNER: Final = frozenset({Role.OWNER})
_ADMIN: Final = _OWNER | {Role.ADMIN}
_MEMBER: Final = _ADMIN | {Role.MEMBER}
_VIEWER: Final = _MEMBER | {Role.VIEWER}

_NOBODY: Final = (frozenset[Role](), AgentAccess.NONE)

WHO: Final[dict[Action, tuple[frozenset[Role], AgentAccess]]] = {
    Action.READ_TENANT: (_VIEWER, AgentAccess.NONE),
    Action.RENAME_TENANT: (_ADMIN, AgentAccess.NONE),
    Action.CHANGE_PLAN: (_OWNER, AgentAccess.NONE),
    Action.DELETE_TENANT: (_OWNER, AgentAccess.NONE),
    Action.READ_LIMITS: (_VIEWER, AgentAccess.ANY),
    Action.READ_MEMBERS: (_ADMIN, AgentAccess.NONE),
    Action.CHANGE_MEMBERS: (_ADMIN, AgentAccess.NONE),
    Action.CHANGE_OWNERS: (_OWNER, AgentAccess.NONE),
    Action.LEAVE: (_VIEWER, AgentAccess.NONE),
    Action.READ_AGENTS: (_VIEWER, AgentAccess.ANY),
    Action.CHANGE_AGENTS: (_MEMBER, AgentAccess.NONE),
    Action.READ_KEYS: (_VIEWER, AgentAccess.NONE),
    Action.READ_WAKE: (_VIEWER, AgentAccess.NONE),
    Action.READ_CHANNELS: (_VIEWER, AgentAccess.ANY),
    Action.CHANGE_CHANNELS: (_MEMBER, AgentAccess.NONE),
    Action.READ_SUBSCRIPTIONS: (_VIEWER, AgentAccess.NONE),
    Action.READ_SUBSCRIPTION: (_VIEWER, AgentAccess.ITSELF),
    Action.CHANGE_SUBSCRIPTION: (_MEMBER, AgentAccess.ITSELF),
    Action.GIVE_PERMISSIONS: (_MEMBER, AgentAccess.NONE),
    Action.READ_HIDDEN: (_VIEWER, AgentAccess.NONE),
    Action.PUBLISH: (_MEMBER, AgentAccess.ANY),
    Action.PUBLISH_MANAGED: (_MEMBER, AgentAccess.NONE),
    Action.REQUEST: (_MEMBER, AgentAccess.ANY),
    Action.READ_MESSAGES: (_VIEWER, AgentAccess.ANY),
    Action.READ_MANAGED: (_VIEWER, AgentAccess.NONE),
    Action.PULL: (frozenset(), AgentAccess.ITSELF),
    Action.READ_INBOX: (frozenset(), AgentAccess.ITSELF),
    Action.READ_SCHEDULED: (_VIEWER, AgentAccess.ANY),
    Action.CANCEL_SCHEDULED: (_MEMBER, AgentAccess.ANY),
    Action.READ_CHAINS: (_VIEWER, AgentAccess.NONE),
    Action.RELEASE_CHAINS: (_MEMBER, AgentAccess.NONE),
    Action.REDRIVE: (_MEMBER, AgentAccess.NONE),
    Action.READ_AUDIT: (_ADMIN, AgentAccess.NONE),
    Action.READ_USAGE: (_ADMIN, AgentAccess.NONE),
}

WHILE_SUSPENDED: Final = frozenset(
    {
        Action.READ_TENANT,
        Action.READ_LIMITS,
        Action.READ_MEMBERS,
        Action.READ_AGENTS,
        Action.READ_KEYS,
        Action.READ_WAKE,
        Action.READ_CHANNELS,
        Action.READ_HIDDEN,
        Action.READ_SUBSCRIPTIONS,
        Action.READ_SUBSCRIPTION,
        Action.READ_CHAINS,
        Action.READ_AUDIT,
        Action.READ_USAGE,
    }
)
"""The actions of people allowed in a suspended tenant: reading the tables and the audit (decision record 15). Nobody can publish
or read messages, stored or scheduled, although the tenant's NATS account stays open to ArtCafe's own servers (record 21)."""


def check(principal: Principal, action: Action, subject_agent: AgentId | None = None) -> None:
    """Raise Forbidden if the principal has no permission for the action, or the action is unknown.

    Raises TenantSuspended for a person of a suspended tenant if the action would be allowed otherwise and is not in
    `WHILE_SUSPENDED`. `subject_agent` is the agent the request is about, if any.
    """
    roles, agents = WHO.get(action, _NOBODY)
    if isinstance(principal, AgentPrincipal):
        if agents is AgentAccess.ANY or (agents is AgentAccess.ITSELF and principal.agent_id == subject_agent):
            return
        raise Forbidden(action.value, "an agent")
    if principal.role not in roles:
        raise Forbidden(action.value, f"an {principal.role}" if principal.role[0] in "ao" else f"a {principal.role}")
    if principal.is_suspended and action not in WHILE_SUSPENDED:
        raise TenantSuspended


def check_own_inbox(principal: Principal, agent_id: str) -> AgentPrincipal:
    """Return the principal if it is this agent: no other one receives the agent's messages. Raise Forbidden."""
    check(principal, Action.PULL, AgentId(agent_id))
    assert isinstance(principal, AgentPrincipal), "the table of permissions has no person for it"
    return principal


def check_may_find(principal: Principal, channel: str) -> None:
    """Raise ChannelNotFound if the principal may not know a managed channel without a subscription to it.

    The error is caused by the Forbidden that it hides, for the audit. `channel` is the text by which the principal named it.
    """
    try:
        check(principal, Action.READ_HIDDEN)
    except Forbidden as exc:
        raise ChannelNotFound(channel) from exc


def require_tenant(principal: Principal, tenant_id: str) -> None:
    """Raise TenantNotFound if the tenant in a path is not the principal's: a foreign tenant answers like an unknown one."""
    if principal.tenant_id != tenant_id:
        raise TenantNotFound(tenant_id)
