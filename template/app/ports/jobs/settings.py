"""Settings of jobs, and the engine that they name."""

from collections.abc import Mapping

from fastapi import FastAPI
from pydantic import Field, field_validator, model_validator

from app.kit.settings import CoreSettings, ModuleSettings, SettingsError, load
from app.ports.db.database import Database
from app.ports.jobs.adapters import ENGINES
from app.ports.jobs.engine import Engine
from app.ports.jobs.tasks import Queue


class JobSettings(ModuleSettings):
    """Jobs."""

    jobs_in_web: bool = Field(
        True, description="Let the processes that serve run jobs as well. With workers of their own: false."
    )
    jobs_default_at_once: int = Field(8, ge=1, le=1000, description="Jobs that a process runs at once.")
    jobs_heavy_at_once: int = Field(1, ge=1, le=1000, description="The same of the queue heavy, beside them.")
    jobs_llm_at_once: int = Field(4, ge=1, le=1000, description="The same of the queue llm.")
    jobs_poll_seconds: float = Field(
        1, ge=0.05, le=60, description="How often a process looks for jobs that others have left."
    )
    jobs_lease_seconds: float = Field(
        60, ge=1, le=3600, description="After so long without a sign of life a job is somebody else's."
    )
    jobs_drain_seconds: float = Field(
        10, ge=0, le=300, description="How long running jobs may take on SIGTERM, before they go back to the queue."
    )
    jobs_keep_days: int = Field(7, ge=1, description="How long results are kept.")
    jobs_keep_dead_days: int = Field(90, ge=1, description="How long jobs that failed for good are kept.")
    jobs_engine: str = Field(list(ENGINES)[-1], description=f"What brings jobs to their workers: {', '.join(ENGINES)}.")

    @field_validator("jobs_engine")
    @classmethod
    def is_there(cls, value: str) -> str:
        """Refuse what this service has no adapter for."""
        if value not in ENGINES:
            raise ValueError(f"is none of {', '.join(ENGINES)}")
        return value

    @model_validator(mode="after")
    def guard_hand_over(self) -> "JobSettings":
        """Refuse in production an engine that lacks what it needs."""
        try:
            missing = ENGINES[self.jobs_engine].missing() if load(CoreSettings).production else None
        except SettingsError:
            return self  # What is wrong there is told there.
        if missing:
            raise ValueError(f"JOBS_ENGINE: {self.jobs_engine} needs {missing}; or set JOBS_ENGINE=embedded.")
        return self

    @property
    def slots(self) -> Mapping[Queue, int]:
        """How many jobs of each queue a process runs at once."""
        return {
            Queue.DEFAULT: self.jobs_default_at_once,
            Queue.HEAVY: self.jobs_heavy_at_once,
            Queue.LLM: self.jobs_llm_at_once,
        }


def make_engine(app: FastAPI, database: Database, settings: JobSettings) -> Engine:
    """Make the engine that the settings name."""
    return ENGINES[settings.jobs_engine](app, database, settings)
