"""Every operation of the REST API has a method of the client.

Each method is called with the name of a path's parameter as its value, so that the path of its request is that of the operation.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Final, cast

from artcafe.errors import AgentNotFound
from artcafe.rest.app import Services, build
from artcafe.sdk.client import Client
from artcafe.sdk.pull import PullInbox
from artcafe.sdk.tenant_calls import TenantCalls
from artcafe.sdk.tenant_client import TenantClient
from tests.rest.rest_app import SETTINGS

OPERATIONS: Final = {
    f"{method.upper()} {path.replace('{', '').replace('}', '')}"
    for path, operations in build(cast("Services", None), SETTINGS).openapi()["paths"].items()
    for method in operations
}
CONSOLE: Final = "POST /v1/auth/console-tokens"
"""For the console's page, which has no token yet."""
IDS: Final = {
    "tenant": "tenant_id",
    "agent": "agent_id",
    "channel": "channel_id",
    "user": "user_id",
    "invitation": "invitation_id",
    "chain": "chain_id",
    "id": "key_id",
    "message_id": "message_id",
    "seq": "seq",
}
CHALLENGE: Final = f"artcafe login 1 service=s tenant=tenant_id agent=agent_id challenge=c nonce={'0' * 64} expires=x"


class PlainSigner:
    """Signs with nothing: the server below accepts no login."""

    public_key = "ssh-ed25519 AAAA"

    async def sign(self, challenge: str) -> str:
        return challenge


class Requests:
    """A server that collects `METHOD /path` of each request, and finds nothing but challenges."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split(maxsplit=2)
        length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0] or 0)
        await reader.readexactly(length)
        path = target.partition("?")[0]
        self.seen.add(f"{method} {path}")
        status, body = "404 Not Found", {"code": "agent_not_found", "detail": "nothing is here"}
        if path == "/v1/auth/challenges":
            status, body = "201 Created", {"challenge_id": "c", "challenge": CHALLENGE, "expires_at": "2026-11-29T00:00:00Z"}
        text = json.dumps(body)
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode())
        writer.close()


def argument(parameter: inspect.Parameter) -> object:
    """Return a value for a required parameter: the name of an id in a path, or text."""
    return PlainSigner() if parameter.annotation == "Signer | str | Path" else IDS.get(parameter.name, parameter.name)


async def call_all(calls: object) -> None:
    """Call every public method of an object, and of those that it has or returns."""
    for name, member in inspect.getmembers(calls):
        if isinstance(member, TenantCalls):
            await call_all(member)
        elif inspect.ismethod(member) and not name.startswith("_"):
            parameters = inspect.signature(member).parameters.values()
            is_required = {each.name: each for each in parameters if each.default is each.empty and each.kind != each.VAR_KEYWORD}
            await finish(member(**{name: argument(each) for name, each in is_required.items()}))


async def finish(result: Any) -> None:
    """Wait until a call has sent its request."""
    if isinstance(result, TenantClient | PullInbox):
        await call_all(result)
        return
    try:
        await (anext(result) if isinstance(result, AsyncIterator) else _checked(result))
    except AgentNotFound:
        return


def _checked(result: object) -> Awaitable[object]:
    assert isinstance(result, Awaitable)
    return result


async def test_every_operation_of_the_api_has_a_method_of_the_client() -> None:
    requests = Requests()
    async with await asyncio.start_server(requests.converse, "127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with Client(url, "token", max_retry_s=0) as client:
            await call_all(client)
    assert sorted(OPERATIONS - {CONSOLE} - requests.seen) == [], "add methods for these to sdk/client.py or sdk/*_calls.py"
    assert sorted(requests.seen - OPERATIONS) == [], "the API has no such operations"
