"""Pages whose commands are typed again, in one shell, and whose output is compared with what the page shows."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

END: Final = "--- end of the output ---"
SHELL_S: Final = 90.0


async def type_page(name: str, names: Mapping[str, str], folder: Path) -> None:
    """Run the commands of a page of `docs` with these variables, and compare what they print."""
    page = (Path(__file__).parents[2] / "docs" / name).read_text()
    typed = re.findall(r"^    \$ (.*)\n((?:    (?!\$ ).*\n)*)", page, re.MULTILINE)
    script = "set -e -o pipefail\n" + "".join(f"{command}\necho '{END}'\n" for command, _ in typed)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, cwd=folder, env=os.environ | names, stdout=pipe, stderr=pipe
    )
    async with asyncio.timeout(SHELL_S):
        output, errors = await process.communicate()
    printed = output.decode().split(f"{END}\n")
    assert process.returncode == 0, errors.decode() + printed[-1]
    for (command, shown), text in zip(typed, printed[:-1], strict=True):
        assert _matches(shown, text), f"{command}\n{text}"


def _matches(shown: str, printed: str) -> bool:
    """Return whether a command printed these lines, in which `…` is any text."""
    lines = "".join(line.removeprefix("    ") for line in shown.splitlines(keepends=True))
    return re.fullmatch(".*?".join(re.escape(part) for part in lines.split("…")), printed) is not None
