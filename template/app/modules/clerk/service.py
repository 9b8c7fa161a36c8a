"""Rules for what Clerk tells of its users."""

from datetime import UTC, datetime, timedelta

from app.modules.clerk.schemas import ClerkDeletion, ClerkEvent, ClerkUser
from app.modules.directory.service import Departure, Person
from app.modules.webhooks.service import NoEvent
from app.ports.identity.clerk import ClerkVerifier
from app.ports.identity.provider import text_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def understand(body: bytes, verifier: ClerkVerifier) -> Person | Departure | None:
    """Read an event; None for one that is no matter of this service. Raises NoEvent."""
    try:
        event = ClerkEvent.model_validate_json(body)
        if event.type == "user.deleted":
            return Departure(verifier.subject_of(ClerkDeletion.model_validate(event.data).id))
        if event.type in {"user.created", "user.updated"}:
            return person(ClerkUser.model_validate(event.data), verifier)
    except (ValueError, OverflowError) as error:
        raise NoEvent("This is not an event as Clerk sends them.") from error
    return None


def person(user: ClerkUser, verifier: ClerkVerifier) -> Person:
    """Take what is kept here of a user. Raises ValueError for who is none."""
    primary = next((one for one in user.email_addresses if one.id == user.primary_email_address_id), None)
    email = text_of(primary.email_address, most=320) if primary else None
    proof = primary.verification if primary else None
    # Session tokens are customized to hold the metadata under one of these names.
    claims = {"metadata": user.public_metadata, "public_metadata": user.public_metadata}
    return Person(
        subject=verifier.subject_of(user.id),
        as_of=EPOCH + timedelta(milliseconds=user.updated_at),
        email=email,
        email_verified=email is not None and proof is not None and proof.status == "verified",
        name=text_of(f"{user.first_name or ''} {user.last_name or ''}".strip(), most=200),
        role=verifier.roles.told(claims),
        banned=user.banned,
    )
