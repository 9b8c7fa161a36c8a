"""The mail about the second factor: the owner of an account learns of each change, also of one that was not theirs."""

from pathlib import Path

from app.kit.settings import load
from app.ports.email.message import Message
from app.ports.email.templates import MailTemplates
from app.ports.identity.local import LocalSettings

templates = MailTemplates("mfa", Path(__file__).parent / "mails")


def changed(address: str, what: str) -> Message:
    """Tell the owner of an account what has just happened to its second factor."""
    link = f"{load(LocalSettings).public_url}/forgot-password"
    return templates.compose("second_factor_changed", to=address, what=what, link=link)
