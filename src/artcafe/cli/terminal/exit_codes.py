"""Exit codes that scripts can trust, and how a command says that it failed: a sentence on standard error, or JSON."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from artcafe.errors import ArtcafeError, CredentialsExpired, KeyUnusable, SettingInvalid

ErrorT = TypeVar("ErrorT", bound=BaseException)

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
"""Ctrl-C, which SIGTERM is handled like, as shells count it: 128 and the signal's number."""


def exit_code_of(error: ArtcafeError) -> int:
    """The exit code of an error."""
    if isinstance(error, SettingInvalid | KeyUnusable):
        return USAGE
    # An expired token comes back for a client that logs in by itself; a command that was given it stays refused.
    return UNREACHABLE if error.temporary and not isinstance(error, CredentialsExpired) else REFUSED


class ArtcafeCommand(click.Command):
    """A command that ends on one of our errors with its code and its text, never with a traceback.

    It ends with 0 when the reader of its output has closed it, as `| head` does, and with `REFUSED` and a sentence when the
    output cannot be written, as on a full disk.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # Here, where a failure can be told; at its end Python would print a traceback.
            return result
        except (ArtcafeError, OSError, BaseExceptionGroup) as exc:
            if unwritten := _first(exc, OSError, _is_of_the_output):
                _drop_output()
                if unwritten.errno != errno.EPIPE:
                    click.echo(f"artcafe: the output cannot be written: {os.strerror(unwritten.errno or 0)}", err=True)
                ctx.exit(0 if unwritten.errno == errno.EPIPE else REFUSED)
            error = _first(exc, ArtcafeError)
            if error is None:
                raise
            print_error(error, as_json=bool(ctx.params.get("as_json")))
            ctx.exit(exit_code_of(error))
        except click.UsageError as exc:
            if not ctx.params.get("as_json"):
                raise
            click.echo(_as_json("usage", exc.format_message()), err=True)
            ctx.exit(USAGE)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


def _first(exc: BaseException, kind: type[ErrorT], holds: Callable[[ErrorT], bool] = lambda _: True) -> ErrorT | None:
    """Return the first exception of a kind: task groups wrap what ended them, one around another."""
    if isinstance(exc, BaseExceptionGroup):
        return next((found for each in exc.exceptions if (found := _first(each, kind, holds))), None)
    return exc if isinstance(exc, kind) and holds(exc) else None


def _is_of_the_output(error: OSError) -> bool:
    """Writing to a stream names no file, other than opening, reading or moving one."""
    return error.filename is None and error.errno in {errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG}


def _drop_output() -> None:
    """Send what is still buffered nowhere, so that Python's own flush at the end does not fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def print_error(error: ArtcafeError, *, as_json: bool) -> None:
    """Says what went wrong on standard error."""
    click.echo(_as_json(error.code, str(error)) if as_json else f"artcafe: {error}", err=True)


def _as_json(code: str, message: str) -> bytes:
    return json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False).encode()
