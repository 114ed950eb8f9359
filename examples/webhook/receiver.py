"""A receiver of webhooks: verifies the signature, answers at once, and pulls what waits for the agent.

Start it, and set the agent's wake policy to its address:

    WEBHOOK_SECRET=whsec_… ARTCAFE_AGENT=scout ARTCAFE_KEY=scout python receiver.py 9000
    artcafe agent wake set scout https://hooks.example.com/
"""

import asyncio
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

from artcafe import Agent

WEBHOOK = Webhook(os.environ["WEBHOOK_SECRET"])
waiting = threading.Event()


class Receiver(BaseHTTPRequestHandler):
    """Accept webhooks with a valid signature."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            WEBHOOK.verify(body, dict(self.headers))
        except WebhookVerificationError:
            self.answer(401)
            return
        waiting.set()  # Webhooks may come twice. Pulling twice is harmless, so their ids need not be remembered.
        self.answer(204)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.end_headers()


async def pull_all() -> None:
    """Print and acknowledge every message that waits for the agent."""
    agent = Agent()
    try:
        has_more = True
        while has_more:
            pulled = await agent.pull()
            for message in pulled:
                print(message.channel, message.sender, message.data, flush=True)
                await message.ack()
            has_more = pulled.has_more
    finally:
        await agent.aclose()


def main() -> None:
    """Receive webhooks until Ctrl-C, and pull after each."""
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        waiting.wait()
        waiting.clear()
        asyncio.run(pull_all())


main()
