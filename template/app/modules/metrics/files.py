"""What is measured of files, as a part of the service."""

from collections.abc import Sequence

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from sqlalchemy import func, select

from app.modules.files.models import File, FileState
from app.modules.metrics.rows import reading_module
from app.ports.db.database import Database

_files = File.__table__  # type: ignore[attr-defined]
_KEPT = (
    select(_files.c.state, func.count().label("files"), func.sum(_files.c.size).label("size"))
    .where(_files.c.deleted_at.is_(None))
    .group_by(_files.c.state)
)


async def read_files(database: Database) -> Sequence[Metric]:
    """Count the files that are kept, and those that somebody wants to upload. Every process tells the same."""
    files = GaugeMetricFamily("files", "Files of users, the same from every process.", labels=["state"])
    size = GaugeMetricFamily("files_bytes", "What they hold, or what is announced.", labels=["state"])
    found = {row.state: row for row in await database.fetch(_KEPT)}
    for state in FileState:
        row = found.get(state)
        files.add_metric([state.value], row.files if row else 0)
        size.add_metric([state.value], int(row.size) if row else 0)
    return [files, size]


metrics_files = reading_module("files", read_files)
