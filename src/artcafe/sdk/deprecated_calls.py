"""The earlier names of `Client`'s methods, which took the tenant as their first argument. Each use gives a DeprecationWarning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final, Protocol

from artcafe.sdk.tenant_client import TenantClient

IN_TENANT: Final = {
    "limits": "limits",
    "delete_tenant": "delete",
    "create_agent": "agents.create",
    "agents": "agents.list",
    "agent": "agents.get",
    "update_agent": "agents.update",
    "delete_agent": "agents.delete",
    "add_key": "keys.add",
    "keys": "keys.list",
    "update_key": "keys.update",
    "revoke_key": "keys.revoke",
    "create_channel": "channels.create",
    "channels": "channels.list",
    "channel": "channels.get",
    "update_channel": "channels.update",
    "delete_channel": "channels.delete",
    "inbox": "inbox",
    "publish": "messages.publish",
    "history": "messages.list",
    "receipts": "messages.receipts",
    "scheduled": "scheduled.list",
    "cancel_scheduled": "scheduled.cancel",
    "redrive": "dead_letters.redrive",
    "redrive_all": "dead_letters.redrive_all",
    "subscribe": "subscriptions.create",
    "subscriptions": "subscriptions.list",
    "agent_subscriptions": "subscriptions.list_of_agent",
    "subscription": "subscriptions.get",
    "update_subscription": "subscriptions.update",
    "delete_subscription": "subscriptions.delete",
    "chain": "chains.get",
    "release_chain": "chains.release",
    "audit": "audit.list",
    "usage": "usage.get",
    "recount": "usage.recount",
    "people.members": "members.list",
    "people.invite": "members.invite",
    "people.set_role": "members.set_role",
    "people.remove": "members.remove",
    "people.invitations": "invitations.list",
    "people.revoke": "invitations.revoke",
}
"""Where each is now, in `Client.tenant(tenant)`."""
ARGUMENTS: Final = {"rename_tenant": "name", "choose_plan": "plan"}
"""Those that are now a named argument of `Client.tenant(tenant).update`."""
IN_CLIENT: Final = {
    "people.accept": "accept_invitation",
    "people.terms": "terms",
    "people.accept_terms": "accept_terms",
}


class _Client(Protocol):
    def tenant(self, tenant: str) -> TenantClient: ...


class _People:
    """What `Client.people` was."""

    def __init__(self, client: _Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return deprecated_call(self._client, f"people.{name}")


def deprecated_call(client: _Client, name: str) -> Any:
    """Return what `client.name` was. Raises AttributeError if it was nothing."""
    if name == "people":
        return _People(client)
    found: Callable[..., Any]
    if name in IN_CLIENT:
        now, found = IN_CLIENT[name], getattr(client, IN_CLIENT[name])
    elif name in IN_TENANT:
        now = f"tenant(…).{IN_TENANT[name]}"

        def found(tenant: str, *args: Any, **kwargs: Any) -> Any:
            return attrgetter(IN_TENANT[name])(client.tenant(tenant))(*args, **kwargs)

    elif name in ARGUMENTS:
        now = f"tenant(…).update({ARGUMENTS[name]}=…)"

        def found(tenant: str, value: str) -> Any:
            return client.tenant(tenant).update(**{ARGUMENTS[name]: value})

    else:
        raise AttributeError(f"'Client' object has no attribute {name!r}")
    warnings.warn(f"Client.{name} is deprecated: use Client.{now}", DeprecationWarning, stacklevel=3)
    return found
