"""What goes over the wire about projects."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.kit.schemas import Body, Line

Prose = Annotated[str, StringConstraints(max_length=10_000, pattern=r"^[^\x00]*$")]


class ProjectCreate(Body):
    """A new project."""

    name: Line = Field(examples=["Analytical Engine"])
    description: Prose = Field("", examples=["Weaves algebraical patterns."])


class ProjectUpdate(Body):
    """What to change; what is left out stays as it is."""

    name: Line = Field(default_factory=str, examples=["Difference Engine"])
    description: Prose = Field(default_factory=str, examples=["Tabulates polynomials."])


class ProjectRead(BaseModel):
    """A project, as its owner sees it."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str = Field(examples=["Analytical Engine"])
    description: str = Field(examples=["Weaves algebraical patterns."])
    created_at: datetime
    updated_at: datetime
