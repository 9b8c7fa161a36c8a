import time
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from app.ports.email.message import Attachment, EmailDelayed, EmailFailed, Mailbox, Message
from app.ports.email.sendgrid import SendgridEmail
from tests.ports.email.contract import ADA, SENDER, TIMEOUT_SECONDS, RemoteContract, Seen
from tests.ports.email.vendor import KEY, Answer, Request, Vendor, serving

FIELDS = {"personalizations", "from", "reply_to", "subject", "content", "headers", "tracking_settings", "attachments"}
RESERVED = {"to", "from", "subject", "reply-to", "cc", "bcc", "content-type", "content-transfer-encoding", "received"}
MESSAGE = Message(to=ADA, subject="Hi", text="Hi\n")


def error(status: int, message: str, *headers: tuple[str, str]) -> Answer:
    return Answer(status, {"errors": [{"field": None, "message": message}]}, headers)


def rules(request: Request) -> Answer:
    """What https://www.twilio.com/docs/sendgrid/api-reference says of these two."""
    if request.headers.get("authorization") != f"Bearer {KEY}":
        return error(401, "The provided authorization grant is invalid, expired, or revoked")
    if request.line == "GET /v3/scopes":
        return Answer(200, {"scopes": ["mail.send", "sender_verification_eligible"]})
    assert request.line == "POST /v3/mail/send"
    assert request.headers["content-type"] == "application/json"
    assert {"personalizations", "from", "subject", "content"} <= request.body.keys() <= FIELDS
    assert [part["type"] for part in request.body["content"]] in (["text/plain"], ["text/plain", "text/html"])
    assert not RESERVED & {name.lower() for name in request.body["headers"]}
    return Answer(202, None, (("X-Message-Id", "14c5d75ce93.dfd.64b469"),))


@pytest.fixture
def vendor(configure: Callable[..., None]) -> Iterator[Vendor]:
    configure(sendgrid_api_key=KEY)
    with serving(Vendor(rules)) as vendor:
        yield vendor


@pytest.fixture
async def email(vendor: Vendor) -> AsyncIterator[SendgridEmail]:
    email = SendgridEmail(SENDER, timeout=TIMEOUT_SECONDS, url=vendor.url)
    yield email
    await email.close()


def mailbox(person: dict[str, str]) -> Mailbox:
    return Mailbox(address=person["email"], name=person.get("name"))


def read(body: dict[str, Any]) -> Seen:
    [whom] = body["personalizations"]
    [to] = whom["to"]
    assert whom.keys() == {"to"}
    parts = {part["type"]: part["value"] for part in body["content"]}
    return Seen(
        to=mailbox(to),
        subject=body["subject"],
        text=parts["text/plain"],
        sender=mailbox(body["from"]),
        html=parts.get("text/html"),
        reply_to=mailbox(body["reply_to"]) if "reply_to" in body else None,
        headers=tuple(body["headers"].items()),
        attachments=tuple(
            Attachment(name=file["filename"], content_type=file["type"], content=b64decode(file["content"]))
            for file in body.get("attachments", ())
        ),
    )


class TestSendgrid(RemoteContract):
    @pytest.fixture
    def seen(self, vendor: Vendor) -> Callable[[], list[Seen]]:
        return lambda: [
            read(request.body)
            for request in vendor.requests
            if request.line == "POST /v3/mail/send" and not vendor.failed
        ]

    @pytest.fixture
    def fail(self, vendor: Vendor) -> Callable[[str], None]:
        def fail(failure: str) -> None:
            vendor.fail(
                failure,
                busy=error(500, "Something went wrong with ada@example.com."),
                refused=error(400, "Does not contain a valid address: ada@example.com."),
                credentials=error(401, "The provided authorization grant is invalid, expired, or revoked"),
            )

        return fail

    @pytest.mark.parametrize(
        ("answer", "kind", "after"),
        [
            (error(429, "too many requests", ("Retry-After", "3")), EmailDelayed, 3.0),
            (error(429, "too many requests", ("X-RateLimit-Reset", str(int(time.time()) - 9))), EmailDelayed, 0.0),
            (error(429, "too many requests", ("Retry-After", "soon")), EmailDelayed, None),
            (error(503, "unavailable"), EmailDelayed, None),
            (error(403, "The from address does not match a verified Sender Identity."), EmailFailed, None),
            (Answer(413, "too large"), EmailFailed, None),
        ],
    )
    async def test_its_errors_are_understood(
        self, email: SendgridEmail, vendor: Vendor, answer: Answer, kind: type, after: float | None
    ) -> None:
        vendor.scripted = [answer]
        with pytest.raises(EmailFailed) as caught:
            await email.send(MESSAGE)
        assert (type(caught.value), getattr(caught.value, "after", None)) == (kind, after)

    async def test_a_redirect_does_not_carry_the_key_away(self, email: SendgridEmail, vendor: Vendor) -> None:
        vendor.scripted = [Answer(307, None, (("Location", f"{vendor.url}/elsewhere"),))]
        with pytest.raises(EmailFailed):
            await email.send(MESSAGE)
        assert len(vendor.requests) == 1

    async def test_links_are_left_as_they_are(self, email: SendgridEmail, vendor: Vendor) -> None:
        await email.send(MESSAGE)
        tracking = vendor.requests[0].body["tracking_settings"]
        assert tracking["click_tracking"] == {"enable": False, "enable_text": False}

    async def test_the_check_tells_what_the_key_may(self, email: SendgridEmail, vendor: Vendor) -> None:
        assert "takes the key" in (await email.check() or "")
        vendor.scripted = [Answer(200, {"scopes": ["stats.read"]})]
        with pytest.raises(EmailFailed, match=r"scope mail\.send"):
            await email.check()
