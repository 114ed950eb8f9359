"""The server of a page that is an agent: it serves the page, the client library, and tokens of the agent for signed-in people.

    python server.py 9000 ../../clients/typescript/dist

The agent's key stays here. A page gets a token, which is valid for 15 minutes and for this agent only.
"""

import asyncio
import json
import os
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from artcafe import Client
from artcafe.sdk.keys import load_signer

HERE = Path(__file__).parent
URL, TENANT, AGENT, KEY = (os.environ[f"ARTCAFE_{name}"] for name in ("URL", "TENANT", "AGENT", "KEY"))
PORT, LIBRARY = int(sys.argv[1]), Path(sys.argv[2]).resolve()


async def page_login() -> dict[str, str]:
    """Return where to connect, and a fresh token of the agent."""
    async with Client(URL, "") as client:
        token = await client.login(TENANT, AGENT, load_signer(KEY))
        home = await client.home()
        return {"gateway": home.gateway_url, "token": token.access_token}


class Page(SimpleHTTPRequestHandler):
    """Serve files, and logins to the page itself."""

    def do_POST(self) -> None:
        # Your own check belongs here: whoever gets this answer is the agent for 15 minutes.
        if self.path != "/login" or self.headers.get("origin") != f"http://127.0.0.1:{PORT}":
            self.send_error(403)
            return
        body = json.dumps(asyncio.run(page_login())).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("cache-control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def translate_path(self, path: str) -> str:
        """Serve the page beside this file, and the library below /artcafe/."""
        name = path.partition("?")[0].lstrip("/") or "index.html"
        root, name = (LIBRARY, name.removeprefix("artcafe/")) if name.startswith("artcafe/") else (HERE, name)
        file = (root / name).resolve()
        return str(file if file.is_relative_to(root) and file.suffix in (".html", ".css", ".js") else HERE / "missing")


ThreadingHTTPServer(("127.0.0.1", PORT), Page).serve_forever()
