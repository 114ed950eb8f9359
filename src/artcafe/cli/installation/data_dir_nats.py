"""Connection to the NATS of a data folder: the running server's, or a nats-server started for the command."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from artcafe.config import Settings
from artcafe.data_dir import DataDir
from artcafe.errors import ArchiveRefused, FolderInUse, Unavailable
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.certificate import HOST, client_context
from artcafe.fabric.embedded.process import recorded
from artcafe.fabric.embedded.server import EmbeddedNats
from artcafe.fabric.fabric import Broker


@asynccontextmanager
async def connect_nats(settings: Settings, accounts: Accounts, say: Callable[[str], None]) -> AsyncIterator[Broker]:
    """Yield the NATS of the data folder: the running server's, or a nats-server that runs inside the context.

    Raises ArchiveRefused when secret or environment differ from the folder's, and Unavailable while a server is starting there.
    """
    conf = settings.data_dir / "nats" / "nats.conf"
    known = recorded(conf)
    if known is not None and known[0] != accounts.system_key:
        raise ArchiveRefused(
            f"the messages in {settings.data_dir} belong to another secret, or another environment than {settings.environment!r}",
            "set ARTCAFE_ENVIRONMENT and ARTCAFE_SECRET_FILE to the values of its server",
        )
    try:
        held = DataDir.acquire(settings.data_dir)
    except FolderInUse:
        if known is None:
            raise Unavailable(f"the server on {settings.data_dir}, which is still starting,") from None
        say(f"the server on {settings.data_dir} keeps running")
        yield Broker([f"tls://{HOST}:{known[1]}"], client_context(accounts), is_embedded=True)
        return
    try:
        async with run_nats(conf.parent, accounts) as broker:
            yield broker
    finally:
        held.release()


@asynccontextmanager
async def run_nats(folder: Path, accounts: Accounts) -> AsyncIterator[Broker]:
    """Run a nats-server on `folder` inside the context."""
    child = EmbeddedNats(folder, accounts)
    await child.start()
    try:
        yield Broker(child.urls, child.tls, is_embedded=True)
    finally:
        await child.stop()
