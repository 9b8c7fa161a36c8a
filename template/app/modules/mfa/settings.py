"""Settings of the second factor."""

from urllib.parse import urlsplit

from pydantic import Field, model_validator

from app.kit.settings import ModuleSettings, load
from app.ports.identity.local import LocalSettings


class MfaSettings(ModuleSettings):
    """The second factor of local accounts."""

    auth_admin_mfa: bool = Field(False, description="Whether admins are admins only when they have shown one.")
    auth_passkey_domain: str = Field(
        "", max_length=253, description="The domain of passkeys: the host of PUBLIC_URL, or one that it lies in."
    )

    @model_validator(mode="after")
    def is_a_domain_of_ours(self) -> "MfaSettings":
        """Refuse a domain whose passkeys no page of ours could ask for."""
        given, host = self.auth_passkey_domain, urlsplit(load(LocalSettings).public_url).hostname or ""
        if given and given != host and not (host.endswith(f".{given}") and "." in given):
            raise ValueError(f"AUTH_PASSKEY_DOMAIN: is {host}, the host of PUBLIC_URL, or a domain that it lies in.")
        return self

    @property
    def passkey_domain(self) -> str:
        """What browsers bind passkeys to: the RP ID of WebAuthn."""
        return self.auth_passkey_domain or urlsplit(load(LocalSettings).public_url).hostname or ""
