"""The table of what has been reported."""

from datetime import date, datetime

from sqlmodel import Field

from app.ports.db.records import Record


class DailyReport(Record, table=True):
    """The report of a day, by the clocks of its zone. There is one of each day, and the newest is kept."""

    __tablename__ = "daily_reports"

    day: date = Field(unique=True)
    # The next one begins where this one ends.
    until: datetime
