from __future__ import annotations

import httpx2

from artcafe.errors import Unavailable
from artcafe.rest.app import build
from tests.rest.rest_app import SETTINGS, Caller, RestApp


def test_working_server_is_live_and_ready(anyone: Caller) -> None:
    assert anyone.get("/health/live").json() == {"status": "live"}
    answer = anyone.get("/health/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "tables": "ok", "nats": "ok"})


async def test_server_without_a_dependency_is_live_but_not_ready_and_names_it(rest_app: RestApp) -> None:
    async def works() -> None: ...

    async def fails() -> None:
        raise Unavailable("NATS")

    app = build(rest_app.services_with({"tables": works, "nats": fails}), SETTINGS)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        live, ready = await client.get("/health/live"), await client.get("/health/ready")
    assert live.status_code == 200
    assert (ready.status_code, ready.headers["content-type"], ready.headers["retry-after"]) == (
        503,
        "application/problem+json",
        "1",
    )
    body = ready.json()
    assert (body["code"], body["tables"], body["nats"]) == ("unavailable", "ok", str(Unavailable("NATS")))
    assert body["detail"].startswith("nats cannot be reached")
