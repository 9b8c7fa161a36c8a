"""Rules for what a project of Supabase tells of its users."""

from datetime import UTC, datetime
from pathlib import Path

from app.modules.directory.service import Departure, Person
from app.modules.supabase.schemas import DatabaseChange, SupabaseDeletion, SupabaseUser
from app.modules.webhooks.service import NoEvent
from app.ports.identity.provider import text_of
from app.ports.identity.supabase import SupabaseVerifier

TRIGGER = Path(__file__).with_name("trigger.sql")


def understand(body: bytes, verifier: SupabaseVerifier) -> Person | Departure | None:
    """Read an event; None for one that is no matter of this service. Raises NoEvent."""
    try:
        change = DatabaseChange.model_validate_json(body)
        if (change.schema_name, change.table) != ("auth", "users"):
            return None
        if change.type == "DELETE":
            return Departure(verifier.subject_of(SupabaseDeletion.model_validate(change.old_record).id))
        if change.type in {"INSERT", "UPDATE"}:
            return read_user(SupabaseUser.model_validate(change.record), change.occurred_at.astimezone(UTC), verifier)
    except (ValueError, OverflowError) as error:
        raise NoEvent("This is not an event as the trigger sends them.") from error
    return None


def read_user(user: SupabaseUser, as_of: datetime, verifier: SupabaseVerifier) -> Person | Departure | None:
    """Take what is kept here of a user; None for who is not let in. Raises ValueError for who is none."""
    subject = verifier.subject_of(user.id)
    if user.deleted_at is not None:
        return Departure(subject)
    if user.is_anonymous and not verifier.settings.supabase_anonymous_users:
        return None
    claims = {"app_metadata": user.raw_app_meta_data or {}, "user_metadata": user.raw_user_meta_data or {}}
    email = text_of(user.email, most=320)
    return Person(
        subject=subject,
        as_of=as_of,
        email=email,
        # A project that confirms no addresses has a time there too, that of the sign-up.
        email_verified=bool(email and user.email_confirmed_at and verifier.settings.supabase_confirms_email),
        name=text_of(verifier.name_of(claims), most=200),
        role=verifier.roles.told(claims),
        banned=user.is_banned,
    )


def trigger_sql(url: str, secret: str) -> str:
    """Write the SQL that lets a project tell this service of its users."""
    text = TRIGGER.read_text("utf-8")
    for word, value in {"<url>": url, "<secret>": secret}.items():
        text = text.replace(word, value.replace("'", "''"))
    return text
