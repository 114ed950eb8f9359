"""`python -m artcafe` and the `artcafe` command."""

from __future__ import annotations


def main() -> None:
    """The command line."""
    from artcafe.cli.commands import artcafe

    artcafe()


if __name__ == "__main__":
    main()
