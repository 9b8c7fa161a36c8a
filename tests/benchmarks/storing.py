"""Put a file through a served storage and get it back; print the MiB per second of both. Runs inside a service."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from datetime import timedelta

from app.ports.storage.local import LocalStorage  # type: ignore[import-not-found, unused-ignore]
from httpx2 import AsyncClient

BLOCK = bytes(1_048_576)
KEY = "bench/1"
HOUR = timedelta(hours=1)


async def blocks(many: int) -> AsyncIterator[bytes]:
    """Yield the content."""
    for _ in range(many):
        yield BLOCK


async def main(base: str, many: int) -> None:
    """Upload and download so many MiB."""
    storage, size = LocalStorage(), many * len(BLOCK)
    kind = "application/zip"
    upload = await storage.upload(KEY, size=size, content_type=kind, sha256=None, expires=HOUR)
    link = await storage.download_url(KEY, name="a.zip", content_type=kind, inline=False, expires=HOUR)
    async with AsyncClient(base_url=base, timeout=300) as client:
        start, headers = time.perf_counter(), {**upload.headers, "Content-Length": str(size)}
        (await client.put(upload.url, content=blocks(many), headers=headers)).raise_for_status()
        uploaded, received = time.perf_counter(), 0
        async with client.stream("GET", link) as answer:
            async for chunk in answer.aiter_bytes():
                received += len(chunk)
        if received != size:
            raise SystemExit(f"{received} bytes came back of {size}.")
        print(many / (uploaded - start), many / (time.perf_counter() - uploaded))


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
