"""Who calls, and where to, in a person's command: token, address and tenant, and whom the words of an error are for."""

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
from artcafe.sdk.records import Me, Membership

P = ParamSpec("P")

DEFAULT_URL: Final = "http://127.0.0.1:8080"
NAMED: Final = 10
"""Tenants that an error lists; beyond that the list is a command of its own."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """An address, and the token to show there. For the local identity also who that is, and how others' things are seen."""

    url: str
    token: str = field(repr=False)
    user: str = ""
    others: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """What a command works with. `tenant` is empty in a command that is not about the things of one."""

    rest: Client
    credentials: Credentials
    as_json: bool
    tenant: str = ""

    def note(self, text: str) -> None:
        """Tells a person something beside the answer; a program is told nothing."""
        if not self.as_json:
            click.echo(f"artcafe: {text}", err=True)


Command = Callable[Concatenate[Caller, P], Coroutine[Any, Any, None]]


def as_user(command: Command[P]) -> Callable[..., None]:
    """Makes a click callback of a coroutine function: with the options that say who calls, and a `Caller` in their place."""
    return _called(command, is_in_tenant=False)


def in_tenant(command: Command[P]) -> Callable[..., None]:
    """As `by_person`, for a command that is about the things of a tenant: it is in the caller's `tenant`."""
    return TENANT(_called(command, is_in_tenant=True))


def _called(command: Callable[..., Coroutine[Any, Any, None]], *, is_in_tenant: bool) -> Callable[..., None]:
    @wraps(command)
    def wrapped(*, url: str | None, token: str | None, user: str | None, data_dir: Path, as_json: bool, **given: Any) -> None:
        _check_text(given)
        credentials = _credentials(url, token, user, data_dir)
        call = _call(command, credentials, as_json, given, is_in_tenant=is_in_tenant)
        # Not runner.run: it takes the first Ctrl-C for itself, and a question at the terminal, which holds the loop, would stand.
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
        help="The REST address, or several between commas [env: ARTCAFE_URL; default: that of the data folder's server].",
    ),
    click.option(
        "--token",
        envvar="ARTCAFE_TOKEN",
        metavar="TOKEN",
        help="An access token. Better as ARTCAFE_TOKEN: others on this machine can read a command's arguments.",
    ),
    click.option(
        "--user",
        envvar="ARTCAFE_USER",
        metavar="NAME",
        help="Without a token: who you are to a server on this machine [env: ARTCAFE_USER; default: yourself@localhost].",
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
    click.option("--json", "as_json", is_flag=True, help="Prints one JSON document, errors too."),
)
TENANT: Final = click.option(
    "--tenant",
    envvar="ARTCAFE_TENANT",
    metavar="ID",
    help="The tenant's id [env: ARTCAFE_TENANT]. Needed only if you are in several.",
)


# --- who calls -----------------------------------------------------------------------------------------------------------


def _credentials(url: str | None, token: str | None, user: str | None, data_dir: Path) -> Credentials:
    """The token that was given, or one of the local identity for the server of the data folder, and for no other: what is good
    for everybody's account here is shown to nobody elsewhere."""
    told = read_server_info(data_dir)
    if token:
        if click.get_current_context().get_parameter_source("user") is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError("--user is for a call without a token, and there is one (--token or ARTCAFE_TOKEN)")
        given = addresses.several(url or told.get("url", DEFAULT_URL))
        return Credentials(",".join(map(addresses.rest, given)), _checked(token))
    if url and not (told and any(_is_same(addresses.rest(each), told["url"]) for each in addresses.several(url))):
        raise click.UsageError(f"no access token for {url}: give --token or ARTCAFE_TOKEN. {_why_not_local(told, data_dir)}")
    if not told:
        raise _not_running(data_dir)
    return _local(told["url"], data_dir, user or _this_user())


def read_server_info(data_dir: Path) -> dict[str, str]:
    """Where the server that runs on a data folder is reached; nothing where none does."""
    try:
        from artcafe.data_dir import read_server_info
    except ModuleNotFoundError:  # no server runs on a system without file locks
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
            "no access token: give --token or ARTCAFE_TOKEN. (To be known without one, the server must be installed here.)"
        ) from exc
    is_demo_there = user != DEMO_USER and (data_dir / "demo").is_dir()
    others = f"another user's are seen with --user{f', the demo with --user {DEMO_USER}' if is_demo_there else ''}"
    return Credentials(url, issue_token(config.load({"data_dir": data_dir}), user), user, others)


def _why_not_local(told: Mapping[str, str], data_dir: Path) -> str:
    if told:
        return f"(The server of the data folder {data_dir} is at {told['url']}; leave out --url for that one.)"
    return f"(Without one there must be a running server on the data folder {data_dir}, and there is none.)"


