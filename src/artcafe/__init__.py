"""Python SDK of ArtCafe: `from artcafe import Agent, Client`.

A name is imported when it is first used: the server and `artcafe --help` import this package too, and need none of them.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from artcafe import errors
    from artcafe.errors import ArtcafeError
    from artcafe.sdk.agent import Agent
    from artcafe.sdk.client import Client
    from artcafe.sdk.consumers import Failure
    from artcafe.sdk.keys import Signer, agent_signer, load_signer
    from artcafe.sdk.messages import Gap, Message, Receipt, Subscribed
    from artcafe.sdk.pull import Pulled
    from artcafe.sdk.records import History
    from artcafe.sdk.requests import Request
    from artcafe.sdk.states import StateEvent
    from artcafe.sdk.tenant_client import TenantClient
    from artcafe.sdk.tracked_receipts import TrackedReceipt
    from artcafe.sdk.typed import TypedMessage

    Rest = Client  # Deprecated.

__all__ = [
    "Agent",
    "ArtcafeError",
    "Client",
    "Failure",
    "Gap",
    "History",
    "Message",
    "Pulled",
    "Receipt",
    "Request",
    "Signer",
    "StateEvent",
    "Subscribed",
    "TenantClient",
    "TrackedReceipt",
    "TypedMessage",
    "agent_signer",
    "errors",
    "load_signer",
]

_MODULES: Final = {
    "Agent": "artcafe.sdk.agent",
    "ArtcafeError": "artcafe.errors",
    "Client": "artcafe.sdk.client",
    "Failure": "artcafe.sdk.consumers",
    "Gap": "artcafe.sdk.messages",
    "History": "artcafe.sdk.records",
    "Message": "artcafe.sdk.messages",
    "Pulled": "artcafe.sdk.pull",
    "Receipt": "artcafe.sdk.messages",
    "Request": "artcafe.sdk.requests",
    "Signer": "artcafe.sdk.keys",
    "StateEvent": "artcafe.sdk.states",
    "Subscribed": "artcafe.sdk.messages",
    "TenantClient": "artcafe.sdk.tenant_client",
    "TrackedReceipt": "artcafe.sdk.tracked_receipts",
    "TypedMessage": "artcafe.sdk.typed",
    "agent_signer": "artcafe.sdk.keys",
    "load_signer": "artcafe.sdk.keys",
}
_RENAMED: Final = {"Rest": "Client"}
"""Deprecated names, and the names that replace them."""


if not TYPE_CHECKING:  # A type checker that saw this function would accept any name.

    def __getattr__(name: str) -> object:
        """Import a public name on its first use, with a DeprecationWarning for a deprecated one."""
        if name == "errors":
            return import_module("artcafe.errors")
        current = _RENAMED.get(name, name)
        if current not in _MODULES:
            raise AttributeError(f"module 'artcafe' has no attribute {name!r}")
        if current != name:
            warnings.warn(f"artcafe.{name} is deprecated: use artcafe.{current}", DeprecationWarning, stacklevel=2)
        found: object = getattr(import_module(_MODULES[current]), current)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
