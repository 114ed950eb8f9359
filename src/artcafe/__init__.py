"""ArtCafe for Python programs: `from artcafe import Agent`. A name is loaded when it is first used, and the server never."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from artcafe import errors
    from artcafe.errors import ArtcafeError
    from artcafe.sdk.client import Agent
    from artcafe.sdk.keys import Signer, agent_signer, load_signer
    from artcafe.sdk.messages import Gap, Message, Receipt, Subscribed
    from artcafe.sdk.records import History
    from artcafe.sdk.rest import Rest

__all__ = [
    "Agent",
    "ArtcafeError",
    "Gap",
    "History",
    "Message",
    "Receipt",
    "Rest",
    "Signer",
    "Subscribed",
    "agent_signer",
    "errors",
    "load_signer",
]

_HOMES: Final = {
    "Agent": "artcafe.sdk.client",
    "ArtcafeError": "artcafe.errors",
    "Gap": "artcafe.sdk.messages",
    "History": "artcafe.sdk.records",
    "Message": "artcafe.sdk.messages",
    "Receipt": "artcafe.sdk.messages",
    "Rest": "artcafe.sdk.rest",
    "Signer": "artcafe.sdk.keys",
    "Subscribed": "artcafe.sdk.messages",
    "agent_signer": "artcafe.sdk.keys",
    "load_signer": "artcafe.sdk.keys",
}


if not TYPE_CHECKING:  # A type checker that saw this would take any name for one of ours.

    def __getattr__(name: str) -> object:
        """Loads a public name where it is first used: the server and `artcafe --help` import this package too."""
        if name == "errors":
            return import_module("artcafe.errors")
        if name not in _HOMES:
            raise AttributeError(f"module 'artcafe' has no attribute {name!r}")
        found: object = getattr(import_module(_HOMES[name]), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
