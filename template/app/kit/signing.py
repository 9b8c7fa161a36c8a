"""Secrets that messages between services are signed with, as Standard Webhooks spells them."""

from base64 import b64decode, b64encode
from typing import Annotated

from pydantic import AfterValidator, SecretStr


def check_secret(value: SecretStr) -> SecretStr:
    """Accept a secret with at least 24 bytes, and spell it as Standard Webhooks does, for whoever else reads it."""
    try:
        encoded = value.get_secret_value().removeprefix("whsec_")
        key = b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        key = b""
    if len(key) < 24:
        raise ValueError("is whsec_ and at least 24 random bytes in base64")
    return SecretStr(f"whsec_{b64encode(key).decode()}")


SigningSecret = Annotated[SecretStr, AfterValidator(check_secret)]
