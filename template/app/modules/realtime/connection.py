"""One connection of a client: what it sends is bounded, and so is what waits for it."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.frames import Frame, Opcode

from app.modules.realtime.settings import RealtimeSettings
from app.modules.realtime.tickets import Shown
from app.ports.identity.identity import Identity

# Close codes: RFC 6455 (7.4), and the range that is left to applications.
GOING_AWAY, UNSUPPORTED, POLICY, TOO_BIG, FAILED, TRY_LATER = 1001, 1003, 1008, 1009, 1011, 1013
SIGN_IN, FORBIDDEN = 4401, 4403
# How long a client may take for its last messages and the farewell.
FAREWELL_SECONDS = 1.0
# How long one message may be under way to a client before that counts as too slow, whatever waits behind it.
SEND_SECONDS = 30.0
TOO_SLOW = TRY_LATER, "Too slow: connect again, and ask for what you have missed."
BURST_SECONDS = 4
REASON_BYTES = 120
# The extension of ASGI with which a server takes frames that are ready: `write` takes one, or returns False.
FRAMES = "app.realtime.frames"
_json = TypeAdapter(Any)


class Text:
    """A message for clients, and the frame that it goes out in, which is the same for all of them."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def frame(self) -> bytes:
        """The text as RFC 6455 (5.2) has it."""
        return Frame(Opcode.TEXT, self.text.encode()).serialize(mask=False)


class Budget:
    """What may be spent in time: so much a second, and what some seconds bring at once."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self.left = self.most = max(1.0, BURST_SECONDS * per_second)
        self._counted = time.monotonic()

    def spend(self, amount: int = 1) -> bool:
        """Spend something. Returns whether it was there; what was not is owed."""
        now = time.monotonic()
        self.left = min(self.most, self.left + (now - self._counted) * self.per_second) - amount
        self._counted = now
        return self.left >= 0


class Connection:
    """A client. Whoever has something for it calls `offer`, which returns at once."""

    def __init__(self, websocket: WebSocket, me: Identity, shown: Shown, settings: RealtimeSettings) -> None:
        self.websocket, self.me, self.shown = websocket, me, shown
        self.rooms: set[str] = set()
        self.farewell: tuple[int, str] | None = None
        self._settings = settings
        self._ended = asyncio.get_running_loop().create_future()
        self._write: Callable[[bytes], bool] = _writer(websocket)
        self._waiting: deque[Text] = deque()
        # Sends what waits, while there is something.
        self._sending: asyncio.Task[None] | None = None
        self._budget = Budget(settings.realtime_messages_per_second)

    def offer(self, message: Text) -> None:
        """Have a message sent. A client that does not read what waits for it already is dropped."""
        if self.farewell is not None or (self._sending is None and self._write(message.frame)):
            return
        if len(self._waiting) >= self._settings.realtime_queue:
            self.end(*TOO_SLOW)
            return
        self._waiting.append(message)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    def tell(self, **message: Any) -> None:
        """Have a message sent, from its parts. Those that are None are left out."""
        told = {key: value for key, value in message.items() if value is not None}
        self.offer(Text(_json.dump_json(told).decode()))

    def end(self, code: int, reason: str) -> None:
        """Close the connection. The first reason stands."""
        if self.farewell is None:
            self.farewell = code, reason.encode()[:REASON_BYTES].decode(errors="ignore")
            if not self._ended.done():
                self._ended.set_result(None)

    async def run(self, handle: Callable[[str], Awaitable[None]]) -> None:
        """Read and write until the client goes or has to go."""
        reading = asyncio.create_task(self._read(handle))
        try:
            done, _ = await asyncio.wait((reading, self._ended), return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        except WebSocketDisconnect:
            self.farewell = None
        except Exception:
            self.end(FAILED, "Something went wrong on our side: connect again.")
            raise
        finally:
            work = [reading, self._sending] if self._sending else [reading]
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            await self._close()

    async def _close(self) -> None:
        if self.farewell is None:
            return
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                if self.farewell[0] != TRY_LATER:
                    while self._waiting:
                        await self.websocket.send_text(self._waiting.popleft().text)
                await self.websocket.close(*self.farewell)
        except (WebSocketDisconnect, RuntimeError, TimeoutError):
            return  # It has gone, or reads nothing.

    async def _read(self, handle: Callable[[str], Awaitable[None]]) -> None:
        most = self._settings.realtime_message_bytes
        while True:
            message = await self.websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code") or 1005)
            text = message.get("text")
            if text is None:
                return self.end(UNSUPPORTED, "Send JSON as text.")
            if len(text) > most or len(text.encode()) > most:
                return self.end(TOO_BIG, f"A message has {most} bytes at most.")
            if not self._budget.spend():
                return self.end(POLICY, "Too many messages: send fewer.")
            await handle(text)

    async def _send(self) -> None:
        try:
            while self._waiting:
                async with asyncio.timeout(SEND_SECONDS):
                    await self.websocket.send_text(self._waiting[0].text)
                self._waiting.popleft()
        except TimeoutError:
            self.end(*TOO_SLOW)
        except WebSocketDisconnect:
            return  # Who reads hears of it as well.
        except Exception as error:
            if not self._ended.done():
                self._ended.set_exception(error)
        finally:
            self._sending = None


def _writer(websocket: WebSocket) -> Callable[[bytes], bool]:
    extension = websocket.scope.get("extensions", {}).get(FRAMES, {})
    write: Callable[[bytes], bool] = extension.get("write", lambda _: False)
    return write
