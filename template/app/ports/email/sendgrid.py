"""SendGrid, through its HTTP API.

Its SDK is not used: it blocks, waits without an end and writes whole mails to the debug log.
"""

from typing import Any, Literal

from pydantic import Field, SecretStr

from app.kit.module import Module
from app.kit.settings import ModuleSettings, load
from app.ports.email.api import failure, open_client
from app.ports.email.message import Email, EmailDelayed, EmailFailed, Mailbox, Message, as_base64

APIS = {"global": "https://api.sendgrid.com", "eu": "https://api.eu.sendgrid.com"}


class SendgridSettings(ModuleSettings):
    """Mail through SendGrid."""

    sendgrid_api_key: SecretStr | None = Field(None, description="A key with the scope mail.send, such as SG....")
    sendgrid_region: Literal["global", "eu"] = Field("global", description="global, or eu for a subuser in the EU.")


class SendgridEmail(Email):
    """Sends through the API of SendGrid."""

    def __init__(self, sender: Mailbox, *, timeout: float, url: str | None = None) -> None:
        super().__init__(sender, timeout=timeout)
        settings = load(SendgridSettings)
        self._url = url or APIS[settings.sendgrid_region]
        key = settings.sendgrid_api_key.get_secret_value() if settings.sendgrid_api_key else ""
        self._http = open_client(timeout, accept="application/json", authorization=f"Bearer {key}")

    @classmethod
    def problems(cls) -> list[str]:
        """Without a key nobody is let in."""
        return [] if load(SendgridSettings).sendgrid_api_key else ["SENDGRID_API_KEY: sendgrid needs a key."]

    async def hand_over(self, message: Message) -> None:
        """Send one mail. What it holds is left alone: links in a mail about an account lead to the service itself."""
        parts = {"text/plain": message.text, "text/html": message.html}
        mail = {
            "personalizations": [{"to": [_person(message.to)]}],
            "from": _person(self.sender),
            "subject": message.subject,
            "content": [{"type": kind, "value": text} for kind, text in parts.items() if text is not None],
            "headers": dict(message.headers),
            "tracking_settings": {
                "click_tracking": {"enable": False, "enable_text": False},
                "open_tracking": {"enable": False},
            },
        }
        if message.reply_to:
            mail["reply_to"] = _person(message.reply_to)
        if message.attachments:
            mail["attachments"] = [
                {"filename": file.name, "content": as_base64(file.content), "type": file.content_type}
                for file in message.attachments
            ]
        await self._ask("POST", "/v3/mail/send", json=mail)

    async def look(self) -> str:
        """Ask what the key may do."""
        scopes = (await self._ask("GET", "/v3/scopes")).get("scopes", [])
        if "mail.send" not in scopes:
            raise EmailFailed("SENDGRID_API_KEY: the key has not the scope mail.send")
        return f"SendGrid takes the key; whether {self.sender.address} is verified there was not asked"

    async def _ask(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        from httpx2 import RequestError

        try:
            answer = await self._http.request(method, self._url + path, **body)
        except RequestError as error:
            raise EmailDelayed(f"{type(error).__name__}: {error}") from None
        if not answer.is_success:
            raise failure(answer.status_code, _reason(answer), answer.headers)
        return dict(answer.json()) if answer.content else {}

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _person(mailbox: Mailbox) -> dict[str, str]:
    return {"email": mailbox.address, **({"name": mailbox.name} if mailbox.name else {})}


def _reason(answer: Any) -> str:
    try:
        return "; ".join(str(error["message"]) for error in answer.json()["errors"])
    except (ValueError, KeyError, TypeError):
        return str(answer.reason_phrase)


sendgrid = Module(name="sendgrid", settings=(SendgridSettings,))
