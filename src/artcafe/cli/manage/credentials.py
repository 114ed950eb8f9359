"""Credentials of a user's command: the server's address, and an access token, given or of the local identity."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

from artcafe.errors import Unavailable
from artcafe.sdk import addresses

DEFAULT_URL: Final = "http://127.0.0.1:8080"


@dataclass(frozen=True, slots=True)
class AccessCredentials:
    """A server address and an access token. For the local identity, also the user and a hint about other users' tenants."""

    url: str
    token: str = field(repr=False)
    user: str = ""
    others: str = ""


def resolve_credentials(url: str | None, token: str | None, user: str | None, data_dir: Path) -> AccessCredentials:
    """Return the given token, or one of the local identity for the data folder's server.

    A token of the local identity is never sent to another server, because its signing secret can impersonate every user.
    """
    server = read_server_info(data_dir)
    if token:
        if click.get_current_context().get_parameter_source("user") is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError("--user cannot be combined with an access token (--token or ARTCAFE_TOKEN)")
        given = addresses.several(url or server.get("url", DEFAULT_URL))
        return AccessCredentials(",".join(map(addresses.rest, given)), _checked(token))
    if url and not (server and any(_is_same(addresses.rest(each), server["url"]) for each in addresses.several(url))):
        raise click.UsageError(f"no access token for {url}: give --token or ARTCAFE_TOKEN. {_why_not_local(server, data_dir)}")
    if not server:
        raise _not_running(data_dir)
    return _local(server["url"], data_dir, user or _this_user())


def read_server_info(data_dir: Path) -> dict[str, str]:
    """Return the addresses of the server that runs on a data folder; empty if none runs."""
    try:
        from artcafe.data_dir import read_server_info
    except ModuleNotFoundError:  # A server cannot run on a system without file locks.
        return {}
    return read_server_info(data_dir)


def _local(url: str, data_dir: Path, user: str) -> AccessCredentials:
    try:
        from artcafe import config
        from artcafe.cli.installation.local_token import DEMO_USER, issue_token
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("artcafe"):
            raise
        raise click.UsageError(
            "no access token: give --token or ARTCAFE_TOKEN. (Working without one requires the server to be installed here.)"
        ) from exc
    is_demo_there = user != DEMO_USER and (data_dir / "demo").is_dir()
    others = f"--user shows another user's tenants{f', and --user {DEMO_USER} the demo' if is_demo_there else ''}"
    return AccessCredentials(url, issue_token(config.load({"data_dir": data_dir}), user), user, others)


def _why_not_local(server: Mapping[str, str], data_dir: Path) -> str:
    if server:
        return f"(The server of the data folder {data_dir} is at {server['url']}; omit --url to use it.)"
    return f"(Working without one requires a running server on the data folder {data_dir}, and none runs.)"


def _not_running(data_dir: Path) -> Exception:
    if not data_dir.exists():
        return click.UsageError(
            f"no access token: give --token or ARTCAFE_TOKEN. Working without one requires the server's data folder, and"
            f" {data_dir} does not exist: name it with --data-dir, or start a server with 'artcafe up'"
        )
    return Unavailable.from_text(
        f"no artcafe runs on the data folder {data_dir}; start it (artcafe up --data-dir {data_dir}), or name another one"
    )


def _is_same(one: str, other: str) -> bool:
    """Whether two addresses belong to the same server: `localhost` and 127.0.0.1 with the same port do."""
    both_here = addresses.is_loopback(one) and addresses.is_loopback(other)
    return one == other or (both_here and urlsplit(one).port == urlsplit(other).port)


def _this_user() -> str:
    try:
        return f"{getpass.getuser()}@localhost"
    except (OSError, KeyError, ImportError):
        raise click.UsageError("the system's user name is unknown; give --user") from None


def _checked(token: str) -> str:
    token = token.strip()
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise click.UsageError("the access token (--token or ARTCAFE_TOKEN) is invalid: it contains spaces or special characters")
    return token
