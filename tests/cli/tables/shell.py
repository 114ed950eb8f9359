"""Run `artcafe tables` commands in this process."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from artcafe.cli.commands import artcafe


@dataclass(frozen=True)
class TablesResult:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """Return the error code printed by a command with --json."""
        code: str = json.loads(self.err.splitlines()[-1])["error"]["code"]
        return code


def run(*arguments: str | Path, **environ: str) -> TablesResult:
    """Run `artcafe tables` with arguments and ARTCAFE_ variables; others are unset."""
    others = dict.fromkeys(name for name in os.environ if name.startswith("ARTCAFE_"))
    result = CliRunner().invoke(artcafe, ["tables", *map(str, arguments)], env=others | environ)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return TablesResult(result.exit_code, result.stdout, result.stderr)
