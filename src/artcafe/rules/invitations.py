"""Invitation tokens: sign and verify the invitation's id. Pure.

An invitation always has the same token, so that a retried request gets the same answer. The token is not stored in any table, and
reading the tables does not suffice to forge it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from datetime import timedelta
from hashlib import sha256
from typing import Final

from artcafe.errors import InvitationRefused
from artcafe.model import InvitationId, TenantId

LIFETIME: Final = timedelta(hours=72)
MAX_OPEN: Final = 100
"""The maximum of open invitations per tenant; concurrent requests may exceed it slightly."""

_PREFIX: Final = "artcafe-invitation"
_MAX_CHARS: Final = 1024
"""A tenant id has at most 128 bytes, an invitation id 30."""


def token(key: bytes, tenant_id: TenantId, invitation_id: InvitationId) -> str:
    """Return the token `artcafe-invitation.…`: printable ASCII without spaces, about 120 characters. `key` has 32 bytes."""
    named = f"{_encoded(tenant_id.encode())}.{invitation_id}"
    return f"{_PREFIX}.{named}.{_encoded(_mac(key, named))}"


def parse_token(key: bytes, text: str) -> tuple[TenantId, InvitationId]:
    """Return the ids in a token. Raises InvitationRefused for text not created by `token` with this key; fails closed."""
    parts = text.split(".", 4) if len(text) <= _MAX_CHARS and text.isascii() else []
    if len(parts) != 4 or parts[0] != _PREFIX:
        raise InvitationRefused
    _, tenant, invitation_id, mac = parts
    if not hmac.compare_digest(_encoded(_mac(key, f"{tenant}.{invitation_id}")), mac):
        raise InvitationRefused
    try:
        tenant_id = base64.urlsafe_b64decode(tenant + "=" * (-len(tenant) % 4)).decode()
    except (binascii.Error, ValueError) as exc:
        raise InvitationRefused from exc
    return TenantId(tenant_id), InvitationId(invitation_id)


def _mac(key: bytes, named: str) -> bytes:
    return hmac.digest(key, named.encode(), sha256)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
