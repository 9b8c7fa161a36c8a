"""The mails of local accounts. Their links go where PUBLIC_URL says, whatever a request says of its host."""

from pathlib import Path

from app.kit.settings import load
from app.modules.accounts.settings import AccountSettings
from app.ports.email.message import Message
from app.ports.email.templates import MailTemplates
from app.ports.identity.local import LocalSettings

templates = MailTemplates("accounts", Path(__file__).parent / "mails")


def link(page: str, token: str) -> str:
    """Make the address of a page with a token. What stands behind # reaches neither logs nor other sites."""
    return f"{load(LocalSettings).public_url}/{page}#token={token}"


def verification(address: str, token: str) -> Message:
    """Ask whoever reads the mail to confirm that the address is theirs."""
    hours = load(AccountSettings).auth_verification_hours
    return templates.compose("verify_email", to=address, link=link("verify-email", token), hours=hours)


def new_address(address: str, token: str) -> Message:
    """Ask the owner of an account, at another address, whether the account is to have that one."""
    hours = load(AccountSettings).auth_verification_hours
    return templates.compose("confirm_new_address", to=address, link=link("confirm-new-email", token), hours=hours)


def already_registered(address: str) -> Message:
    """Tell the owner of an account that somebody wanted to make another one with their address."""
    return templates.compose("already_registered", to=address, link=f"{load(LocalSettings).public_url}/forgot-password")


def password_reset(address: str, token: str) -> Message:
    """Let whoever reads the mail choose a new password."""
    minutes = load(AccountSettings).auth_reset_minutes
    return templates.compose("reset_password", to=address, link=link("reset-password", token), minutes=minutes)


def password_changed(address: str) -> Message:
    """Tell the owner of an account that its password is another one now."""
    return templates.compose("password_changed", to=address, link=f"{load(LocalSettings).public_url}/forgot-password")


def email_changed(address: str, new: str) -> Message:
    """Tell the owner of an account, at the address it had, that it has another one now."""
    return templates.compose("email_changed", to=address, new=new)
