"""The mails of the contact form: all of it to who runs the service, and nothing of it to the address that was given."""

from pathlib import Path

from app.modules.contact.models import ContactMessage
from app.ports.email.message import Mailbox, Message
from app.ports.email.templates import MailTemplates

templates = MailTemplates("contact", Path(__file__).parent / "mails")


def notice(to: str, message: ContactMessage, more: dict[str, str]) -> Message:
    """Hand a message on to who runs the service. A reply goes to its sender."""
    fields = {"name": message.name, "email": message.email, "subject": message.subject, **more}
    return templates.compose(
        "notice",
        to=to,
        reply_to=_sender(message),
        id=message.id,
        about=message.subject or "",
        fields=[(name, text) for name, text in fields.items() if text],
        message=message.message,
    )


def pointer(to: str, message: ContactMessage) -> Message:
    """Tell who runs the service of a message that is too long for a mail."""
    text = f"It is too long for a mail: app contact show {message.id}"
    return templates.compose(
        "notice", to=to, reply_to=_sender(message), id=message.id, about="a long message", fields=[], message=text
    )


def confirmation(to: str, message: ContactMessage) -> Message:
    """Tell an address, which may be anybody's, that a message gives it: in our own words, and in none of a stranger."""
    return templates.compose("confirmation", to=to, id=message.id)


def _sender(message: ContactMessage) -> Mailbox | None:
    return Mailbox(address=message.email, name=message.name) if message.email else None
