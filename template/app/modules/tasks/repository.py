"""Queries for jobs. Every one is for one owner."""

from sqlalchemy import bindparam
from sqlmodel import col

from app.modules.tasks.schemas import TaskRead
from app.ports.db.records import select_fields
from app.ports.jobs.models import Job

_MINE = select_fields(Job, TaskRead).where(col(Job.owner_id) == bindparam("owner_id"))

TASK_BY_ID = _MINE.where(col(Job.id) == bindparam("job_id"))
ALL_TASKS = _MINE.order_by(col(Job.id))
