"""The secrets and signatures of webhooks.

The signature is that of Standard Webhooks (https://www.standardwebhooks.com): HMAC-SHA256 over id, time and body.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Final

from artcafe.rules.secrets import derive

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - it begins every secret


def secret_of(key: bytes, salt: str) -> bytes:
    """Return the secret of a salt. `key` belongs to the installation."""
    return derive(key, f"webhook-secret/{salt}", 32)


def secret_text(secret: bytes) -> str:
    """Return a secret in the form that libraries of Standard Webhooks take."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def signed_headers(secrets: Sequence[bytes], webhook_id: str, now: datetime, body: bytes) -> dict[str, str]:
    """Return the headers of a webhook, with one signature for each secret."""
    timestamp = str(int(now.timestamp()))
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    signatures = (base64.b64encode(hmac.digest(secret, signed, sha256)).decode() for secret in secrets)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
