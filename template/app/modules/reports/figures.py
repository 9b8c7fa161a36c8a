"""What a report consists of: modules add what they count to `app.state.figures` when they open."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlmodel.ext.asyncio.session import AsyncSession


class Period(NamedTuple):
    """What a report is about: from a time on, until before another one."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Figure:
    """How much there was of something, such as "New users". It names nobody: mails are read in many places."""

    what: str
    count: int
    detail: str = ""
    # What happens on every day makes none worth a look.
    routine: bool = False


# Counts, in a session that changes nothing.
Count = Callable[[AsyncSession, Period], Awaitable[Sequence[Figure]]]
