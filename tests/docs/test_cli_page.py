from __future__ import annotations

import logging
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from artcafe.cli.commands import artcafe
from artcafe.cli.terminal import exit_codes
from tests.platform import Platform

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "cli.md").read_text()
BIN = Path(sys.executable).parent
TOLD = '; echo "exit $?"'
PROCESS_S = 30.0
"""For one process, on a machine that is busy with other tests."""

TYPED = re.findall(r"^    \$ (.*)\n((?:    (?!\$ ).*\n|\n(?=    (?!\$ )))*)", PAGE, re.MULTILINE)
"""What is typed on the page, and the lines that it printed."""

SHORT = re.compile(
    r"(?:\b(?:ten|agt|chn|msg|inv|key)_|artcafe-invitation\.)?…\w{4}|\b\d{4}-\d\d-\d\dT[\d:.]+Z|(?<=SHA256:)[\w+/]+…|\bAAAA\w+…|\s+"
)
"""What is not the same each time, and what a shortened id leaves of the space around it."""

NAMED = ("ten_", "agt_", "chn_", "msg_", "inv_", "key_", "artcafe-invitation.")
"""What stands for one thing throughout the page."""


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name in group.list_commands(click.Context(group)):
        found = group.get_command(click.Context(group), name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from commands(found, *path, name)
        else:
            yield (*path, name), found


COMMANDS = dict(commands(artcafe))


# --- the day ---------------------------------------------------------------------------------------------------------------


class Day:
    """The page, typed again: what is short on it stands for what was printed this time."""

    def __init__(self) -> None:
        self.meant: dict[str, str] = {}

    def type(self, command: str) -> str:
        """What the command prints, on either stream. Most run in this process: a process for each would take a minute."""
        for short, whole in self.meant.items():
            command = command.replace(short, whole)
        plain = command.removesuffix(TOLD).removesuffix(" </dev/null")
        if not plain.startswith("artcafe ") or set("|$") & set(plain):
            shell = subprocess.run(
                ["bash", "-c", command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                check=False,
                timeout=PROCESS_S,
            )
            return shell.stdout
        result = CliRunner().invoke(artcafe, shlex.split(plain)[1:])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.output + (f"exit {result.exit_code}\n" if command.endswith(TOLD) else "")

    def check(self, shown: str, printed: str) -> None:
        """Whether what the page shows is what was printed, but for what differs each time."""
        shorts: list[str] = []

        def as_pattern(found: re.Match[str]) -> str:
            if found[0].isspace():
                return r"\s+"
            known = self.meant.get(found[0])
            if known is not None:
                return re.escape(known)
            shorts.append(found[0])
            return r"(\S+?)"

        pattern = ""
        end = 0
        for found in SHORT.finditer(shown):
            pattern += re.escape(shown[end : found.start()]) + as_pattern(found)
            end = found.end()
        match = re.fullmatch(pattern + re.escape(shown[end:]), printed)
        assert match, f"the page has\n{shown}\nand now it prints\n{printed}"
        for short, whole in zip(shorts, match.groups(), strict=True):
            if short.startswith(NAMED):
                assert self.meant.setdefault(short, whole) == whole


@pytest.fixture
def day(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Day]:
    """A terminal as the page has it, of a user who has never been here."""
    for name in [name for name in os.environ if name.startswith("ARTCAFE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ARTCAFE_DATA_DIR", str(platform.data))
    monkeypatch.setenv("ARTCAFE_URL", platform.url)
    monkeypatch.setenv("LOGNAME", "alice")
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}")
    monkeypatch.chdir(tmp_path)
    log = logging.getLogger("artcafe")
    before = (list(log.handlers), log.propagate)
    yield Day()
    log.handlers[:], log.propagate = before


def test_the_day_is_as_the_page_has_it(day: Day) -> None:
    assert len(TYPED) > 20
    for command, shown in TYPED:
        day.check("".join(f"{line[4:]}\n" for line in shown.splitlines()), day.type(command))


# --- what the page names ---------------------------------------------------------------------------------------------------


def path_of(words: list[str]) -> tuple[str, ...]:
    """The command that a line begins with."""
    return next((tuple(words[:length]) for length in (3, 2, 1) if tuple(words[:length]) in COMMANDS), ())


@pytest.mark.parametrize("name", ["cli.md", "backup.md", "people.md"])
def test_every_command_that_a_page_names_exists_and_has_the_options_it_names(name: str) -> None:
    page = (DOCS / name).read_text()
    named = re.findall(r"^    \$ (artcafe .*)$", page, re.MULTILINE) + re.findall(r"`(artcafe [^`]+)`", page)
    assert named
    for line in named:
        words = re.split(r"[\s\[\];|<]+", line)[1:]
        path = path_of(words)
        assert path, f"there is no {line!r}"
        options = {option for each in COMMANDS[path].params for option in (*each.opts, *each.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= options, line


def test_every_command_is_in_the_table_with_its_arguments() -> None:
    rows = [row.split() for row in re.findall(r"^\| `artcafe ([^`]+)` \|", PAGE, re.MULTILINE)]
    assert {path_of(row): row[len(path_of(row)) :] for row in rows} == {
        path: [each.make_metavar(click.Context(found)) for each in found.params if isinstance(each, click.Argument)]
        for path, found in COMMANDS.items()
    }


def test_every_exit_code_is_told() -> None:
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert codes == {0, *(value for name, value in vars(exit_codes).items() if name.isupper())}
