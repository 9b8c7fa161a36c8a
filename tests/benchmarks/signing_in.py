"""Say how long Argon2 takes for a password, and a login with it: `python signing_in.py BASE`, in milliseconds."""

import asyncio
import json
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable
from functools import partial

sys.path.insert(0, ".")
from app.kit.settings import load  # type: ignore[import-not-found, unused-ignore]
from app.modules.accounts.passwords import Passwords  # type: ignore[import-not-found, unused-ignore]
from app.modules.accounts.service import AccountService  # type: ignore[import-not-found, unused-ignore]
from app.modules.accounts.settings import AccountSettings  # type: ignore[import-not-found, unused-ignore]
from app.ports.db.database import Database, DatabaseSettings  # type: ignore[import-not-found, unused-ignore]
from app.ports.identity.bearer import Role  # type: ignore[import-not-found, unused-ignore]

EMAIL, PASSWORD = "ada@example.com", "four unrelated plain words"
TIMES = 60


async def make_account(stored: str) -> None:
    """Make the account that signs in."""
    database = Database.open(load(DatabaseSettings))
    async with database.session() as session:
        await AccountService.create(session, EMAIL, stored, name=None, role=Role.USER)
    await database.close()


def main(base: str) -> None:
    """Let the two take turns."""
    passwords = Passwords(load(AccountSettings))
    stored = passwords.hasher.hash(PASSWORD)
    asyncio.run(make_account(stored))
    body = json.dumps({"email": EMAIL, "password": PASSWORD}).encode()
    headers = {"Content-Type": "application/json"}
    login = urllib.request.Request(f"{base}/api/v1/public/auth/login", body, headers)  # noqa: S310

    def sign_in() -> None:
        with urllib.request.urlopen(login, timeout=10) as response:  # noqa: S310
            response.read()

    def milliseconds(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return (time.perf_counter() - start) * 1000

    verify = partial(passwords.hasher.verify, stored, PASSWORD)
    sign_in()
    pairs = [(milliseconds(verify), milliseconds(sign_in)) for _ in range(TIMES)]
    alone, whole = zip(*pairs, strict=True)
    print(statistics.median(alone), statistics.median(whole))


main(sys.argv[1])
