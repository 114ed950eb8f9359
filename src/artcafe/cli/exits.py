"""Exit codes that scripts can trust, and how a command says that it failed: a sentence on standard error, or JSON."""

from __future__ import annotations

import json
from typing import Any, Final

import click

from artcafe.errors import ArtcafeError, CredentialsExpired, KeyUnusable, SettingInvalid

DECLINED: Final = 1
"""The person was asked, and said no; click's own code for it."""
USAGE: Final = 2
"""The command was given something wrong; click's own code for it."""
REFUSED: Final = 3
"""The server (or the start of one) said no, and will again."""
UNREACHABLE: Final = 4
"""The server could not be reached or could not do it now: trying again can help."""
DIFFERENT: Final = 5
"""It was looked at, and is not as it should be."""
INTERRUPTED: Final = 130
"""Ctrl-C, as shells count it: 128 and the signal's number."""


def code_of(error: ArtcafeError) -> int:
    """The exit code of an error."""
    if isinstance(error, SettingInvalid | KeyUnusable):
        return USAGE
    # An expired token comes back for a client that logs in by itself; a command that was given it stays refused.
    return UNREACHABLE if error.temporary and not isinstance(error, CredentialsExpired) else REFUSED


class Failing(click.Command):
    """A command that ends on one of our errors with its code and its text, never with a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ArtcafeError, BaseExceptionGroup) as exc:
            error = _named(exc)
            if error is None:
                raise
            tell(error, as_json=bool(ctx.params.get("as_json")))
            ctx.exit(code_of(error))
        except click.UsageError as exc:
            if not ctx.params.get("as_json"):
                raise
            click.echo(_as_json("usage", exc.format_message()), err=True)
            ctx.exit(USAGE)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


def _named(exc: BaseException) -> ArtcafeError | None:
    """The first error of ours in an exception: task groups wrap what ended them, one around another."""
    if isinstance(exc, BaseExceptionGroup):
        return next((found for each in exc.exceptions if (found := _named(each))), None)
    return exc if isinstance(exc, ArtcafeError) else None


def tell(error: ArtcafeError, *, as_json: bool) -> None:
    """Says what went wrong on standard error."""
    click.echo(_as_json(error.code, str(error)) if as_json else f"artcafe: {error}", err=True)


def _as_json(code: str, message: str) -> bytes:
    return json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False).encode()
