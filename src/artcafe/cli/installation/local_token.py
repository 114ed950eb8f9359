"""Access tokens of the local identity, for users of the machine with the data folder. Requires the server's libraries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from artcafe.config import Settings
from artcafe.data_dir import read_secret, read_server_info
from artcafe.errors import StartRefused
from artcafe.identity.local import LocalIdentity
from artcafe.observe.clock import now
from artcafe.rules.secrets import derive

DEMO_USER: Final = "alice@example.com"
"""The owner of the demo's tenant."""


def issue_token(settings: Settings, user: str) -> str:
    """Return a token for `user`, signed with the folder's secret and valid for 12 hours.

    Raises StartRefused when an identity provider is configured, the secret cannot be read or the server listens beyond loopback,
    and Invalid for an invalid user name.
    """
    issuer = settings.issuer or read_server_info(settings.data_dir).get("issuer")
    if issuer is not None:
        raise StartRefused(
            f"the local identity is off: the server accepts only tokens of {issuer}",
            "log in there, and pass your access token as ARTCAFE_TOKEN or --token",
        )
    if not (settings.listen.is_loopback and settings.gateway_listen.is_loopback):
        raise StartRefused(
            "the local identity requires a server that listens only on loopback",
            f"LISTEN is {settings.listen} and GATEWAY_LISTEN {settings.gateway_listen}; its users log in at an issuer",
        )
    return LocalIdentity(derive(read_secret(settings.secret_path), "local-identity")).issue(user, now())


def data_dir_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--data-dir`: the data folder of 'artcafe up'."""
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        default=Path("artcafe-data"),
        show_default=True,
        envvar="ARTCAFE_DATA_DIR",
        help="The data folder of 'artcafe up'.",
    )(command)