def _not_running(data_dir: Path) -> Exception:
    if not data_dir.exists():
        return click.UsageError(
            f"no access token: give --token or ARTCAFE_TOKEN. Without one this works where a server keeps its data, and"
            f" {data_dir} is not here: name it by --data-dir, or begin with 'artcafe up'"
        )
    return Unavailable.from_text(
        f"no artcafe runs on the data folder {data_dir}; start it (artcafe up --data-dir {data_dir}), or name another folder"
    )


def _is_same(one: str, other: str) -> bool:
    """Whether two addresses are one server's: `localhost` and 127.0.0.1 are, at the same port."""
    both_here = addresses.is_loopback(one) and addresses.is_loopback(other)
    return one == other or (both_here and urlsplit(one).port == urlsplit(other).port)


def _this_user() -> str:
    try:
        return f"{getpass.getuser()}@localhost"
    except (OSError, KeyError, ImportError):
        raise click.UsageError("this system does not say who you are; say it by --user") from None


def _checked(token: str) -> str:
    token = token.strip()
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise click.UsageError("the access token (--token or ARTCAFE_TOKEN) is none: it has spaces or other characters in it")
    return token


def _check_text(given: Mapping[str, Any]) -> None:
    """Bytes that are no text come from the shell as half surrogates, which can be neither encoded nor sent."""
    for name, value in given.items():
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, str) and not each.isascii() and any("\ud800" <= char <= "\udfff" for char in each):
                raise click.UsageError(f"{name.replace('_', ' ')}: {each!a} is not UTF-8 text")


# --- which tenant --------------------------------------------------------------------------------------------------------


async def resolve_tenant(caller: Caller) -> str:
    """The caller's only tenant, or an agent's own; said on standard error. Raises `click.UsageError` for none and for several,
    and `TermsRequired` for somebody who has to accept those first."""
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
    raise click.UsageError(f"{me.user_id} is in several tenants; say which by --tenant or ARTCAFE_TENANT:\n{_listed(me.tenants)}")


def note_terms(caller: Caller, me: Me) -> None:
    """Says which terms the caller has still to accept, and until when that may wait; of those that may not an error tells."""
    terms = me.terms_outstanding
    if terms is not None and terms.grace_until is not None:
        caller.note(
            f"version {terms.version} of the terms is to be accepted by {terms.grace_until:%Y-%m-%dT%H:%M:%SZ}:"
            f" 'artcafe terms show' has it, and 'artcafe terms accept {terms.version}' accepts it"
        )


def no_tenant_text(credentials: Credentials) -> str:
    """What to say to somebody without a tenant."""
    who = f"{credentials.user} is" if credentials.user else "you are"
    return "; ".join(filter(None, (f"{who} in no tenant yet", "make one: artcafe tenant create NAME", credentials.others)))


def _listed(tenants: tuple[Membership, ...]) -> str:
    lines = [f"  {each.tenant_id}  {each.name}" for each in tenants[:NAMED]]
    if len(tenants) > NAMED:
        lines.append(f"  and {len(tenants) - NAMED} more: artcafe tenant list")
    return "\n".join(lines)


# --- what went wrong -----------------------------------------------------------------------------------------------------

ERROR_TEXTS: Final[Mapping[type[ArtcafeError], str]] = {
    errors.TenantNotFound: "no tenant {tenant!r} among yours; 'artcafe tenant list' shows them",
    errors.AgentNotFound: "no agent {agent!r} in this tenant; 'artcafe agent list' shows them",
    errors.ChannelNotFound: "no channel {channel!r} in this tenant; it is named by its id (chn_…), see 'artcafe channel list'",
    errors.MemberNotFound: "no such member in this tenant; a member is named by the id that 'artcafe member list' shows first",
    errors.InvitationNotFound: "no such open invitation in this tenant; 'artcafe invitation list' shows them",
    errors.TermsRequired: (
        "you have not accepted the terms yet: 'artcafe terms show' has them, and 'artcafe terms accept VERSION' accepts them"
    ),
    errors.TermsChanged: "that is not the current version of the terms, which 'artcafe terms show' has; nothing was accepted",
    errors.SubscriptionNotFound: (
        "agent {agent!r} has no subscription to channel {channel!r}; make one: artcafe subscription create --channel … --agent …"
    ),
}
"""The server does not repeat an id that it did not find, and cannot know the command that lists them."""


def _reword(error: ArtcafeError, given: Mapping[str, Any], credentials: Credentials) -> ArtcafeError:
    """The error as it is told to whoever typed the command; `given` are its arguments, by their names."""
    words = ERROR_TEXTS.get(type(error))
    if isinstance(error, errors.TenantNotFound) and credentials.user:
        words = f"{words}\n  you are {credentials.user}; {credentials.others}"
    if words is not None:
        return type(error).from_text(words.format_map(given))
    if isinstance(error, Unavailable) and credentials.url in str(error):
        return Unavailable.from_text(f"{error}\n  is a server running there? Another address is given by --url or ARTCAFE_URL")
    return error
