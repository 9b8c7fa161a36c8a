"""A store in the memory of this process, bounded by bytes: what was not used for longest goes first."""

import time

from cachetools import TLRUCache

# What an entry takes beside its key and its value, measured with CPython 3.11.
OVERHEAD_BYTES = 400
Entry = tuple[bytes, float]


class MemoryStore:
    """Keeps values in this process, each with a time of its own."""

    name = "memory"

    def __init__(self, most_bytes: int) -> None:
        self._entries: TLRUCache[str, Entry] = TLRUCache(
            most_bytes,
            ttu=lambda _key, entry, now: now + entry[1],
            timer=time.monotonic,
            getsizeof=lambda entry: len(entry[0]) + OVERHEAD_BYTES,
        )

    async def get(self, *keys: str) -> list[bytes | None]:
        """Return the values of keys."""
        found = (self._entries.get(key) for key in keys)
        return [entry[0] if entry else None for entry in found]

    async def set(self, key: str, value: bytes, seconds: float) -> None:
        """Keep a value. One that is larger than all memory there is goes at once."""
        if len(value) + OVERHEAD_BYTES <= self._entries.maxsize:
            self._entries[key] = value, seconds
        else:
            self._entries.pop(key, None)

    async def add(self, key: str, value: bytes, seconds: float) -> bool:
        """Keep a value unless there is one."""
        if key in self._entries:
            return False
        await self.set(key, value, seconds)
        return True

    async def take(self, key: str) -> bytes | None:
        """Return a value and forget it."""
        entry = self._entries.pop(key, None)
        return entry[0] if entry else None
