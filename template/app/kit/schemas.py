"""What request bodies are made of. Characters that not every database can store, or nobody can see, end in a 422."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator

# What controls, ends a line, turns the direction or is not seen. The joiners, which scripts and emoji need, may stay.
_UNSEEN = r"\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
Line = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=rf"^[^{_UNSEEN}]*$")
]


class Body(BaseModel):
    """The base of request bodies: a field that is not known is refused, so that none is assigned by surprise."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def bound(cls, given: Any) -> Any:
        """Look at ten unknown fields at most: each is an error of its own, and a body can hold 100,000."""
        if isinstance(given, dict) and len(given) > len(cls.model_fields):
            unknown = [name for name in given if name not in cls.model_fields][:10]
            given = {name: given[name] for name in [*given.keys() & cls.model_fields.keys(), *unknown]}
        return given
