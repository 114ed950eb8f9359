"""Settings applied by a rolling restart, and settings fixed until the whole group is restarted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from artcafe.config import Settings
from artcafe.observe.logs import log
from artcafe.resources import open_plans

FIXED: Final = (
    "environment",
    "data_dir",
    "listen",
    "gateway_listen",
    "metrics_listen",
    "metrics_tenants",
    "tables",
    "dynamodb_endpoint",
    "nats_urls",
    "nats_ca",
    "secret_file",
    "public_gateway_url",
    "processes",
)
"""Settings of the supervisor's own resources, and settings all processes must have in common at any time."""


def reread(old: Settings, read: Callable[[], Settings]) -> Settings:
    """Read the settings again for a rolling restart, with the old values of fixed ones.

    Raises SettingInvalid, and PlansInvalid for a file of plans with which no new process could start.
    """
    new = keep_fixed(old, read())
    open_plans(new)
    return new


def keep_fixed(old: Settings, new: Settings) -> Settings:
    """Return the new settings with the old values of fixed ones, and log the names of those."""
    fixed = list(FIXED)
    if bool(old.tls_cert) is not bool(new.tls_cert):  # A new certificate is taken over, but the listeners' scheme stays.
        fixed += ["tls_cert", "tls_key"]
    changed = [name for name in fixed if getattr(old, name) != getattr(new, name)]
    if changed:
        log.warning("group.settings_kept", settings=changed, remedy="stop the supervisor and start it again")
    return new.model_copy(update={name: getattr(old, name) for name in changed})
