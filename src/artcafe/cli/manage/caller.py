"""The caller of a member's command: server address, access token and tenant; and error texts with the fitting command."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec
from urllib.parse import urlsplit

import click

from artcafe import errors
from artcafe.errors import ArtcafeError, Unavailable
from artcafe.sdk import addresses
from artcafe.sdk.client import Client
from artcafe.sdk.records import Me, MembershipInfo

P = ParamSpec("P")

DEFAULT_URL: Final = "http://127.0.0.1:8080"
NAMED: Final = 10
"""Maximum number of tenants listed in an error; 'artcafe tenant list' prints all."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A server address and an access token. For the local identity, also the user and a hint about other users' tenants."""

    url: str
    token: str = field(repr=False)
    user: str = ""
    others: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """The REST client, credentials and output format of a command. `tenant` is empty for commands outside a tenant."""

    rest: Client
    credentials: Credentials
    as_json: bool
    tenant: str = ""

    def note(self, text: str) -> None:
        """Print a note on standard error, unless the output is JSON."""
        if not self.as_json:
            click.echo(f"artcafe: {text}", err=True)


Command = Callable[Concatenate[Caller, P], Coroutine[Any, Any, None]]


def as_user(command: Command[P]) -> Callable[..., None]:
    """Make a click callback of a coroutine function: add the options that identify the caller, and pass a `Caller`."""
    return _called(command, is_in_tenant=False)


def in_tenant(command: Command[P]) -> Callable[..., None]:
    """Do the same as `as_user` for a command inside a tenant: add `--tenant`, and set the caller's `tenant`."""
    return TENANT(_called(command, is_in_tenant=True))


def _called(command: Callable[..., Coroutine[Any, Any, None]], *, is_in_tenant: bool) -> Callable[..., None]:
    @wraps(command)
    def wrapped(*, url: str | None, token: str | None, user: str | None, data_dir: Path, as_json: bool, **given: Any) -> None:
        _check_text(given)
        credentials = _credentials(url, token, user, data_dir)
        call = _call(command, credentials, as_json, given, is_in_tenant=is_in_tenant)
        # Not runner.run: it handles the first Ctrl-C itself, and a prompt, which blocks the loop, would ignore it.
        with asyncio.Runner() as runner:
            runner.get_loop().run_until_complete(call)

    for option in reversed(PERSON):
        wrapped = option(wrapped)
    return wrapped


async def _call(
    command: Callable[..., Coroutine[Any, Any, None]],
    credentials: Credentials,
    as_json: bool,
    given: dict[str, Any],
    *,
    is_in_tenant: bool,
) -> None:
    async with Client(credentials.url, credentials.token) as rest:
        caller = Caller(rest, credentials, as_json)
        try:
            if is_in_tenant:
                caller = replace(caller, tenant=given.pop("tenant") or await resolve_tenant(caller))
            await command(caller, **given)
        except ArtcafeError as exc:
            raise _reword(exc, {"tenant": caller.tenant, **given}, credentials) from exc


PERSON: Final = (
    click.option(
        "--url",
        envvar="ARTCAFE_URL",
        metavar="URL",
        help="The REST address; several, separated by commas, for failover.  [env: ARTCAFE_URL; default: the local server]",
    ),
    click.option(
        "--token",
        envvar="ARTCAFE_TOKEN",
        metavar="TOKEN",
        help="An access token. Prefer ARTCAFE_TOKEN: other users of this machine can read a command's arguments.",
    ),
    click.option(
        "--user",
        envvar="ARTCAFE_USER",
        metavar="NAME",
        help="Without a token: your user id for a server on this machine.  [env: ARTCAFE_USER; default: LOGIN@localhost]",
    ),
    click.option(
        "--data-dir",
        envvar="ARTCAFE_DATA_DIR",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        default=Path("artcafe-data"),
        show_default=True,
        help="Without a token: the data folder of that server.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document, including errors."),
)
TENANT: Final = click.option(
    "--tenant",
    envvar="ARTCAFE_TENANT",
    metavar="ID",
    help="The tenant's id. Required only if you are a member of several.  [env: ARTCAFE_TENANT]",
)


# --- credentials ---------------------------------------------------------------------------------------------------------


def _credentials(url: str | None, token: str | None, user: str | None, data_dir: Path) -> Credentials:
    """Return the given token, or one of the local identity for the data folder's server.

    A token of the local identity is never sent to another server, because its signing secret can impersonate every user.
    """
    server = read_server_info(data_dir)
    if token:
        if click.get_current_context().get_parameter_source("user") is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError("--user cannot be combined with an access token (--token or ARTCAFE_TOKEN)")
        given = addresses.several(url or server.get("url", DEFAULT_URL))
        return Credentials(",".join(map(addresses.rest, given)), _checked(token))
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


