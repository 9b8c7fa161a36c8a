"""Migrations that could lose rows, which run inside services."""

import shutil
from argparse import Namespace
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import create_engine, text

from app.kit.errors import Unavailable
from app.kit.settings import forget
from app.ports.db.database import Database

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
UNKNOWN = """
    op.create_table(
        "extras",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("user_id", sa.CHAR(32), sa.ForeignKey("users.id"), index=True),
    )
    with op.batch_alter_table("users") as batch:
        batch.add_column(sa.Column("badge", sa.String(10), nullable=False, index=True))
        batch.add_column(sa.Column("friend", sa.CHAR(32), sa.ForeignKey("users.id", name="fk_friend")))
"""
FORGOTTEN = """
    with op.batch_alter_table("users") as batch:
        batch.drop_column("created_at")
        batch.drop_column("display_name")
"""


@pytest.fixture
def history(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """A copy of the migrations with revisions that follow, on a database of its own."""
    root = Path(__file__).parents[2]
    shutil.copytree(root / "migrations", tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    versions = tmp_path / "migrations" / "versions"
    before = max(path.name[:4] for path in versions.glob("*.py"))
    for step, upgrade in enumerate(getattr(request, "param", (PARENTS, WIDER, ORPHANS)), 1):
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


def write(history: Config, drop: str = "") -> tuple[str, str]:
    """Let Alembic write a revision. Returns what it does, nothing where it wrote none, and what Alembic said."""
    versions = Path(str(history.get_main_option("script_location"))) / "versions"
    before = set(versions.glob("*.py"))
    history.cmd_opts = Namespace(autogenerate=True, x=[f"drop={drop}"] if drop else None)
    history.stdout = StringIO()
    command.revision(history, autogenerate=True, message="next")
    history.cmd_opts = None
    written = [path.read_text() for path in set(versions.glob("*.py")) - before]
    upgrade = "".join(written).partition("def upgrade")[2].partition("def downgrade")[0]
    return upgrade, history.stdout.getvalue()


@pytest.mark.parametrize("history", [(UNKNOWN,)], indirect=True)
def test_what_the_code_does_not_know_is_kept_until_it_is_named(history: Config, tmp_path: Path) -> None:
    command.upgrade(history, "head")
    # Nothing writes this column any more, so it may be empty now; rows would be refused otherwise.
    with pytest.raises(CommandError, match="modify_nullable"):
        command.check(history)
    written, said = write(history)
    assert "nullable=True" in written
    assert "drop_table" not in written
    assert "drop_column" not in written
    assert "Only in the database: extras,users.badge,users.friend." in said
    command.upgrade(history, "head")
    command.check(history)
    with create_engine(f"sqlite:///{tmp_path}/app.db").begin() as connection:
        columns = {column["name"]: column for column in sa.inspect(connection).get_columns("users")}
        assert columns["badge"]["nullable"]
        connection.execute(text("INSERT INTO extras (id) VALUES (1)"))

    written, said = write(history)
    assert written == ""
    assert "Only in the database: extras,users.badge,users.friend." in said
    assert "there is nothing to write" in said

    written, _ = write(history, drop="typo")
    assert written == ""
    written, _ = write(history, drop="extras,users.friend")
    assert "drop_table('extras')" in written
    assert "drop_column('friend')" in written
    assert "badge" not in written
    command.upgrade(history, "head")
    command.check(history)
    with create_engine(f"sqlite:///{tmp_path}/app.db").connect() as connection:
        inspector = sa.inspect(connection)
        assert "extras" not in inspector.get_table_names()
        assert "friend" not in {column["name"] for column in inspector.get_columns("users")}
        assert "badge" in {column["name"] for column in inspector.get_columns("users")}


@pytest.mark.parametrize("history", [(FORGOTTEN,)], indirect=True)
def test_a_new_column_that_rows_cannot_have_is_told(history: Config) -> None:
    command.upgrade(history, "head")
    written, said = write(history)
    assert "'display_name'" in written
    assert "# ###" not in written
    told = [line for line in said.splitlines() if line.startswith("Required")]
    assert told == ["Required, and no row has it yet: users.created_at. Give it a server_default."]


def test_a_database_that_cannot_be_reached_ends_in_a_sentence(history: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise Unavailable("no") from ConnectionRefusedError("not at home")

    monkeypatch.setattr(Database, "open", refuse)
    with pytest.raises(SystemExit, match="^not at home\nCheck that DATABASE_URL names"):
        command.upgrade(history, "head")
