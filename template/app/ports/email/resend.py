"""Resend, through its SDK. The SDK keeps its key and its client for the whole process, and speaks through ours."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, SecretStr

from app.kit.module import Module
from app.kit.settings import ModuleSettings, load
from app.ports.email.api import failure, open_client
from app.ports.email.message import Email, EmailDelayed, EmailFailed, Mailbox, Message, as_base64

if TYPE_CHECKING:
    from resend import Emails
    from resend.exceptions import ResendError

API = "https://api.resend.com"


class ResendSettings(ModuleSettings):
    """Mail through Resend."""

    resend_api_key: SecretStr | None = Field(None, description="A key that may send, such as re_...")


class ResendEmail(Email):
    """Sends through the API of Resend; a mail that is sent again is recognised there by its id."""

    def __init__(self, sender: Mailbox, *, timeout: float, url: str = API) -> None:
        super().__init__(sender, timeout=timeout)
        import resend
        from resend.http_client_async import AsyncHTTPClient

        http = open_client(timeout)

        class Transport(AsyncHTTPClient):
            async def request(
                self,
                method: str,
                url: str,
                headers: Mapping[str, str],
                json: dict[str, object] | list[object] | None = None,
                files: dict[str, Any] | None = None,
                data: dict[str, str] | None = None,
            ) -> tuple[bytes, int, Mapping[str, str]]:
                answer = await http.request(method, url, headers=headers, json=json or None, files=files, data=data)
                return answer.content, answer.status_code, answer.headers

        key = load(ResendSettings).resend_api_key
        resend.api_key, resend.api_url = key.get_secret_value() if key else None, url
        resend.default_async_http_client = Transport()
        self._http, self._sdk = http, resend

    @classmethod
    def problems(cls) -> list[str]:
        """Without a key nobody is let in."""
        return [] if load(ResendSettings).resend_api_key else ["RESEND_API_KEY: resend needs a key."]

    async def hand_over(self, message: Message) -> None:
        """Send one mail."""
        mail: Emails.SendParams = {
            "from": str(self.sender),
            "to": [str(message.to)],
            "subject": message.subject,
            "text": message.text,
            "headers": dict(message.headers),
        }
        if message.html is not None:
            mail["html"] = message.html
        if message.reply_to:
            mail["reply_to"] = [str(message.reply_to)]
        if message.attachments:
            mail["attachments"] = [
                {"filename": file.name, "content": as_base64(file.content), "content_type": file.content_type}
                for file in message.attachments
            ]
        try:
            await self._sdk.Emails.send_async(mail, {"idempotency_key": str(message.id)})
        except self._sdk.exceptions.ResendError as error:
            raise _failure(error) from None

    async def look(self) -> str | None:
        """Ask for the domains, which a key with full access may. How another key is refused tells that it is good."""
        domain = self.sender.address.partition("@")[2]
        try:
            found = await self._sdk.Domains.list_async({"limit": 100})
        except self._sdk.exceptions.ResendError as error:
            if error.error_type == "restricted_api_key":
                return f"Resend takes the key, which may not tell whether {domain} is verified there"
            raise _failure(error) from None
        verified = {one["name"] for one in found["data"] if one["status"] == "verified"}
        if not any(domain == name or domain.endswith(f".{name}") for name in verified):
            raise EmailFailed(f"{domain}, which EMAIL_FROM is at, is not verified at Resend")
        return None

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _failure(error: "ResendError") -> EmailFailed:
    if error.error_type == "HttpClientError":
        return EmailDelayed(error.message or "no answer")
    reason = f"{error.error_type}: {error.message}"
    # A quota is full for the day or the month, which no mail can wait for.
    return EmailFailed(reason) if "quota" in error.error_type else failure(int(error.code), reason, error.headers)


resend = Module(name="resend", settings=(ResendSettings,))
