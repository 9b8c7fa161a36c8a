"""Calls to what may be away: a timeout, retries with backoff and jitter, and a circuit breaker around them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

import stamina
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState

P = ParamSpec("P")
Result = TypeVar("Result")


class GuardedCallFailed(Exception):
    """The call failed, took too long, or was not tried because the circuit is open.

    `news` is true for the first failure since a call worked, so that a caller can warn once and not for every request.
    """

    def __init__(self, message: str, *, news: bool) -> None:
        super().__init__(message)
        self.news = news


class Guard:
    """Guards the calls to one dependency.

    `timeout` is in seconds and for one attempt. After `threshold` failures in a row the circuit opens: calls fail at
    once for `recovery` seconds, then they are let through again to see.
    """

    def __init__(
        self,
        name: str,
        *,
        timeout: float,
        attempts: int = 3,
        threshold: int = 5,
        recovery: float = 10,
        retry_on: type[Exception] | tuple[type[Exception], ...] = (OSError, TimeoutError),
    ) -> None:
        self.name = name
        self.timeout = timeout
        self.attempts = attempts
        self.retry_on = retry_on
        # Who gives up waiting says nothing of the dependency.
        given_up: list[Any] = [asyncio.CancelledError]
        self._breakers = AsyncCircuitBreakerFactory(threshold, recovery, exclude=given_up)
        self._away = False

    async def call(self, function: Callable[P, Awaitable[Result]], /, *args: P.args, **kwargs: P.kwargs) -> Result:
        """Await `function` under guard. Raises GuardedCallFailed, with the cause chained."""
        breaker = await self._breakers.get_breaker(self.name)
        try:
            async with breaker:
                result: Result = await self._attempt(function, *args, **kwargs)
                self._away = False
                return result
        except OpenedState as error:
            raise GuardedCallFailed(f"{self.name} is away; trying again shortly", news=False) from error
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            news, self._away = not self._away, True
            raise GuardedCallFailed(f"{self.name}: {reason}", news=news) from error

    async def _attempt(self, function: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        async for attempt in stamina.retry_context(on=self.retry_on, attempts=self.attempts, timeout=None):
            with attempt:
                async with asyncio.timeout(self.timeout):
                    return await function(*args, **kwargs)
        raise AssertionError("a retry context either returns or raises")
