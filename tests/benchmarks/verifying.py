"""Say how many milliseconds a service needs to verify a new token whose key it knows: `python verifying.py TOKEN`."""

import asyncio
import statistics
import sys
import time

sys.path.insert(0, ".")
from app.kit.settings import load  # type: ignore[import-not-found, unused-ignore]
from app.ports.identity.oidc import OidcSettings, OidcVerifier  # type: ignore[import-not-found, unused-ignore]

ROUNDS, TIMES = 9, 300


async def main(token: str) -> None:
    """Fetch the keys, then verify again and again."""
    verifier = OidcVerifier(load(OidcSettings))
    await verifier.verify(token)
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(TIMES):
            verifier.decoder.known.clear()
            await verifier.verify(token)
        rounds.append((time.perf_counter() - start) / TIMES)
    print(statistics.median(rounds) * 1000)


asyncio.run(main(sys.argv[1]))
