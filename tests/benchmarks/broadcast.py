"""The bare rival of realtime, `python broadcast.py PORT`: uvicorn, and an application that tells all what one says."""

import json
import sys
import time
from typing import Any

import uvicorn  # type: ignore[import-not-found, unused-ignore]

clients: list[Any] = []


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer whether it runs, and tell clients of each other, without asking who they are."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    clients.append(send)
    try:
        while (message := await receive())["type"] == "websocket.receive":
            said = json.loads(message["text"])
            if said["type"] == "join":
                await send({"type": "websocket.send", "text": json.dumps({"type": "joined", "room": said["room"]})})
                continue
            text = json.dumps(said | {"type": "event", "at": time.time(), "from": "0" * 36})
            for other in clients:
                await other({"type": "websocket.send", "text": text})
    finally:
        clients.remove(send)


if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
    )
