"""What goes over the wire about one's own data."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field, SecretStr, WithJsonSchema

from app.kit.schemas import Body

Password = Annotated[
    SecretStr,
    Field(min_length=1, max_length=128, description="The password of the account, where the service keeps accounts."),
    WithJsonSchema({"type": "string", "format": "password", "writeOnly": True, "minLength": 1, "maxLength": 128}),
]


class ExportStarted(BaseModel):
    """An export that is being made."""

    task_id: UUID = Field(description="The task that makes it: ask /tasks/{id} how it is.")


class Erasure(Body):
    """What shows that it is the owner who asks."""

    password: Password | None = None


class Farewell(BaseModel):
    """What has been deleted, and what has not."""

    detail: str
