"""What goes over the wire about jobs."""

import json
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, Field

from app.ports.jobs.models import State


def _parsed(stored: Any) -> Any:
    return json.loads(stored) if isinstance(stored, str) else stored


class TaskRead(BaseModel):
    """A job, as its owner sees it. Results are kept for some days after the end."""

    id: UUID
    task: str = Field(examples=["reports.export"])
    state: State = Field(description="queued, running, succeeded, or dead, which has failed for good.")
    attempts: int = Field(description="How often it was tried.")
    progress: float | None = Field(description="From 0 to 1, where the task tells.")
    note: str | None = Field(description="What it is doing, where the task tells.")
    result: Annotated[Any, BeforeValidator(_parsed)]
    error: str | None = Field(description="Why the last attempt failed, also while it is tried again.")
    created_at: datetime
    run_at: datetime = Field(description="When it was due, or is to be tried again.")
    finished_at: datetime | None