def _local(url: str, data_dir: Path, user: str) -> Credentials:
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
    return Credentials(url, issue_token(config.load({"data_dir": data_dir}), user), user, others)


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


def _check_text(given: Mapping[str, Any]) -> None:
    """Reject arguments that are not UTF-8: the shell's invalid bytes arrive as lone surrogates, which cannot be encoded."""
    for name, value in given.items():
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, str) and not each.isascii() and any("\ud800" <= char <= "\udfff" for char in each):
                raise click.UsageError(f"{name.replace('_', ' ')}: {each!a} is not UTF-8 text")


# --- tenant --------------------------------------------------------------------------------------------------------------


async def resolve_tenant(caller: Caller) -> str:
    """Return the caller's only tenant, or an agent's tenant, and print it on standard error.

    Raises click.UsageError for a user with no tenant or several, and TermsRequired for a user who must accept the terms first.
    """
    me = await caller.rest.me()
    if me.tenant_id is not None:
        return me.tenant_id
    note_terms(caller, me)
    if len(me.tenants) == 1:
        caller.note(f"in tenant {me.tenants[0].tenant_id} ({me.tenants[0].name})")
        return me.tenants[0].tenant_id
    if not me.tenants and me.terms_outstanding is not None:
        raise errors.TermsRequired(me.terms_outstanding.version)
    if not me.tenants:
        raise click.UsageError(no_tenant_text(caller.credentials))
    raise click.UsageError(f"{me.user_id} is in several tenants; choose with --tenant or ARTCAFE_TENANT:\n{_listed(me.tenants)}")


def note_terms(caller: Caller, me: Me) -> None:
    """Print a note about terms to accept within a grace period. Without a grace period, the server's error says so."""
    terms = me.terms_outstanding
    if terms is not None and terms.grace_until is not None:
        caller.note(
            f"accept version {terms.version} of the terms by {terms.grace_until:%Y-%m-%dT%H:%M:%SZ}:"
            f" read it with 'artcafe terms show', and accept it with 'artcafe terms accept {terms.version}'"
        )


def no_tenant_text(credentials: Credentials) -> str:
    """Return the text for a user without a tenant."""
    who = f"{credentials.user} is" if credentials.user else "you are"
    return "; ".join(filter(None, (f"{who} in no tenant yet", "create one: artcafe tenant create NAME", credentials.others)))


def _listed(tenants: tuple[MembershipInfo, ...]) -> str:
    lines = [f"  {each.tenant_id}  {each.name}" for each in tenants[:NAMED]]
    if len(tenants) > NAMED:
        lines.append(f"  and {len(tenants) - NAMED} more: artcafe tenant list")
    return "\n".join(lines)


# --- error texts ---------------------------------------------------------------------------------------------------------

ERROR_TEXTS: Final[Mapping[type[ArtcafeError], str]] = {
    errors.TenantNotFound: "no tenant {tenant!r} among yours; list them with 'artcafe tenant list'",
    errors.AgentNotFound: "no agent {agent!r} in this tenant; list them with 'artcafe agent list'",
    errors.ChannelNotFound: "no channel {channel!r} in this tenant; use its id (chn_…) from 'artcafe channel list'",
    errors.MemberNotFound: "no such member in this tenant; use the USER id from 'artcafe member list'",
    errors.InvitationNotFound: "no such open invitation in this tenant; list them with 'artcafe invitation list'",
    errors.TermsRequired: (
        "you have not accepted the terms yet: read them with 'artcafe terms show', and accept them with 'artcafe terms accept"
        " VERSION'"
    ),
    errors.TermsChanged: "nothing was accepted: this is not the current version of the terms; see 'artcafe terms show'",
    errors.SubscriptionNotFound: (
        "agent {agent!r} is not subscribed to channel {channel!r}; subscribe it with 'artcafe subscription create'"
    ),
}
"""Texts with the id and the fitting command: the server does not repeat an unknown id, and does not know the command line."""


def _reword(error: ArtcafeError, given: Mapping[str, Any], credentials: Credentials) -> ArtcafeError:
    """Return the error with the text for a command's user; `given` are the command's arguments by name."""
    words = ERROR_TEXTS.get(type(error))
    if isinstance(error, errors.TenantNotFound) and credentials.user:
        words = f"{words}\n  you are {credentials.user}; {credentials.others}"
    if words is not None:
        return type(error).from_text(words.format_map(given))
    if isinstance(error, Unavailable) and credentials.url in str(error):
        return Unavailable.from_text(f"{error}\n  is a server running there? Set another address with --url or ARTCAFE_URL")
    return error
