"""Settings of webhooks that this service sends, and what their addresses have to be."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from app.kit.settings import CoreSettings, ModuleSettings, SecretURL, SettingsError, load


class OutgoingSettings(ModuleSettings):
    """Webhooks that are sent."""

    outgoing_timeout_seconds: float = Field(10, gt=0, le=60, description="How long a receiver may take to answer.")
    outgoing_allow_private: bool = Field(
        False, description="Let production send to addresses of private networks, such as a service next door."
    )


def check_url(value: SecretURL) -> SecretURL:
    """Accept an address that a message can be sent to; in production only one that nobody on the way can read."""
    try:
        parts = urlsplit(value.get_secret_value())
        # A name that cannot be looked up is a ValueError as well.
        named = (parts.hostname or "").encode("idna")
        good = parts.scheme in {"http", "https"} and named and parts.username is None and parts.port != 0
    except ValueError:
        good = False
    if not good or not re.fullmatch(r"[\x21-\x7e]{1,2000}", value.get_secret_value()) or parts.fragment:
        raise ValueError("is an address that starts with https:// and holds neither a user nor a fragment")
    try:
        production = load(CoreSettings).production
    except SettingsError:
        return value  # What is wrong there is told there.
    if production and parts.scheme != "https":
        raise ValueError("production sends to https:// only")
    return value


WebhookURL = Annotated[SecretURL, AfterValidator(check_url)]
