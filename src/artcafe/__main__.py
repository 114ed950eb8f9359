"""`python -m artcafe` and the `artcafe` command."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Run the command line. Characters that the terminal's encoding lacks are printed as escapes."""
    from artcafe.cli.commands import artcafe

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    artcafe()


if __name__ == "__main__":
    main()
