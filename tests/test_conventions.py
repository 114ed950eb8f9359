"""Conventions that tools check: lint, types, import rules, and rules of this repository that no linter has."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "artcafe"
MODULES = sorted(SOURCE.rglob("*.py"))
TOOLS = Path(sys.executable).parent

LONGEST_FILE = 400
TABLES_OF_THEIR_OWN = {"errors.py": 1000}
"""Longer files that are one table, read by looking up a line."""
EMPTY_WORDS = {"utils", "helpers", "manager", "base", "common"}
STALE_ENDINGS = ("_v2", "_new", "_fixed")

# The places of `except Exception`, once each: the supervisors of a request and a connection. Background loops use
# `artcafe.supervision`, a context manager.
SUPERVISORS = {"rest/app.py", "gateway/connection.py"}

# Split, so that this file does not match itself.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:wor" + r"k|roo" + r"t)/\w")
REGISTRY_HOST = re.compile(r"\b(?:pypi|pythonhosted|npmjs)" + r"\.org\b")

WITHOUT_THE_SERVER = """
import runpy, sys
SERVER = (
    "aiobotocore botocore fastapi joserfc nats picows pydantic starlette structlog ulid uvicorn uvloop"
).split()
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in SERVER:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv = ["artcafe", "agent", "--help"]
from artcafe import Agent
runpy.run_module("artcafe", run_name="__main__", alter_sys=True)
"""


def run(*command: str | Path) -> str:
    """Run a command and return its output; fail the test with it if the command fails."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{command[0]} failed:\n{done.stdout}", pytrace=False)
    return done.stdout


def tracked_files() -> list[Path]:
    """Return the files that git tracks, or would with the next commit."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def dependencies() -> set[str]:
    """Return the name of every distribution in pyproject.toml, in any extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return {canonicalize_name(Requirement(each).name) for listed in lists for each in listed}


@pytest.mark.timeout(300)  # mypy without its cache takes a minute on two busy cores.
@pytest.mark.parametrize("command", ["ruff check", "ruff format --check", "mypy", "lint-imports --no-cache"])
def test_tools_of_make_check_pass(command: str) -> None:
    tool, *arguments = command.split()
    run(TOOLS / tool, *arguments)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_module_has_a_docstring_and_a_reasonable_length(module: Path) -> None:
    text = module.read_text()
    assert ast.get_docstring(ast.parse(text)), "the module has no docstring"
    assert len(text.splitlines()) <= TABLES_OF_THEIR_OWN.get(module.relative_to(SOURCE).as_posix(), LONGEST_FILE)


def test_module_has_a_specific_name() -> None:
    names = {part for module in MODULES for part in module.relative_to(SOURCE).with_suffix("").parts}
    assert not names & EMPTY_WORDS
    assert not [name for name in names if name.endswith(STALE_ENDINGS)]


def test_only_supervisors_catch_every_exception() -> None:
    found = [
        module.relative_to(SOURCE).as_posix()
        for module in MODULES
        for line in module.read_text().splitlines()
        if re.match(r"\s*except\b.*\bException\b", line)
    ]
    assert len(found) == len(set(found))
    assert set(found) <= SUPERVISORS


def test_lint_and_type_ignores_carry_a_reason() -> None:
    bare = re.compile(r"# (?:noqa: [A-Z0-9, ]+|type: ignore\[[\w, -]+\]|pragma: .*?)\s*$")
    files = [path for path in tracked_files() if path.suffix == ".py"]
    assert not [f"{path}: {line}" for path in files for line in path.read_text().splitlines() if bare.search(line)]


def test_committed_files_name_no_machine_path_or_registry() -> None:
    for path in tracked_files():
        text = path.read_text(errors="replace")
        assert not MACHINE_PATH.search(text), path
        assert not REGISTRY_HOST.search(text), path


def test_changelog_has_an_unreleased_section() -> None:
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text()


def pinned_by(lock: str) -> set[str]:
    """Return the distributions of a lock file, each of which must have a hash."""
    text = (ROOT / lock).read_text()
    pinned = dict(re.findall(r"^([\w.-]+)==\S+ \\\n(    --hash=sha256:[0-9a-f]{64})", text, re.MULTILINE))
    assert len(pinned) == len(re.findall(r"^[^\s#]", text, re.MULTILINE)), "a line of the lock has no hash"
    return set(pinned)


def test_lock_pins_every_dependency_by_hash() -> None:
    assert dependencies() <= pinned_by("requirements.lock")


def test_lock_of_the_frameworks_pins_every_one_by_hash() -> None:
    lines = (ROOT / "examples" / "frameworks" / "requirements.in").read_text().splitlines()
    wanted = {canonicalize_name(Requirement(line.partition("#")[0]).name) for line in lines if not line.startswith("#")}
    assert wanted <= pinned_by("examples/frameworks/requirements.lock")


def test_every_dependency_has_a_documented_reason() -> None:
    documented = set(re.findall(r"^\| `([\w.-]+)`", (ROOT / "docs" / "dependencies.md").read_text(), re.MULTILINE))
    assert dependencies() == documented


def test_sdk_runs_without_the_servers_libraries() -> None:
    run(sys.executable, "-c", WITHOUT_THE_SERVER)


def test_decision_records_are_numbered_consecutively() -> None:
    records = {path.name: path.read_text() for path in (ROOT / "docs" / "decisions").glob("0*.md")}
    assert [int(name[:4]) for name in sorted(records)] == list(range(1, len(records) + 1))
    assert [name for name, text in records.items() if not text.startswith(f"# {int(name[:4])}. ")] == []
