import asyncio

import pytest

from app.kit.resilience import Guard, GuardedCallFailed


async def test_a_guard_retries_then_opens_and_lets_one_call_through_to_see() -> None:
    calls = 0

    async def flaky() -> str:
        nonlocal calls
        calls += 1
        if calls <= 4:
            raise ConnectionError("refused")
        return "up"

    guard = Guard("flaky", timeout=1, attempts=2, threshold=2, recovery=0.05)
    for first in (True, False):
        with pytest.raises(GuardedCallFailed, match="flaky: ConnectionError: refused") as caught:
            await guard.call(flaky)
        assert caught.value.news is first
    with pytest.raises(GuardedCallFailed, match="is away") as caught:
        await guard.call(flaky)
    assert not caught.value.news
    assert calls == 4
    await asyncio.sleep(0.06)
    assert await guard.call(flaky) == "up"


async def test_who_gives_up_waiting_says_nothing_of_what_is_guarded() -> None:
    guard = Guard("patient", timeout=60, attempts=1, threshold=2)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await guard.call(asyncio.sleep, 60)
    assert await guard.call(asyncio.sleep, 0, "up") == "up"


async def test_a_guard_gives_up_on_what_hangs() -> None:
    with pytest.raises(GuardedCallFailed, match="sloth: TimeoutError"):
        await Guard("sloth", timeout=0.01, attempts=1).call(asyncio.sleep, 60)
