from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterator
from email.headerregistry import AddressHeader, HeaderRegistry
from typing import Any

import pytest

from app.ports.email.message import Attachment, EmailDelayed, EmailFailed, Mailbox, Message
from app.ports.email.resend import ResendEmail
from tests.ports.email.contract import ADA, SENDER, TIMEOUT_SECONDS, RemoteContract, Seen
from tests.ports.email.vendor import KEY, Answer, Request, Vendor, serving

FIELDS = {"from", "to", "subject", "text", "html", "reply_to", "headers", "attachments"}
PAST = "Sat, 01 Jan 2000 00:00:00 GMT"
MESSAGE = Message(to=ADA, subject="Hi", text="Hi\n")


def error(status: int, name: str, message: str, *headers: tuple[str, str]) -> Answer:
    return Answer(status, {"statusCode": status, "name": name, "message": message}, headers)


def rules(request: Request) -> Answer:
    """What https://resend.com/docs/api-reference says of these two."""
    if request.headers.get("authorization") != f"Bearer {KEY}":
        return error(401, "validation_error", "API key is invalid")
    if request.line == "GET /domains?limit=100":
        return Answer(200, {"object": "list", "data": [{"name": "example.org", "status": "verified"}]})
    assert request.line == "POST /emails"
    assert {"from", "to", "subject"} <= request.body.keys() <= FIELDS
    assert len(request.headers["idempotency-key"]) <= 256
    if "@" not in request.body["to"][0]:
        return error(422, "validation_error", "Invalid `to` field.")
    return Answer(200, {"id": "49a3999c-0ce1-4ea6-ab68-afcd6dc2e794"})


@pytest.fixture
def vendor(configure: Callable[..., None]) -> Iterator[Vendor]:
    configure(resend_api_key=KEY)
    with serving(Vendor(rules)) as vendor:
        yield vendor


@pytest.fixture
async def email(vendor: Vendor) -> AsyncIterator[ResendEmail]:
    email = ResendEmail(SENDER, timeout=TIMEOUT_SECONDS, url=vendor.url)
    yield email
    await email.close()


def mailbox(text: str) -> Mailbox:
    header = HeaderRegistry()("To", text)
    assert isinstance(header, AddressHeader)
    [address] = header.addresses
    return Mailbox(address=address.addr_spec, name=address.display_name or None)


def read(body: dict[str, Any]) -> Seen:
    [to] = body["to"]
    return Seen(
        to=mailbox(to),
        subject=body["subject"],
        text=body["text"],
        sender=mailbox(body["from"]),
        html=body.get("html"),
        reply_to=mailbox(body["reply_to"][0]) if "reply_to" in body else None,
        headers=tuple(body["headers"].items()),
        attachments=tuple(
            Attachment(name=file["filename"], content_type=file["content_type"], content=b64decode(file["content"]))
            for file in body.get("attachments", ())
        ),
    )


class TestResend(RemoteContract):
    @pytest.fixture
    def seen(self, vendor: Vendor) -> Callable[[], list[Seen]]:
        return lambda: [
            read(request.body) for request in vendor.requests if request.line == "POST /emails" and not vendor.failed
        ]

    @pytest.fixture
    def fail(self, vendor: Vendor) -> Callable[[str], None]:
        def fail(failure: str) -> None:
            vendor.fail(
                failure,
                busy=error(500, "application_error", "An unexpected error occurred at <ada@example.com>."),
                refused=error(422, "validation_error", "Invalid `to` field: ada@example.com"),
                credentials=error(401, "validation_error", "API key is invalid"),
            )

        return fail

    @pytest.mark.parametrize(
        ("answer", "kind", "after"),
        [
            (error(429, "rate_limit_exceeded", "Too many requests.", ("retry-after", "3")), EmailDelayed, 3.0),
            (error(429, "daily_quota_exceeded", "You have reached your daily quota."), EmailFailed, None),
            (error(409, "concurrent_idempotent_requests", "Another one is in progress."), EmailDelayed, None),
            (error(403, "validation_error", "The example.org domain is not verified."), EmailFailed, None),
            (error(503, "application_error", "Later.", ("retry-after", PAST)), EmailDelayed, 0.0),
        ],
    )
    async def test_its_errors_are_understood(
        self, email: ResendEmail, vendor: Vendor, answer: Answer, kind: type, after: float | None
    ) -> None:
        vendor.scripted = [answer]
        with pytest.raises(EmailFailed) as caught:
            await email.send(MESSAGE)
        assert (type(caught.value), getattr(caught.value, "after", None)) == (kind, after)

    async def test_a_page_of_a_proxy_in_place_of_an_answer_is_a_delay(self, email: ResendEmail, vendor: Vendor) -> None:
        vendor.scripted = [Answer(502, "<html>", (("Content-Type", "text/html"),))]
        with pytest.raises(EmailDelayed):
            await email.send(MESSAGE)

    async def test_a_mail_that_is_sent_again_has_the_same_key(self, email: ResendEmail, vendor: Vendor) -> None:
        for _ in range(2):
            await email.send(MESSAGE)
        assert {request.headers["idempotency-key"] for request in vendor.requests} == {str(MESSAGE.id)}

    async def test_the_check_tells_what_the_key_may_and_whether_the_domain_is_verified(
        self, email: ResendEmail, vendor: Vendor
    ) -> None:
        assert await email.check() is None
        vendor.scripted = [error(401, "restricted_api_key", "This API key is restricted to only send emails.")]
        assert "may not tell whether example.org is verified" in (await email.check() or "")
        vendor.scripted = [Answer(200, {"object": "list", "data": [{"name": "example.org", "status": "pending"}]})]
        with pytest.raises(EmailFailed, match=r"example\.org.* is not verified at Resend"):
            await email.check()
