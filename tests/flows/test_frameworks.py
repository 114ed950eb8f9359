"""The examples of docs/frameworks.md: each recipe in its framework, the notebook and the synchronous program, on one server."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.children import plain_environ, started_with_parent
from tests.conftest import Require
from tests.platform import Cast, Platform
from tests.ssh_keygen import make_key

ROOT: Final = Path(__file__).parents[2]
EXAMPLES: Final = ROOT / "examples"
FRAMEWORKS: Final = ROOT / ".venv-frameworks"
"""What `make frameworks` makes."""
RECIPES: Final = sorted(path.stem for path in (EXAMPLES / "frameworks").glob("*_recipe.py"))
AT_ONCE: Final = 2
"""A framework takes seconds of a processor to import."""
RUN_S: Final = 120.0


def has_frameworks() -> bool:
    """Return whether the frameworks of the current lock are installed."""
    locks = FRAMEWORKS / "requirements.lock", EXAMPLES / "frameworks" / "requirements.lock"
    return locks[0].exists() and locks[0].read_bytes() == locks[1].read_bytes()


@pytest.fixture
def frameworks(require: Require) -> Path:
    """Return the folder of the environment's programs."""
    require("the environment of `make frameworks` for the current examples/frameworks/requirements.lock", has_frameworks())
    return FRAMEWORKS / "bin"


@asynccontextmanager
async def researcher(platform: Platform, folder: Path, *names: str) -> AsyncIterator[Cast]:
    """Make a tenant with agents of these names, whose keys are in `folder`, and run examples/researcher.py."""
    cast = await platform.tenant_with(agents=0, channels=0)
    async with cast.rest() as rest:
        tenant = rest.tenant(cast.tenant)
        await tenant.channels.create("news")
        for name in ("researcher", *names):
            public_key = make_key(folder / name).with_suffix(".pub").read_text()
            await tenant.agents.create(name, public_key, capabilities=["research"] if name == "researcher" else [])
        environ = environ_of(cast, "researcher")
        process = started_with_parent([sys.executable, EXAMPLES / "researcher.py"], cwd=folder, env=environ)
        try:
            async with asyncio.timeout(RUN_S):
                while not [each async for each in tenant.agents.list(connected=True)]:
                    assert process.poll() is None
                    await asyncio.sleep(0.1)
            yield cast
        finally:
            process.terminate()
            assert await asyncio.to_thread(process.wait, 30) == 0


def environ_of(cast: Cast, agent: str) -> dict[str, str]:
    """Return the variables of an agent whose key is in the current folder."""
    names = {"URL": cast.url, "TENANT": cast.tenant, "AGENT": agent, "KEY": agent}
    ours = {f"ARTCAFE_{name}": value for name, value in names.items()}
    return plain_environ() | ours | {"PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"}


async def output_of(command: Sequence[str | Path], folder: Path, environ: dict[str, str]) -> str:
    """Run a program to its end, and return what it prints."""
    process = started_with_parent(command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, err = await asyncio.to_thread(process.communicate, None, RUN_S)
    finally:
        process.kill()
    assert process.returncode == 0, f"{command}\n{err.decode()[-5000:]}"
    return out.decode()


async def published(cast: Cast) -> list[tuple[str, Any]]:
    """Return the senders and the data of the messages in `news`."""
    async with cast.rest() as rest:
        return [(each.sender, each.data) async for each in rest.tenant(cast.tenant).messages.list("news")]


@pytest.mark.timeout(6 * RUN_S + 60)
async def test_model_of_each_framework_finds_asks_publishes_and_pulls(
    platform_on_a_file: Platform, tmp_path: Path, frameworks: Path
) -> None:
    assert len(RECIPES) == 6
    names = {recipe: recipe.removesuffix("_recipe").replace("_", "-") for recipe in RECIPES}
    turns = asyncio.Semaphore(AT_ONCE)
    printed = dict[str, str]()

    async def run(recipe: str, cast: Cast) -> None:
        command: list[str | Path] = [frameworks / "python", "-m", f"examples.frameworks.{recipe}"]
        async with turns:
            printed[recipe] = await output_of(command, tmp_path, environ_of(cast, names[recipe]))

    async with researcher(platform_on_a_file, tmp_path, *names.values()) as cast:
        async with asyncio.TaskGroup() as group:
            for recipe in RECIPES:
                group.create_task(run(recipe, cast))
        assert sorted(await published(cast), key=str) == [(name, {"papers": 42}) for name in sorted(names.values())]
    for recipe, text in printed.items():
        for result in ("['research']", "'papers': 42", "'message_id': 'msg_", "'channel_not_found'", "'source': 'the archive'"):
            assert result in text.replace("\\", "").replace('"', "'"), f"{recipe} printed no {result}:\n{text}"
        assert "done" in text.splitlines()[-1]


@pytest.mark.timeout(3 * RUN_S)
async def test_agent_lives_across_the_cells_of_the_notebook(
    platform_on_a_file: Platform, tmp_path: Path, frameworks: Path
) -> None:
    notebook = tmp_path / "artcafe.ipynb"
    shutil.copy(EXAMPLES / "notebook" / "artcafe.ipynb", notebook)
    async with researcher(platform_on_a_file, tmp_path, "writer") as cast:
        environ = environ_of(cast, "writer") | {"HOME": str(tmp_path)}  # Jupyter writes there.
        await output_of([frameworks / "jupyter", "execute", "--inplace", notebook], tmp_path, environ)
        assert await published(cast) == [("writer", {"papers": 42})]
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    shown = ["".join(output["data"]["text/plain"]) for cell in cells for output in cell["outputs"]]
    answers = ["'connected'", "{'papers': 42}", "False", "('researcher', {'source': 'the archive'})", "'closed'"]
    assert shown == answers


def test_notebook_is_stored_without_outputs() -> None:
    cells = json.loads((EXAMPLES / "notebook" / "artcafe.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert [(cell["outputs"], cell["execution_count"]) for cell in code] == [([], None)] * len(code)


async def test_synchronous_program_asks_publishes_and_receives(platform_on_a_file: Platform, tmp_path: Path) -> None:
    async with researcher(platform_on_a_file, tmp_path, "writer") as cast:
        text = await output_of([sys.executable, EXAMPLES / "synchronous.py"], tmp_path, environ_of(cast, "writer"))
        assert await published(cast) == [("writer", {"papers": 42})]
    assert re.fullmatch(r"published as msg_\w+: {'papers': 42}\nfrom researcher: {'source': 'the archive'}\n", text)
