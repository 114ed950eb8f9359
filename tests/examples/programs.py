"""Starts the programs of `examples/`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests import ssh_keygen
from tests.children import plain_environ
from tests.docs.executed_page import BIN
from tests.platform import Cast

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
BOUND_S: Final = 60.0


def environ_of(cast: Cast, **more: str) -> dict[str, str]:
    """Return the environment of a program in the cast's tenant."""
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    given = {"ARTCAFE_URL": cast.url, "ARTCAFE_TENANT": cast.tenant, "NO_PROXY": "127.0.0.1", "PYTHONUNBUFFERED": "1"}
    return plain_environ() | given | {"PATH": path} | more


async def register(cast: Cast, folder: Path, *handles: str) -> None:
    """Register agents with keys in the folder, named like them."""
    async with cast.rest() as client:
        for handle in handles:
            key = ssh_keygen.make_key(folder / handle)
            await client.tenant(cast.tenant).agents.create(handle, ssh_keygen.public_line(key))


@asynccontextmanager
async def program(folder: Path, environ: dict[str, str], *command: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program until this block is left."""
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=environ, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(BOUND_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
