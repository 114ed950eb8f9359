"""The context of a user's command: its REST client, credentials and tenant, and the options that set them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec

import click

from artcafe import errors
from artcafe.cli.manage.credentials import AccessCredentials, resolve_credentials
from artcafe.cli.manage.error_texts import reword
from artcafe.errors import ArtcafeError
from artcafe.sdk.client import Client
from artcafe.sdk.records import Me, MembershipInfo
from artcafe.sdk.tenant_client import TenantClient

P = ParamSpec("P")

NAMED: Final = 10
"""Maximum number of tenants listed in an error; 'artcafe tenant list' prints all."""


@dataclass(frozen=True, slots=True)
class CommandContext:
    """The REST client, credentials and output format of a command. `tenant` is empty for commands outside a tenant."""

    rest: Client
    credentials: AccessCredentials
    as_json: bool
    tenant: str = ""

    @property
    def scope(self) -> TenantClient:
        """The calls inside the command's tenant."""
        return self.rest.tenant(self.tenant)

    def note(self, text: str) -> None:
        """Print a note on standard error, unless the output is JSON."""
        if not self.as_json:
            click.echo(f"artcafe: {text}", err=True)


Command = Callable[Concatenate[CommandContext, P], Coroutine[Any, Any, None]]


def as_user(command: Command[P]) -> Callable[..., None]:
    """Make a click callback of a coroutine function: add the options that identify the caller, and pass a `CommandContext`."""
    return _called(command, is_in_tenant=False)


def in_tenant(command: Command[P]) -> Callable[..., None]:
    """Do the same as `as_user` for a command inside a tenant: add `--tenant`, and set the context's `tenant`."""
    return TENANT(_called(command, is_in_tenant=True))


def _called(command: Callable[..., Coroutine[Any, Any, None]], *, is_in_tenant: bool) -> Callable[..., None]:
    @wraps(command)
    def wrapped(*, url: str | None, token: str | None, user: str | None, data_dir: Path, as_json: bool, **given: Any) -> None:
        _check_text(given)
        credentials = resolve_credentials(url, token, user, data_dir)
        call = _call(command, credentials, as_json, given, is_in_tenant=is_in_tenant)
        # Not runner.run: it handles the first Ctrl-C itself, and a prompt, which blocks the loop, would ignore it.
        with asyncio.Runner() as runner:
            runner.get_loop().run_until_complete(call)

    return person_options(wrapped)


async def _call(
    command: Callable[..., Coroutine[Any, Any, None]],
    credentials: AccessCredentials,
    as_json: bool,
    given: dict[str, Any],
    *,
    is_in_tenant: bool,
) -> None:
    async with Client(credentials.url, credentials.token, max_retry_s=0) as rest:
        context = CommandContext(rest, credentials, as_json)
        try:
            if is_in_tenant:
                context = replace(context, tenant=given.pop("tenant") or await resolve_tenant(context))
            await command(context, **given)
        except ArtcafeError as exc:
            raise reword(exc, {"tenant": context.tenant, **given}, credentials) from exc


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


def person_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that identify the caller, and `--json`."""
    for option in reversed(PERSON):
        command = option(command)
    return command


TENANT: Final = click.option(
    "--tenant",
    envvar="ARTCAFE_TENANT",
    metavar="ID",
    help="The tenant's id. Required only if you are a member of several.  [env: ARTCAFE_TENANT]",
)


def _check_text(given: Mapping[str, Any]) -> None:
    """Reject arguments that are not UTF-8: the shell's invalid bytes arrive as lone surrogates, which cannot be encoded."""
    for name, value in given.items():
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, str) and not each.isascii() and any("\ud800" <= char <= "\udfff" for char in each):
                raise click.UsageError(f"{name.replace('_', ' ')}: {each!a} is not UTF-8 text")


# --- tenant --------------------------------------------------------------------------------------------------------------


async def resolve_tenant(context: CommandContext) -> str:
    """Return the caller's only tenant, or an agent's tenant, and print it on standard error.

    Raises click.UsageError for a user with no tenant or several, and TermsRequired for a user who must accept the terms first.
    """
    me = await context.rest.me()
    if me.tenant_id is not None:
        return me.tenant_id
    note_terms(context, me)
    if len(me.tenants) == 1:
        context.note(f"in tenant {me.tenants[0].tenant_id} ({me.tenants[0].name})")
        return me.tenants[0].tenant_id
    if not me.tenants and me.terms_outstanding is not None:
        raise errors.TermsRequired(me.terms_outstanding.version)
    if not me.tenants:
        raise click.UsageError(no_tenant_text(context.credentials))
    raise click.UsageError(f"{me.user_id} is in several tenants; choose with --tenant or ARTCAFE_TENANT:\n{_listed(me.tenants)}")


def note_terms(context: CommandContext, me: Me) -> None:
    """Print a note about terms to accept within a grace period. Without a grace period, the server's error says so."""
    terms = me.terms_outstanding
    if terms is not None and terms.grace_until is not None:
        context.note(
            f"accept version {terms.version} of the terms by {terms.grace_until:%Y-%m-%dT%H:%M:%SZ}:"
            f" read it with 'artcafe terms show', and accept it with 'artcafe terms accept {terms.version}'"
        )


def no_tenant_text(credentials: AccessCredentials) -> str:
    """Return the text for a user without a tenant."""
    who = f"{credentials.user} is" if credentials.user else "you are"
    return "; ".join(filter(None, (f"{who} in no tenant yet", "create one: artcafe tenant create NAME", credentials.others)))


def _listed(tenants: tuple[MembershipInfo, ...]) -> str:
    lines = [f"  {each.tenant_id}  {each.name}" for each in tenants[:NAMED]]
    if len(tenants) > NAMED:
        lines.append(f"  and {len(tenants) - NAMED} more: artcafe tenant list")
    return "\n".join(lines)
