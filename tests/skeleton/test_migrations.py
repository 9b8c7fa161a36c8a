"""Migrations that could lose rows, which run inside services."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from app.kit.settings import forget

REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "{number}", "{before}", None, None


def upgrade() -> None:
{upgrade}


def downgrade() -> None:
    pass
"""
PARENTS = """
    op.create_table("parents", sa.Column("id", sa.Integer(), primary_key=True), sa.Column("name", sa.String(10)))
    op.create_table(
        "children",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("parent", sa.Integer(), sa.ForeignKey("parents.id", ondelete="CASCADE")),
    )
    op.execute("INSERT INTO parents VALUES (1, 'Ada')")
    op.execute("INSERT INTO children VALUES (1, 1)")
"""
WIDER = """
    with op.batch_alter_table("parents") as batch:
        batch.alter_column("name", type_=sa.String(20))
"""
ORPHANS = """
    op.execute("DELETE FROM parents")
"""


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """A copy of the migrations with revisions that follow, on a database of its own."""
    root = Path(__file__).parents[2]
    shutil.copytree(root / "migrations", tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    versions = tmp_path / "migrations" / "versions"
    before = max(path.name[:4] for path in versions.glob("*.py"))
    for step, upgrade in enumerate((PARENTS, WIDER, ORPHANS), 1):
        number = f"{int(before) + 1:04}"
        (versions / f"{number}_step_{step}.py").write_text(
            REVISION.format(number=number, before=before, upgrade=upgrade)
        )
        before = number
    config = Config()
    config.set_main_option("script_location", str(tmp_path / "migrations"))
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/app.db")
    forget()
    yield config
    forget()


def test_altering_a_table_keeps_the_rows_that_belong_to_its_rows(history: Config, tmp_path: Path) -> None:
    command.upgrade(history, "head-1")
    with create_engine(f"sqlite:///{tmp_path}/app.db").connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM children")).scalar_one() == 1
        assert str(sa.inspect(connection).get_columns("parents")[1]["type"]) == "VARCHAR(20)"
        assert sa.inspect(connection).get_foreign_keys("children")[0]["referred_table"] == "parents"


def test_a_revision_that_leaves_orphans_is_not_applied(history: Config, tmp_path: Path) -> None:
    command.upgrade(history, "head-1")
    with pytest.raises(SystemExit, match="whose parents are gone"):
        command.upgrade(history, "head")
    with create_engine(f"sqlite:///{tmp_path}/app.db").connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM parents")).scalar_one() == 1
