"""A simple fan-out server on FastAPI: a set of WebSockets per channel, one send each. `python fastapi_server.py PORT`."""

from __future__ import annotations

import sys
from collections import defaultdict

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()
subscribers: dict[str, set[WebSocket]] = defaultdict(set)


@app.websocket("/receive/{names}")
async def receive(socket: WebSocket, names: str) -> None:
    """Join the channels of the path until the socket closes."""
    await socket.accept()
    channels = names.split(",")
    for channel in channels:
        subscribers[channel].add(socket)
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        for channel in channels:
            subscribers[channel].discard(socket)


@app.websocket("/publish")
async def publish(socket: WebSocket) -> None:
    """Send each text `CHANNEL MESSAGE` to every socket of the channel."""
    await socket.accept()
    try:
        while True:
            channel, _, message = (await socket.receive_text()).partition(" ")
            for each in list(subscribers[channel]):
                await each.send_text(message)
    except WebSocketDisconnect:
        return


if __name__ == "__main__":
    # No pings: uvicorn expects a pong with the payload of its ping every 20 s, and the load generator cannot send it.
    config = uvicorn.Config(app, port=int(sys.argv[1]), log_level="error", ws_ping_interval=None, ws_per_message_deflate=False)
    uvicorn.Server(config).run()
