"""What one would write first: FastAPI, a set of WebSockets for each channel, and one send each. `python fastapi_peer.py PORT`."""

from __future__ import annotations

import sys
from collections import defaultdict

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()
rooms: dict[str, set[WebSocket]] = defaultdict(set)


@app.websocket("/receive/{names}")
async def receive(socket: WebSocket, names: str) -> None:
    """Joins the channels that the path names, until the socket is gone."""
    await socket.accept()
    channels = names.split(",")
    for channel in channels:
        rooms[channel].add(socket)
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        for channel in channels:
            rooms[channel].discard(socket)


@app.websocket("/publish")
async def publish(socket: WebSocket) -> None:
    """Sends each text `CHANNEL MESSAGE` to everyone in the channel."""
    await socket.accept()
    try:
        while True:
            channel, _, message = (await socket.receive_text()).partition(" ")
            for each in list(rooms[channel]):
                await each.send_text(message)
    except WebSocketDisconnect:
        return


if __name__ == "__main__":
    # It asks every 20 s for a pong that answers just this ping, which the load cannot give.
    config = uvicorn.Config(app, port=int(sys.argv[1]), log_level="error", ws_ping_interval=None, ws_per_message_deflate=False)
    uvicorn.Server(config).run()
