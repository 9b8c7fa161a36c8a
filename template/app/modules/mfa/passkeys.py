"""Passkeys (WebAuthn, level 3): what browsers are asked, and whether they have answered it.

Attestation is not asked for: which maker's authenticator somebody has is their matter.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.authentication.verify_authentication_response import VerifiedAuthentication
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    AuthenticatorTransport,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from app.kit.errors import AppError
from app.kit.logging import get_logger
from app.modules.accounts.cookies import own_origins
from app.modules.mfa.models import Passkey

SECONDS = 300
# By WebAuthn (5.1), and more than a key of RSA with 8192 bits.
MOST_ID_BYTES, MOST_KEY_BYTES = 1023, 2048
is_id = re.compile(r"[A-Za-z0-9_-]{1,1364}").fullmatch
TRANSPORTS = {transport.value for transport in AuthenticatorTransport}
log = get_logger(__name__)


class WrongPasskey(AppError):
    """An authenticator did not answer what it was asked."""

    status = 403
    code = "wrong_passkey"

    def __init__(self) -> None:
        super().__init__("The passkey is not one of this account, or did not answer what it was asked. Try again.")


class Passkeys:
    """Asks authenticators, and verifies their answers."""

    def __init__(self, domain: str, title: str) -> None:
        self.domain, self.title = domain, title

    def ask_to_make(self, nonce: bytes, owner: UUID, address: str, known: Iterable[Passkey]) -> dict[str, Any]:
        """Ask for a new passkey, which can also say by itself whose it is."""
        options = generate_registration_options(
            rp_id=self.domain,
            rp_name=self.title,
            user_id=owner.bytes,
            user_name=address,
            challenge=nonce,
            timeout=SECONDS * 1000,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.PREFERRED, user_verification=UserVerificationRequirement.PREFERRED
            ),
            exclude_credentials=[_descriptor(it) for it in known],
        )
        return _as_json(options_to_json(options))

    def ask(self, nonce: bytes, known: Iterable[Passkey] = ()) -> dict[str, Any]:
        """Ask for one of these, or for any that says whose it is: then by a PIN, a finger or a face."""
        allowed = [_descriptor(it) for it in known]
        verify = UserVerificationRequirement.DISCOURAGED if allowed else UserVerificationRequirement.REQUIRED
        options = generate_authentication_options(
            rp_id=self.domain,
            challenge=nonce,
            timeout=SECONDS * 1000,
            allow_credentials=allowed,
            user_verification=verify,
        )
        return _as_json(options_to_json(options))

    def make(self, given: Mapping[str, Any], nonce: bytes, owner: UUID, name: str) -> Passkey:
        """Verify a new passkey. Raises WrongPasskey."""
        try:
            made = verify_registration_response(
                credential=dict(given),
                expected_challenge=nonce,
                expected_rp_id=self.domain,
                expected_origin=sorted(own_origins()),
            )
            transports = [it for it in given["response"].get("transports") or () if it in TRANSPORTS]
            if len(made.credential_id) > MOST_ID_BYTES or len(made.credential_public_key) > MOST_KEY_BYTES:
                raise ValueError("too long")  # noqa: TRY301
        except Exception as error:
            raise _refusal(error) from None
        return Passkey(
            user_id=owner,
            name=name,
            credential_id=bytes_to_base64url(made.credential_id),
            public_key=made.credential_public_key,
            sign_count=made.sign_count,
            transports=" ".join(dict.fromkeys(transports)),
        )

    def verify(self, given: Mapping[str, Any], nonce: bytes, known: Passkey, *, alone: bool) -> VerifiedAuthentication:
        """Verify the answer of a passkey, which has more to say where it is `alone`. Raises WrongPasskey."""
        try:
            whose = given["response"].get("userHandle")
            if (alone or whose) and base64url_to_bytes(whose) != known.user_id.bytes:
                raise ValueError("another owner")  # noqa: TRY301
            return verify_authentication_response(
                credential=dict(given),
                expected_challenge=nonce,
                expected_rp_id=self.domain,
                expected_origin=sorted(own_origins()),
                credential_public_key=known.public_key,
                credential_current_sign_count=known.sign_count,
                require_user_verification=alone,
            )
        except Exception as error:
            raise _refusal(error) from None


def _refusal(error: Exception) -> WrongPasskey:
    # Whatever it is: what the library stumbles over, in what somebody has sent, is not good.
    log.info("passkey refused", error=type(error).__name__)
    return WrongPasskey()


def _descriptor(known: Passkey) -> PublicKeyCredentialDescriptor:
    transports = [AuthenticatorTransport(it) for it in known.transports.split()]
    return PublicKeyCredentialDescriptor(id=base64url_to_bytes(known.credential_id), transports=transports or None)


def _as_json(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found
