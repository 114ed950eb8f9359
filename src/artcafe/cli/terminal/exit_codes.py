"""Exit codes for scripts, and error output: one sentence on standard error, or JSON with `--json`."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from artcafe.cli.terminal.signals import INTERRUPTED
from artcafe.errors import ArtcafeError, CredentialsExpired, KeyUnusable, SettingInvalid

ErrorT = TypeVar("ErrorT", bound=BaseException)

DECLINED: Final = 1
"""The user answered "no" to a confirmation prompt; click's own code for it."""
USAGE: Final = 2
"""An argument or option is invalid; click's own code for it."""
REFUSED: Final = 3
"""The server refused the request or could not start; repeating the command gives the same answer."""
UNREACHABLE: Final = 4
"""The server is unreachable or temporarily unable to answer; a retry can help."""
DIFFERENT: Final = 5
"""A check found differences."""
FAILED: Final = 6
"""The command was executed, and the work that it waited for failed."""


def exit_code_of(error: ArtcafeError) -> int:
    """Return the exit code for an error."""
    if isinstance(error, SettingInvalid | KeyUnusable):
        return USAGE
    # An expired token is temporary for a client that logs in again; a command keeps the token from its arguments.
    return UNREACHABLE if error.temporary and not isinstance(error, CredentialsExpired) else REFUSED


class ArtcafeCommand(click.Command):
    """A command that prints an ArtcafeError as one sentence and exits with its code, without a traceback.

    It exits with 0 when the reader of its output closes the pipe, as `| head` does, and with `REFUSED` and a sentence when the
    output cannot be written, as on a full disk.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # A failure is handled here; at interpreter exit Python would print a traceback.
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
    """Return the first exception of type `kind` in `exc`, which may be nested exception groups of task groups."""
    if isinstance(exc, BaseExceptionGroup):
        return next((found for each in exc.exceptions if (found := _first(each, kind, holds))), None)
    return exc if isinstance(exc, kind) and holds(exc) else None


def _is_of_the_output(error: OSError) -> bool:
    """Whether the error comes from writing to a stream: unlike opening, reading or moving a file, it has no filename."""
    return error.filename is None and error.errno in {errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG}


def _drop_output() -> None:
    """Redirect buffered output to /dev/null, so that Python's flush at exit does not fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def print_error(error: ArtcafeError, *, as_json: bool) -> None:
    """Print an error on standard error."""
    click.echo(_as_json(error.code, str(error)) if as_json else f"artcafe: {error}", err=True)


def _as_json(code: str, message: str) -> bytes:
    return json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False).encode()
