"""Settings of local accounts."""

from limits import RateLimitItem, parse
from pydantic import Field

from app.kit.settings import ModuleSettings

LIMIT = "^[1-9][0-9]{0,8}/(second|minute|hour|day)$"


class AccountSettings(ModuleSettings):
    """Local accounts."""

    auth_session_days: int = Field(90, ge=1, le=400, description="After so long people sign in again.")
    auth_refresh_token_days: int = Field(
        14, ge=1, le=400, description="A session ends when it is not used for so long."
    )
    auth_refresh_grace_seconds: int = Field(
        10, ge=0, le=60, description="How long the last refresh token but one still brings the last one again."
    )
    auth_verification_hours: int = Field(
        24, ge=1, le=168, description="How long the link in a verification mail is good."
    )
    auth_reset_minutes: int = Field(30, ge=5, le=1440, description="How long the link to reset a password is good.")
    auth_limit_account: str = Field(
        "20/hour", pattern=LIMIT, description="Passwords that may be tried for one account."
    )
    auth_limit_client: str = Field("100/hour", pattern=LIMIT, description="Passwords and links tried by one address.")
    auth_limit_mails: str = Field("5/hour", pattern=LIMIT, description="Mails that may be asked for to one address.")
    auth_argon2_memory_kib: int = Field(19_456, ge=19_456, le=4_194_304, description="Memory of Argon2id, in KiB.")
    auth_argon2_iterations: int = Field(2, ge=2, le=64, description="Iterations of Argon2id.")
    auth_argon2_at_a_time: int = Field(2, ge=1, le=64, description="Passwords that are hashed at the same time.")

    @property
    def account_limit(self) -> RateLimitItem:
        """How often passwords may be tried for one account."""
        return parse(self.auth_limit_account)

    @property
    def client_limit(self) -> RateLimitItem:
        """How often one address may try."""
        return parse(self.auth_limit_client)

    @property
    def mail_limit(self) -> RateLimitItem:
        """How often mails to one address may be asked for."""
        return parse(self.auth_limit_mails)
