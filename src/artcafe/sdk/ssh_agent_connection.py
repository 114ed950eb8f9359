"""Where ssh-agent listens, and the connection to it: a Unix socket, or the named pipe of OpenSSH for Windows."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamReaderProtocol, StreamWriter
from collections.abc import Mapping
from typing import Final

from artcafe.errors import KeyUnusable

PIPES: Final = "\\\\.\\pipe\\"
OPENSSH_PIPE: Final = PIPES + "openssh-ssh-agent"
"""The pipe of the service `ssh-agent`, which is part of Windows."""


def address(platform: str, environ: Mapping[str, str]) -> str | None:
    """Return where ssh-agent listens on a platform (`sys.platform`): the address of SSH_AUTH_SOCK, or on Windows the pipe of its
    service. None if there is none. Raises `KeyUnusable` for a Unix socket on Windows."""
    named = environ.get("SSH_AUTH_SOCK") or None
    if platform != "win32":
        return named
    if named is not None and not named.replace("/", "\\").startswith(PIPES):
        raise KeyUnusable(
            f"SSH_AUTH_SOCK names a Unix socket ({named}), which Python cannot open on Windows: unset it, to use the service"
            f" ssh-agent at {OPENSSH_PIPE}, or name the private key file"
        )
    return named or OPENSSH_PIPE


async def connect(at: str) -> tuple[StreamReader, StreamWriter]:
    """Open a connection to an ssh-agent. Raises OSError, and `KeyUnusable` on an event loop without named pipes."""
    if not at.replace("/", "\\").startswith(PIPES):
        return await asyncio.open_unix_connection(at)
    loop = asyncio.get_running_loop()
    open_pipe = getattr(loop, "create_pipe_connection", None)  # Only asyncio's own loop for Windows has it.
    if open_pipe is None:
        raise KeyUnusable(
            f"this event loop ({type(loop).__name__}) opens no named pipe, and so not ssh-agent at {at}: use asyncio.run with its"
            " default loop on Windows, or name the private key file"
        )
    reader = StreamReader(loop=loop)
    protocol = StreamReaderProtocol(reader, loop=loop)
    try:
        transport, _ = await open_pipe(lambda: protocol, at)
    except FileNotFoundError as exc:
        raise KeyUnusable(
            f"no ssh-agent listens at {at}: start the Windows service (Start-Service ssh-agent) and ssh-add the key, or name the"
            " private key file"
        ) from exc
    return reader, StreamWriter(transport, protocol, reader, loop)
