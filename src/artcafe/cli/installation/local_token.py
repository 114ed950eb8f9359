"""Access tokens of the local identity, for the people of the machine that has the data folder. Needs the server's libraries."""

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
"""Whose tenant the demo is."""


def issue_token(settings: Settings, user: str) -> str:
    """A token for `user`, signed with the folder's secret and good for 12 hours.

    Raises `StartRefused` where an issuer vouches for people, the secret cannot be read or the server listens to other machines,
    and `Invalid` for what is no user's name.
    """
    issuer = settings.issuer or read_server_info(settings.data_dir).get("issuer")
    if issuer is not None:
        raise StartRefused(
            f"the local identity is off: the server believes the tokens of {issuer} alone",
            "log in there, and give the access token that you get (ARTCAFE_TOKEN, or --token)",
        )
    if not (settings.listen.is_loopback and settings.gateway_listen.is_loopback):
        raise StartRefused(
            "the local identity is for a server that listens on loopback only",
            f"LISTEN is {settings.listen} and GATEWAY_LISTEN {settings.gateway_listen}; people of such a server log in elsewhere",
        )
    return LocalIdentity(derive(read_secret(settings.secret_path), "local-identity")).issue(user, now())


def data_dir_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--data-dir`: the data folder of the server that 'artcafe up' runs."""
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        default=Path("artcafe-data"),
        show_default=True,
        envvar="ARTCAFE_DATA_DIR",
        help="The data folder of the server that 'artcafe up' runs.",
    )(command)
