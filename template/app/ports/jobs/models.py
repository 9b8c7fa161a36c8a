"""The tables of jobs: what is to be done, and when what comes again comes next."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Index, String, Text, UniqueConstraint
from sqlmodel import Field

from app.kit import clock
from app.ports.db.records import Record


class State(StrEnum):
    """What has become of a job. A dead one has failed for good, until somebody retries it by hand."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    DEAD = "dead"


class Job(Record, table=True):
    """A call of a task. Who works on it holds a claim, which is another one at each attempt, and renews the lease."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index(None, "state", "queue", "run_at"),
        Index(None, "finished_at"),
        UniqueConstraint("task", "unique_key"),
    )

    task: str = Field(max_length=200)
    queue: str = Field(max_length=16)
    arguments: str = Field(sa_type=Text)
    owner_id: UUID | None = Field(default=None, foreign_key="users.id", ondelete="CASCADE", index=True)
    # Held until the job has ended, so that there is one at a time.
    unique_key: str | None = Field(default=None, max_length=200)
    state: State = Field(default=State.QUEUED, sa_type=String(16))
    attempts: int = 0
    most_attempts: int
    run_at: datetime = Field(default_factory=clock.now)
    claim: UUID | None = None
    lease_until: datetime | None = None
    progress: float | None = None
    note: str | None = Field(default=None, max_length=200)
    result: str | None = Field(default=None, sa_type=Text)
    # What its owner may read, and what only those see who run the service.
    error: str | None = Field(default=None, max_length=500)
    traceback: str | None = Field(default=None, sa_type=Text)
    finished_at: datetime | None = None


class JobSchedule(Record, table=True):
    """When a cron comes next; whoever moves it on enqueues the job, in the same transaction."""

    __tablename__ = "job_schedules"

    task: str = Field(max_length=200, unique=True)
    # The expression and the zone that the time follows from.
    cron: str = Field(max_length=200)
    next_at: datetime
