"""The parsers of untrusted input, under libFuzzer: for a minute each with --faults, and briefly in every run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from artcafe.wire import frames
from tests import ssh_keygen
from tests.faults.fuzz import KEY, PARSERS

MINUTE_S: Final = 60
MOMENT_RUNS: Final = 3000
ROOT: Final = Path(__file__).parents[2]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Return valid inputs for libFuzzer to start from: a key, a signature, commands."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    key = ssh_keygen.make_key(tmp_path / "key")
    texts = [KEY, ssh_keygen.public_line(key), ssh_keygen.sign(key, b"a message")]
    commands = [
        frames.command("challenge", frames.Challenge("ten_1", "agt_1"), 1),
        frames.command("subscribe", frames.Subscribe("chn_1"), 2),
        frames.command("ack", frames.Ack("chn_1", 5)),
    ]
    for number, text in enumerate([*(text.encode() for text in texts), *commands, b"\n".join(commands)]):
        (folder / str(number)).write_bytes(text)
    return folder


def fuzz(parser: str, corpus: Path, limit: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.faults.fuzz", parser, limit, "-print_final_stats=1", "-max_len=4096", str(corpus)]
    environ = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    return subprocess.run(command, cwd=corpus.parent, env=environ, capture_output=True, text=True, timeout=300, check=False)


def fuzzed(parser: str, corpus: Path, limit: str) -> int:
    """Return the number of inputs that the parser processed without a failure."""
    done = fuzz(parser, corpus, limit)
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    assert found is not None, done.stderr[-3000:]
    return int(found[1])


@pytest.mark.parametrize("parser", PARSERS)
def test_parser_does_not_fail_at_once(parser: str, corpus: Path) -> None:
    assert fuzzed(parser, corpus, f"-runs={MOMENT_RUNS}") >= MOMENT_RUNS


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.parametrize("parser", PARSERS)
def test_parser_does_not_fail_in_a_minute(parser: str, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = fuzzed(parser, corpus, f"-max_total_time={MINUTE_S}")
    with capsys.disabled():
        print(f"\n{parser}: {count:,} texts in {MINUTE_S} s")  # noqa: T201 (the figure of docs/faults.md)
    assert count > MOMENT_RUNS


def test_fuzzer_finds_a_planted_fault(corpus: Path) -> None:
    """The control: a parser with a planted fault must be found."""
    done = fuzz("planted", corpus, f"-runs={100 * MOMENT_RUNS}")
    assert done.returncode != 0
    assert "AssertionError: planted" in done.stderr + done.stdout
