import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Annotated, Any

import pytest
import time_machine
from fastapi import Depends, FastAPI
from httpx2 import ASGITransport, AsyncClient
from pydantic import SecretStr, TypeAdapter, ValidationError
from sqlmodel import select

from app.kit import clock
from app.kit.errors import ERROR_HANDLERS
from app.kit.limits import LimitSettings, RateLimiter
from app.kit.module import Tier
from app.kit.settings import forget, load
from app.kit.signing import SigningSecret
from app.main import create_app, lifespan
from app.modules.webhooks.models import WebhookReceipt
from app.modules.webhooks.service import KEPT, Message, ReceiptService, verified
from app.ports.db.database import Database
from tests.sender import KEY, SECRET, signed

BODY = b'{"a": "\xc3\xa9",  "b": 1}'


@pytest.fixture(autouse=True)
def moment() -> Iterator[None]:
    """Messages that are signed above are good for minutes, and other tests may take as long."""
    with time_machine.travel(NOW):
        yield


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    """A service with nothing but a route that says what it was sent."""
    handlers: dict[Any, Any] = {**ERROR_HANDLERS}
    app = FastAPI(exception_handlers=handlers)
    app.state.limiter = RateLimiter(load(LimitSettings))

    @app.post("/in")
    async def take(message: Annotated[Message, Depends(verified(lambda: SecretStr(SECRET)))]) -> dict[str, str]:
        return {"id": message.id, "body": message.body.decode()}

    @app.post("/closed")
    async def refuse(message: Annotated[Message, Depends(verified(lambda: None))]) -> None:
        raise AssertionError(message)

    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        yield client


async def test_a_signed_message_comes_as_it_was_sent(client: AsyncClient) -> None:
    answer = await client.post("/in", content=BODY, headers=signed(BODY, "msg_7"))
    assert (answer.status_code, answer.json()) == (200, {"id": "msg_7", "body": BODY.decode()})
    # While a secret is changed, messages have two signatures.
    old, new = signed(BODY, key=b"x" * 32), signed(BODY)
    both = new | {"webhook-signature": f"{old['webhook-signature']} {new['webhook-signature']}"}
    assert (await client.post("/in", content=BODY, headers=both)).status_code == 200


NOW = int(time.time())
GOOD = signed(BODY, at=NOW)
SIGNATURE = GOOD["webhook-signature"]


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook-id": None},
        {"webhook-timestamp": None},
        {"webhook-signature": None},
        {"webhook-id": "msg_2"},
        {"webhook-id": ""},
        {"webhook-id": "x" * 256},
        {"webhook-timestamp": str(NOW - 1)},
        {"webhook-timestamp": "soon"},
        {"webhook-timestamp": "nan"},
        {"webhook-timestamp": "1e400"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,!!!"},
        {"webhook-signature": "v1,a,b"},
        {"webhook-signature": SIGNATURE.removeprefix("v1,")},
        {"webhook-signature": SIGNATURE.replace("v1,", "v1a,")},
        {"webhook-signature": SIGNATURE.replace("v1,", "v2,")},
        {"webhook-signature": SIGNATURE[:-4] + "AAA="},
        signed(BODY, key=b"x" * 32),
        signed(BODY, key=KEY[:-1]),
        signed(BODY + b" "),
        signed(b""),
        signed(BODY, at=NOW - 400),
        signed(BODY, at=NOW + 400),
        signed(BODY, prefix="svix") | {"webhook-id": None},
    ],
)
async def test_what_is_not_signed_for_this_moment_is_refused(
    client: AsyncClient, changed: dict[str, str | None]
) -> None:
    headers = {name: value for name, value in (GOOD | changed).items() if value is not None}
    answer = await client.post("/in", content=BODY, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_signature")


async def test_two_of_a_header_are_none(client: AsyncClient) -> None:
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        answer = await client.post("/in", content=BODY, headers=[*GOOD.items(), (name, GOOD[name])])
        assert answer.status_code == 401


async def test_bodies_that_are_no_text_are_refused(client: AsyncClient) -> None:
    body = b"\xff\xfe"
    assert (await client.post("/in", content=body, headers=signed(body))).status_code == 401


async def test_without_a_secret_nothing_is_taken(client: AsyncClient) -> None:
    answer = await client.post("/closed", content=BODY, headers=GOOD)
    assert (answer.status_code, "no signing secret is set" in answer.json()["detail"]) == (401, True)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "whsec_" + "!" * 40, "x" * 7, "v1," + SECRET])
def test_weak_secrets_are_refused(secret: str) -> None:
    with pytest.raises(ValidationError, match="at least 24 random bytes"):
        TypeAdapter(SigningSecret).validate_python(secret)
    for written in (SECRET, SECRET.rstrip("="), SECRET.removeprefix("whsec_")):
        assert TypeAdapter(SigningSecret).validate_python(written).get_secret_value() == SECRET


async def test_messages_come_as_fast_as_they_are_sent_and_wrong_ones_do_not(
    migrated: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users make their provider send, and must not make it send in vain what it sends only once."""
    monkeypatch.setenv("RATE_LIMIT_ENABLED", "true")
    monkeypatch.setenv("RATE_LIMIT_DEFAULT", "3/minute")
    forget()
    app = create_app()
    path = f"{Tier.PUBLIC}/webhooks/probe"

    @app.post(path, status_code=204)
    async def take(message: Annotated[Message, Depends(verified(lambda: SecretStr(SECRET)))]) -> None: ...

    async with lifespan(app), AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:

        async def answers(path: str, **headers: str) -> list[int]:
            sent = [await client.post(path, content=BODY, headers=signed(BODY) | headers) for _ in range(5)]
            return [answer.status_code for answer in sent]

        assert await answers(path) == [204] * 5
        assert await answers(path, **{"webhook-id": "msg_2"}) == [401] * 3 + [429] * 2
        assert await answers(path) == [204] * 5
        assert await answers(f"{Tier.PUBLIC}/webhooks") == [404] * 3 + [429] * 2
    forget()


async def test_a_message_is_new_once_and_for_one_source(database: Database) -> None:
    message = Message("msg_1", b"")
    async with database.session() as session:
        receipts = ReceiptService(session)
        assert await receipts.is_new("here", message)
        assert not await receipts.is_new("here", message)
        assert await receipts.is_new("there", message)
        assert await receipts.is_new("here", Message("msg_2", b""))


async def test_what_fails_may_come_again(migrated: object) -> None:
    """Over real connections: the receipt is in the transaction of what the message does."""
    app, message = create_app(), Message("failing", b"")
    async with lifespan(app):
        database: Database = app.state.database
        came: list[bool] = []

        async def take(*, fail: bool = False) -> None:
            async with database.session() as session:
                came.append(await ReceiptService(session).is_new("here", message))
                await asyncio.sleep(0.01)
                if fail:
                    raise RuntimeError

        with pytest.raises(RuntimeError):
            await take(fail=True)
        assert came == [True]
        came.clear()

        await asyncio.gather(*(take() for _ in range(10)))
        assert sorted(came) == [False] * 9 + [True]
        async with database.session() as session:
            for row in (await session.exec(select(WebhookReceipt))).all():
                await session.delete(row)


async def test_receipts_are_forgotten_after_a_while(database: Database) -> None:
    async with database.session() as session:
        receipts = ReceiptService(session)
        await receipts.is_new("here", Message("old", b""))
        with time_machine.travel(clock.now() + KEPT + timedelta(days=1)):
            await receipts.is_new("here", Message("new", b""))
        assert [row.message_id for row in (await session.exec(select(WebhookReceipt))).all()] == ["new"]
