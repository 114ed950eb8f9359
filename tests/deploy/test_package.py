"""The distributions: what the index shows, what they contain, that they are built alike, and what they do once installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.release import notices
from tests.children import plain_environ
from tests.conftest import Require
from tests.deploy.tools import DEPLOY, PLACES, ROOT, find, program, run
from tests.platform import running

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGE = (ROOT / "docs" / "package.md").read_text()
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CONSOLE = ROOT / "src" / "artcafe" / "console" / "static"


def test_page_for_the_index_has_the_readmes_story_and_no_link_that_the_index_cannot_follow() -> None:
    assert PROJECT["readme"] == "docs/package.md"
    assert re.findall(r"\]\((?!https://)", PAGE) == []
    story = two_agents(PAGE)
    assert story in (ROOT / "README.md").read_text()
    assert set(re.findall(r"artcafe\[(\w+)\]", PAGE)) <= PROJECT["optional-dependencies"].keys()


def two_agents(page: str) -> str:
    """Return the commands that make two agents of a tenant, and send a message from one to the other."""
    (found,) = re.findall(r"^    export ARTCAFE_URL=\S+ ARTCAFE_TENANT=.*?^    EOF\n", page, re.MULTILINE | re.DOTALL)
    return str(found)


def test_workflows_follow_their_schema(require: Require) -> None:
    require("check-jsonschema", find("check-jsonschema") is not None)
    assert WORKFLOWS
    run(program("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)


def test_workflows_name_actions_by_commit() -> None:
    used = [each for workflow in WORKFLOWS for each in re.findall(r"^ +- uses: (.+)$", workflow.read_text(), re.MULTILINE)]
    assert used
    assert [each for each in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", each)] == []


def test_bundle_of_the_console_has_a_notice_for_each_package() -> None:
    text = (CONSOLE / "licenses.txt").read_text()
    assert "preact" in notices.bundled(ROOT / "console")
    assert notices.missing(ROOT / "console", text) == []
    assert notices.missing(ROOT / "console", text.replace("preact", "p")) == ["@preact/signals", "@preact/signals-core", "preact"]


def test_notice_needs_the_licence_of_the_installed_package(tmp_path: Path) -> None:
    packages = {"": {}, "node_modules/@a/b": {}, "node_modules/tool": {"dev": True}, "node_modules/c/node_modules/d": {}}
    (tmp_path / "package-lock.json").write_text(json.dumps({"packages": packages}))
    (tmp_path / "node_modules" / "@a" / "b").mkdir(parents=True)
    (tmp_path / "node_modules" / "@a" / "b" / "LICENSE").write_text("Permission\nis granted")
    assert notices.missing(tmp_path, "@a/b\n\nPermission is\ngranted\n\nd@1.0\n") == []
    assert notices.missing(tmp_path, "@a/b\n\nsee the package\n\nd\n") == ["@a/b"]
    assert notices.missing(tmp_path, "tool\n") == ["@a/b", "d"]


@dataclass(frozen=True)
class Distributions:
    """The files of one build."""

    source: Path
    wheel: Path


def build(folder: Path) -> Distributions:
    """Build both as `make dist` does, with the tools of `make kit`, under an unusual umask."""
    python = PLACES[0] / "python"
    run("bash", "-c", f"umask 077; exec {python} deploy/release/dist.py {folder}")
    (source,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return Distributions(source, wheel)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, require: Require) -> Distributions:
    require("make kit", (PLACES[0] / "python").exists())
    return build(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def installed(made: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of programs of a new environment with the wheel and its extra for servers, in the image's versions."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", folder)
    pip: list[str | Path] = [
        folder / "bin" / "python",
        "-m",
        "pip",
        "install",
        "-qq",
        "--disable-pip-version-check",
        "--no-compile",
    ]
    run(*pip, "--constraint", DEPLOY / "docker" / "server.lock", "--require-hashes", "-r", DEPLOY / "docker" / "server.lock")
    run(*pip, "--no-index", f"artcafe[server] @ file://{made.wheel}")
    run(folder / "bin" / "python", "-m", "pip", "check")
    return folder / "bin"


@pytest.mark.kit
@pytest.mark.timeout(600)
def test_two_builds_are_equal_byte_for_byte(made: Distributions, tmp_path: Path) -> None:
    again = build(tmp_path / "again")
    assert again.source.read_bytes() == made.source.read_bytes()
    assert again.wheel.read_bytes() == made.wheel.read_bytes()


@pytest.mark.kit
def test_source_distribution_contains_what_git_tracks(made: Distributions) -> None:
    with tarfile.open(made.source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if name.partition("/")[2]}
        assert {(member.mtime, member.uname) for member in archive.getmembers()} == {(archive.getmembers()[0].mtime, "")}
    assert set(run("git", "ls-files").splitlines()) - names == set()


@pytest.mark.kit
@pytest.mark.timeout(600)
def test_wheel_of_the_source_distribution_has_the_contents_of_one_of_the_tree(made: Distributions, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    run("bash", "-c", f"git ls-files -z | xargs -0 cp --parents -t {tree}")
    run(PLACES[0] / "python", "-m", "build", "--no-isolation", "--wheel", "-o", tmp_path, tree)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(made.wheel) as other:
        assert {name: one.read(name) for name in one.namelist()} == {name: other.read(name) for name in other.namelist()}


@pytest.mark.kit
def test_wheel_contains_the_package_alone_and_all_of_it(made: Distributions) -> None:
    with zipfile.ZipFile(made.wheel) as archive:
        names = set(archive.namelist())
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"artcafe"}
    tracked = {name.removeprefix("src/") for name in run("git", "ls-files", "src/artcafe").splitlines()}
    assert tracked - names == set()


@pytest.mark.kit
def test_twine_accepts_what_the_index_would_show(made: Distributions) -> None:
    assert run(program("twine"), "check", "--strict", made.source, made.wheel).count("PASSED") == 2


@pytest.mark.kit
def test_list_of_components_names_each_package_of_the_image_with_its_hashes(tmp_path: Path) -> None:
    lock = (DEPLOY / "docker" / "server.lock").read_text()
    target = tmp_path / "sbom.json"
    command: list[str | Path] = [
        program("cyclonedx-py"),
        "requirements",
        DEPLOY / "docker" / "server.lock",
        "--pyproject",
        ROOT / "pyproject.toml",
    ]
    run(*command, "--output-reproducible", "--of", "JSON", "-o", target)
    told = json.loads(target.read_text())
    assert told["bomFormat"] == "CycloneDX"
    assert told["metadata"]["component"]["name"] == "artcafe"
    named = {f"{each['name']}=={each['version']}" for each in told["components"]}
    assert named == set(re.findall(r"^([\w.-]+==[^\s;]+)", lock, re.MULTILINE))
    assert all(each["externalReferences"][0]["hashes"] for each in told["components"])


@pytest.mark.kit
@pytest.mark.timeout(600)
def test_installed_wheel_tells_the_readmes_story(installed: Path, tmp_path: Path) -> None:
    with running(tmp_path, python=installed / "python") as platform:
        environ = {
            **plain_environ(),
            "PATH": f"{installed}{os.pathsep}{os.environ['PATH']}",
            "ARTCAFE_DATA_DIR": str(platform.data),
        }
        environ.pop("PYTHONPATH", None)
        story = re.sub(r"^    ", "", two_agents(PAGE), flags=re.MULTILINE).replace("http://127.0.0.1:8080", platform.url)
        where = run(installed / "python", "-c", "import artcafe; print(artcafe.__file__)", cwd=tmp_path, env=environ)
        assert Path(where).is_relative_to(installed.parent)
        done = subprocess.run(
            ["bash", "-euc", story], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "{'hello': 'world'}"
