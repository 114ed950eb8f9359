"""docs/cli.md: its commands print what it shows, and its tables match the commands and exit codes."""

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
ECHO_EXIT_CODE = '; echo "exit $?"'
PROCESS_S = 30.0
"""For one process, on a machine that is busy with other tests."""

TYPED = re.findall(r"^    \$ (.*)\n((?:    (?!\$ ).*\n|\n(?=    (?!\$ )))*)", PAGE, re.MULTILINE)
"""The commands on the page, and the lines that they print."""

SHORT = re.compile(
    r"(?:\b(?:ten|agt|chn|msg|inv|key)_|artcafe-invitation\.)?…\w{4}|\b\d{4}-\d\d-\d\dT[\d:.]+Z|(?<=SHA256:)[\w+/]+…|\bAAAA\w+…|\s+"
)
"""The parts that differ each run, with the space around a shortened id."""

PREFIXES = ("ten_", "agt_", "chn_", "msg_", "inv_", "key_", "artcafe-invitation.")
"""Prefixes of words that have one value throughout the page."""


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name in group.list_commands(click.Context(group)):
        found = group.get_command(click.Context(group), name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from commands(found, *path, name)
        else:
            yield (*path, name), found


COMMANDS = dict(commands(artcafe))


# --- the session ---------------------------------------------------------------------------------------------------------------


class TerminalSession:
    """Types the page's commands, and replaces its shortened words with the values of this run."""

    def __init__(self) -> None:
        self.substitutions: dict[str, str] = {}

    def type(self, command: str) -> str:
        """Return what the command prints on both streams. Most commands run in this process: a process for each would take a
        minute."""
        for short, whole in self.substitutions.items():
            command = command.replace(short, whole)
        plain = command.removesuffix(ECHO_EXIT_CODE).removesuffix(" </dev/null")
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
        return result.output + (f"exit {result.exit_code}\n" if command.endswith(ECHO_EXIT_CODE) else "")

    def check(self, shown: str, printed: str) -> None:
        """Assert that the printed text matches the text on the page, except the parts that differ each run."""
        shorts: list[str] = []

        def as_pattern(found: re.Match[str]) -> str:
            if found[0].isspace():
                return r"\s+"
            known = self.substitutions.get(found[0])
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
            if short.startswith(PREFIXES):
                assert self.substitutions.setdefault(short, whole) == whole


@pytest.fixture
def session(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TerminalSession]:
    """Return a terminal session as on the page, for a user without any tenant."""
    for name in [name for name in os.environ if name.startswith("ARTCAFE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ARTCAFE_DATA_DIR", str(platform.data))
    monkeypatch.setenv("ARTCAFE_URL", platform.url)
    monkeypatch.setenv("LOGNAME", "alice")
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}")
    monkeypatch.chdir(tmp_path)
    log = logging.getLogger("artcafe")
    before = (list(log.handlers), log.propagate)
    yield TerminalSession()
    log.handlers[:], log.propagate = before


def test_command_line_page_prints_what_it_shows(session: TerminalSession) -> None:
    assert len(TYPED) > 20
    for command, shown in TYPED:
        session.check("".join(f"{line[4:]}\n" for line in shown.splitlines()), session.type(command))


# --- commands, options and exit codes ---------------------------------------------------------------------------------------


def path_of(words: list[str]) -> tuple[str, ...]:
    """Return the command at the beginning of a line, as a path of words."""
    return next((tuple(words[:length]) for length in (3, 2, 1) if tuple(words[:length]) in COMMANDS), ())


@pytest.mark.parametrize("name", ["cli.md", "backup.md", "people.md"])
def test_every_command_on_a_page_exists_with_its_options(name: str) -> None:
    page = (DOCS / name).read_text()
    named = re.findall(r"^    \$ (artcafe .*)$", page, re.MULTILINE) + re.findall(r"`(artcafe [^`]+)`", page)
    assert named
    for line in named:
        words = re.split(r"[\s\[\];|<]+", line)[1:]
        path = path_of(words)
        assert path, f"there is no {line!r}"
        options = {option for each in COMMANDS[path].params for option in (*each.opts, *each.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= options, line


def test_table_has_every_command_with_its_arguments() -> None:
    rows = [row.split() for row in re.findall(r"^\| `artcafe ([^`]+)` \|", PAGE, re.MULTILINE)]
    assert {path_of(row): row[len(path_of(row)) :] for row in rows} == {
        path: [each.make_metavar(click.Context(found)) for each in found.params if isinstance(each, click.Argument)]
        for path, found in COMMANDS.items()
    }


def test_table_has_every_exit_code() -> None:
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert codes == {0, *(value for name, value in vars(exit_codes).items() if name.isupper())}
