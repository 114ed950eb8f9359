"""docs/people.md, typed again in one shell: the emulator, the server, the people, and every answer."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from artcafe.fabric.embedded.process import some_free_port
from tests import ssh_keygen
from tests.conftest import Require

PAGE = (Path(__file__).parents[2] / "docs" / "people.md").read_text()
BIN = Path(sys.executable).parent
STORY_S = 55.0
"""For some thirty processes of Python, on a machine that is busy with other tests."""

PORTS = ("4566", "8080", "8081")
TYPED = re.compile(r"^    \$ (.*)\n((?:    (?!\$ ).*\n)*)", re.MULTILINE)
MARK = "-- typed "

SHORT = re.compile(r"(?P<short>[\w.:-]*?…\w*)|(?P<time>\d{4}-\d\d-\d\dT[\d:.]+Z)|(?P<space>\s+)")
"""The parts that differ each run: `ten_…J5QK` is one id throughout the page, `SHA256:…` any value."""


class Substitutions:
    """The values of the page's shortened words in this run."""

    def __init__(self) -> None:
        self._whole: dict[str, str] = {}

    def check(self, shown: str, printed: str) -> None:
        """Assert that the printed text matches the text on the page."""
        shorts: list[str] = []
        pattern, end = "", 0
        for found in SHORT.finditer(shown):
            pattern += re.escape(shown[end : found.start()]) + self._pattern(found, shorts)
            end = found.end()
        match = re.fullmatch(pattern + re.escape(shown[end:]), printed)
        assert match, f"the page has\n{shown}\nand now it prints\n{printed}"
        for short, whole in zip(shorts, match.groups(), strict=True):
            if not short.endswith("…"):
                assert self._whole.setdefault(short, whole) == whole, short

    def _pattern(self, found: re.Match[str], shorts: list[str]) -> str:
        if found["space"]:
            return r"\s+"
        if found["time"]:
            return r"\d{4}-\d\d-\d\dT[\d:.]+Z"
        if found["short"] in self._whole:
            return re.escape(self._whole[found["short"]])
        shorts.append(found["short"])
        return rf'({re.escape(found["short"].partition("…")[0])}[^\s",]+)'


@pytest.fixture(scope="module")
def page() -> str:
    """Return the page with free ports."""
    free = {port: str(some_free_port()) for port in PORTS}
    return re.sub("|".join(PORTS), lambda found: free[found[0]], PAGE)


def test_people_page_prints_what_it_shows(page: str, tmp_path: Path, require: Require) -> None:
    require("ssh-keygen", ssh_keygen.PRESENT)
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "watch.py").write_text(code)
    typed = TYPED.findall(page)
    assert len(typed) > 40
    lines = [f"echo; echo '{MARK}{number}'; {{ {command}\n}} 2>&1" for number, (command, _) in enumerate(typed)]
    script = "\n".join(["trap 'kill $(jobs -p); wait' EXIT", *lines, f"echo; echo '{MARK}end'", ""])
    printed = re.split(rf"^{MARK}\w+\n", run_in_one_shell(script, tmp_path), flags=re.MULTILINE)[1:-1]
    substitutions = Substitutions()
    for (_, shown), output in zip(typed, printed, strict=True):
        substitutions.check("".join(line[4:] for line in shown.splitlines(keepends=True)).strip(), output.strip())


def run_in_one_shell(script: str, folder: Path) -> str:
    """Return the output of the script, and end every process that it started."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ARTCAFE_", "AWS_"))}
    environ = kept | {"PATH": f"{BIN}{os.pathsep}{kept.get('PATH', '')}", "NO_PROXY": "127.0.0.1"}
    command = ["bash", "-c", script]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        ) as shell,
    ):
        try:
            printed, _ = shell.communicate(timeout=STORY_S)
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGTERM)
    assert shell.returncode == 0, (printed, (folder / "log").read_text()[-3000:])
    return printed
