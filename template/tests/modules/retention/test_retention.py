from collections.abc import Iterator
from datetime import datetime

import pytest
from fastapi import FastAPI

from app.modules.retention.rules import RULES, lets_go
from app.modules.retention.tasks import RulesFailed, clean_up
from app.ports.db.database import Database
from app.ports.jobs.tasks import TASKS, Running, run_here


@pytest.fixture(autouse=True)
def rules() -> Iterator[None]:
    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)


async def test_every_rule_of_the_service_can_be_followed(app: FastAPI, database: Database) -> None:
    assert RULES
    assert await run_here(app, clean_up()) == dict.fromkeys(RULES, 0)
    assert TASKS["retention.clean_up"].cron


async def test_a_rule_that_fails_keeps_no_other_from_being_followed(
    app: FastAPI, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[datetime] = []
    RULES.clear()

    @lets_go("broken")
    async def fail(job: Running, now: datetime) -> int:
        raise RuntimeError("no")

    @lets_go("drafts")
    async def forget(job: Running, now: datetime) -> int:
        done.append(now)
        return 3

    with pytest.raises(RulesFailed, match=r"^broken$"):
        await run_here(app, clean_up())
    assert len(done) == 1
    assert "broken" in capsys.readouterr().out
    with pytest.raises(TypeError, match="drafts: there is such a rule"):
        lets_go("drafts")(forget)
    del RULES["broken"]
    assert await run_here(app, clean_up()) == {"drafts": 3}
