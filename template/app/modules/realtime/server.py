"""How uvicorn serves WebSockets here: `app serve` takes this class, which settles what uvicorn leaves open."""

import asyncio
import gc
from functools import cache
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from app.kit.settings import load
from app.modules.realtime.connection import FRAMES, GOING_AWAY, POLICY, Budget
from app.modules.realtime.settings import RealtimeSettings

# A client that reads nothing would keep its connection, and what is written to it, for as long as it likes.
LINGER_SECONDS = 5.0
# A message may come in so many frames, with the pings and pongs between them. An empty frame costs 6 bytes to send, and
# as much time to read as a message.
FRAMES_PER_MESSAGE = 16
# So much is read before it is looked at whether that was too many frames: 682 empty ones, some milliseconds.
SLICE_BYTES = 4096


@cache
def leave_imports_alone() -> None:
    """Keep what is there before the first client from being collected: looking at it all stops events for 0.3 s."""
    gc.collect()
    gc.freeze()


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Reads no more than a message may have, lets nobody linger who has to go, and says 1001 when the service stops."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        leave_imports_alone()
        super().__init__(*args, **kwargs)
        settings = load(RealtimeSettings)
        self.ping_interval = self.ping_timeout = settings.realtime_ping_seconds
        self.conn.max_message_size = settings.realtime_message_bytes
        # What is small is hardly smaller compressed, and each client would cost its own compression of every event.
        self.conn.available_extensions = []
        self._frames = Budget(FRAMES_PER_MESSAGE * max(1.0, settings.realtime_messages_per_second))
        self._limit: asyncio.TimerHandle | None = None
        self._gone = self._deaf = False

    def data_received(self, data: bytes) -> None:
        """Read what comes, in slices, and answer a handshake that is refused before the application hears of it."""
        for begin in range(0, len(data), SLICE_BYTES):
            if self._deaf or self.transport.is_closing():
                return
            super().data_received(data[begin : begin + SLICE_BYTES])
        if self.conn.handshake_exc and not self.handshake_initiated:
            # uvicorn would keep it open without a word, for as long as the client likes.
            self._part()

    def handle_parser_exception(self) -> None:
        """Say why a connection fails."""
        farewell = self.conn.close_sent
        if farewell is None:
            return self.transport.abort()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": farewell.code, "reason": farewell.reason})
        self.close_sent = True
        return self._part()

    def _part(self) -> None:
        """Send what is left, and leave unread what still comes.

        The kernel resets a connection that is closed while something waits to be read, and the client never learns why.
        """
        self._deaf = True
        self.transport.write(b"".join(self.conn.data_to_send()))
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.transport.resume_reading()
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        if not self._gone and self._limit is None:
            self._limit = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def handle_events(self) -> None:
        """Handle the frames that have come, unless they are too many."""
        if self._frames.spend(len(self.conn.events)):
            return super().handle_events()
        self.conn.fail(POLICY, "Too many frames: send fewer.")
        return self.handle_parser_exception()

    def handle_connect(self, event: Request) -> None:
        """Offer to take frames that are ready: what many clients hear is made once, and sent without a detour."""
        super().handle_connect(event)
        if not self.handshake_complete:
            self.scope["extensions"][FRAMES] = {"write": self.write}

    def write(self, frame: bytes) -> bool:
        """Write a frame, unless others wait for the client already or nothing may follow any more."""
        if self.close_sent or not self.handshake_complete or not self.writable.is_set() or self.transport.is_closing():
            return False
        self.transport.write(frame)
        return True

    async def send(self, message: Any) -> None:
        """Send a message; a refusal is an answer as well, which uvicorn would log as a missing one."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """Let a client linger for a moment once nobody speaks with it any more."""
        super().on_task_complete(task)
        self._linger()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the limit: a transport that is closed cannot be aborted."""
        self._gone = True
        if self._limit:
            self._limit.cancel()
        super().connection_lost(exc)

    def keepalive_timeout(self) -> None:
        """Cut off a client that answers no ping: what is left to send may never leave."""
        super().keepalive_timeout()
        self.transport.abort()

    def shutdown(self) -> None:
        """Say that the service goes away, as RFC 6455 (7.4.1) has it."""
        if not self.handshake_complete or self.close_sent or self.transport.is_closing():
            return super().shutdown()
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": GOING_AWAY, "reason": ""})
        self.conn.send_close(GOING_AWAY)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.close()
        return None
