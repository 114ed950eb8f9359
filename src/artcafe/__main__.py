"""`python -m artcafe` and the `artcafe` command."""

from __future__ import annotations

import io
import os
import signal
import sys

from artcafe.cli.terminal.signals import let_sigterm_interrupt, signals_end_process


def main() -> None:
    """Run the command line. Characters missing in the terminal's encoding are printed as escapes.

    SIGTERM ends a command as Ctrl-C does: the command cleans up and exits with 130. It is passed on as SIGINT; an exception
    raised in the handler could interrupt any task, such as the one that sends acks.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as scripts start commands with `&`: SIGTERM would have no effect
        signal.signal(signal.SIGINT, signal.default_int_handler)
    let_sigterm_interrupt()
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        _drop_unwritable_output()


def _drop_unwritable_output() -> None:
    """Discard buffered output that cannot be written, as to a closed terminal. Otherwise the interpreter exits with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run() -> None:
    with signals_end_process():
        from artcafe.cli.commands import artcafe

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    artcafe()


if __name__ == "__main__":
    main()
