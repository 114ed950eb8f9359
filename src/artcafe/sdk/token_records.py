"""Responses of the REST API that sign somebody in. Their `repr` shows no secret."""

from __future__ import annotations

from datetime import datetime

import msgspec


class ConsoleCode(msgspec.Struct, frozen=True):
    """A code that signs its creator in to the web console: once, until `expires_at`."""

    code: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"ConsoleCode(expires_at={self.expires_at})"


class Token(msgspec.Struct, frozen=True):
    """The token of a login. `expires_in` is in seconds from now."""

    access_token: str
    token_type: str
    expires_in: int

    def __repr__(self) -> str:
        return f"Token(expires_in={self.expires_in})"
