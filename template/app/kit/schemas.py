"""What request bodies are made of. Characters that not every database can store, or nobody can see, end in a 422."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

Line = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")
]


class Body(BaseModel):
    """The base of request bodies: a field that is not known is refused, so that none is assigned by surprise."""

    model_config = ConfigDict(extra="forbid")
