"""Pages of the manual whose code blocks are executed, in one shell for each page.

A fenced block is one of these:

- `sh`: commands, run in order. The shell ends at the first that fails.
- `text` with the title "Output": what the block of commands before it prints, in which `…` is any text, and spaces any
  number of spaces.
- any language with another title: a file of this name, written before the commands run.
- marked by a comment on the line above it: `<!-- not run: REASON -->`, or `<!-- tested by PATH -->`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from artcafe.fabric.embedded.process import some_free_port
from tests.children import plain_environ
from tests.forked_command import forked_artcafe
from tests.platform import Platform

DOCS: Final = Path(__file__).parents[2] / "docs"
BIN: Final = Path(sys.executable).parent
SHELL_S: Final = 110.0
"""For twenty processes of Python, on a machine that is busy with other tests."""

END: Final = "--- end of the block ---"
FENCE: Final = re.compile(r"(?:^<!-- ([^\n]+) -->\n)?^```(\w*)(?: title=\"([^\"\n]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARKS: Final = ("not run: ", "tested by ")
OUTPUT: Final = "Output"


@dataclass(frozen=True)
class Block:
    """A fenced block. `mark`: the comment on the line above it."""

    mark: str | None
    language: str
    title: str | None
    text: str

    @property
    def is_marked(self) -> bool:
        return self.mark is not None and self.mark.startswith(MARKS)

    @property
    def is_commands(self) -> bool:
        return self.language == "sh" and self.title is None and not self.is_marked

    @property
    def is_output(self) -> bool:
        return self.language == "text" and self.title == OUTPUT and not self.is_marked

    @property
    def is_file(self) -> bool:
        return self.title not in (None, OUTPUT) and not self.is_marked


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    return [Block(*found.groups()) for found in FENCE.finditer(page.read_text())]


def run_page(page: Path, platform: Platform, folder: Path) -> None:
    """Run the commands of a page against a server, and compare what they print with what the page shows.

    The addresses of the page are replaced: 8080 and 8081 by those of the server, any other port by a free one.
    """
    blocks = blocks_of(page)
    places = _places("".join(block.text for block in blocks), platform)
    for block in blocks:
        if block.is_file and block.title is not None:
            (folder / block.title).write_text(_placed(block.text, places))
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").touch()  # The environment below does what it does.
    commands = [_placed(block.text, places) for block in blocks if block.is_commands]
    with tempfile.TemporaryDirectory(prefix="bin") as short, forked_artcafe(Path(short)) as command:
        printed = _run(commands, _environ(platform, page, command), folder)
    for shown, output in zip(_shown(blocks), printed, strict=True):
        if shown is not None:
            assert _matches(shown, output), f"{page.name} shows\n{shown}\nand its commands print\n{output}"


def _places(text: str, platform: Platform) -> dict[str, str]:
    known = {"8080": platform.url.rpartition(":")[2], "8081": platform.gateway_url.split(":")[2].partition("/")[0]}
    ports = set(re.findall(r"127\.0\.0\.1:(\d+)", text)) - known.keys()
    return known | {port: str(some_free_port()) for port in sorted(ports)}


def _placed(text: str, places: Mapping[str, str]) -> str:
    return re.sub(r"127\.0\.0\.1:(\d+)", lambda found: f"127.0.0.1:{places[found[1]]}", text)


def _environ(platform: Platform, page: Path, command: Path) -> dict[str, str]:
    """Return the environment of a terminal, as a person who is in no tenant yet. `command`: the folder of `artcafe`."""
    environ = plain_environ()
    path = os.pathsep.join((str(command), str(BIN), environ.get("PATH", "")))
    person = {"ARTCAFE_DATA_DIR": str(platform.data), "ARTCAFE_USER": f"{page.stem}@example.com"}
    return environ | person | {"PATH": path, "NO_PROXY": "127.0.0.1", "PYTHONUNBUFFERED": "1"}


def _run(commands: list[str], environ: Mapping[str, str], folder: Path) -> list[str]:
    """Return the output of each block of commands. End every process that they started."""
    script = "set -euxo pipefail\n" + "".join(f"{block}echo '{END}'\n" for block in commands)
    with (
        (folder / "errors.log").open("w+") as errors,
        subprocess.Popen(
            ["bash", "-c", script],
            cwd=folder,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        ) as shell,
    ):
        try:
            printed, _ = shell.communicate(timeout=SHELL_S)
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGKILL)
        assert shell.returncode == 0, printed + (folder / "errors.log").read_text()[-3000:]
    return printed.split(f"{END}\n")[:-1]


def _shown(blocks: list[Block]) -> list[str | None]:
    """Return the output that the page shows for each block of commands, or None."""
    shown: list[str | None] = []
    for block in blocks:
        if block.is_commands:
            shown.append(None)
        elif block.is_output:
            shown[-1] = block.text
    return shown


def _matches(shown: str, printed: str) -> bool:
    """Return whether a command printed this, in which `…` is any text, and spaces are any number of spaces."""
    words = [re.escape(word).replace("…", ".*?") for word in shown.split()]
    return re.fullmatch(r"\s+".join(words), printed.strip(), re.DOTALL) is not None
