"""The form as the settings describe it: which fields it has, and what may stand in them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, TypeAdapter, ValidationError

from app.kit.schemas import Line
from app.modules.contact.settings import OWN_FIELDS, ContactSettings
from app.ports.email.message import EmailAddress

Kind = Literal["line", "email", "text"]
MOST_TOLD = 10
# What turns the direction or is not seen, and comes along when people paste. It says nothing, and is left out.
_UNSEEN = re.compile("[\u00ad\u200b\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")
_controls = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").search


class WrongFields(Exception):
    """Fields are missing, not known or wrong; each with its place, a code and a sentence."""

    def __init__(self, problems: Sequence[dict[str, Any]]) -> None:
        super().__init__("some fields are wrong")
        self.problems = problems


def _readable(value: str) -> str:
    return _UNSEEN.sub("", value.replace("\r\n", "\n").replace("\r", "\n")).strip()


def _without_controls(value: str) -> str:
    if _controls(value):
        raise ValueError("holds a control character")
    return value


_KINDS: Mapping[Kind, Any] = {
    "line": Line,
    "email": EmailAddress,
    "text": Annotated[
        str, BeforeValidator(_readable), StringConstraints(min_length=1), AfterValidator(_without_controls)
    ],
}


@cache
def _reader(kind: Kind, most: int) -> TypeAdapter[str]:
    read: Any = Annotated[_KINDS[kind], Field(max_length=most)]
    return TypeAdapter(read)


@dataclass(frozen=True, slots=True)
class FormField:
    """One field of the form."""

    name: str
    kind: Kind
    required: bool
    max_length: int
    reads: TypeAdapter[str]


class Form:
    """All fields of the form."""

    def __init__(self, settings: ContactSettings) -> None:
        own: dict[str, tuple[Kind, int]] = {
            "name": ("line", 200),
            "email": ("email", 320),
            "subject": ("line", 200),
            "message": ("text", settings.contact_message_length),
        }
        more: dict[str, tuple[Kind, int]] = {name: ("line", most) for name, most in settings.more_fields.items()}
        self.honeypot = settings.contact_honeypot
        self.fields = {
            name: FormField(
                name,
                kind,
                name in settings.contact_required,
                most,
                _reader(kind, most),
            )
            for name, (kind, most) in (own | more).items()
        }

    def read(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return what was filled in. Raises WrongFields. A field that was left empty is one that was left out."""
        unknown = [name for name in given if name not in self.fields and name != self.honeypot]
        problems = [_problem(name, "extra_forbidden", "The form has no such field") for name in unknown[:MOST_TOLD]]
        values: dict[str, str] = {}
        for name, field in self.fields.items():
            text = given.get(name, "")
            if not text.strip():
                if field.required:
                    problems.append(_problem(name, "missing", "Field required"))
                continue
            try:
                values[name] = field.reads.validate_python(text)
            except ValidationError as error:
                problems += [_problem(name, found["type"], _sentence(found)) for found in error.errors()]
        if problems:
            raise WrongFields(problems)
        return values

    def is_trapped(self, given: Mapping[str, str]) -> bool:
        """Tell whether somebody has filled in what nobody sees."""
        return bool(given.get(self.honeypot, "").strip())


def split(values: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Part the fields that every form has from those that the settings add."""
    own = {name: text for name, text in values.items() if name in OWN_FIELDS}
    return own, {name: text for name, text in values.items() if name not in OWN_FIELDS}


def _problem(name: str, code: str, message: str) -> dict[str, Any]:
    return {"loc": ("body", name), "type": code, "msg": message}


def _sentence(found: Any) -> str:
    if found["type"] == "string_pattern_mismatch":
        return "String should be one line, without characters that nobody sees"
    if found["type"] == "too_long":
        return f"String should have at most {found['ctx']['max_length']} characters"
    return str(found["msg"])
