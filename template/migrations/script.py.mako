<%!
import re

def plain(body):
    """Leave out the marks that Alembic puts around what it has written."""
    return re.sub(r"\n* *# ### .*\n?", "", body or "").strip() or "pass"
%>\
"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision or "nothing"}
"""

from collections.abc import Sequence

import sqlalchemy as sa
import sqlmodel.sql.sqltypes
from alembic import op
${imports if imports else ""}

revision: str = ${repr(up_revision)}
down_revision: str | None = ${repr(down_revision)}
branch_labels: str | Sequence[str] | None = ${repr(branch_labels)}
depends_on: str | Sequence[str] | None = ${repr(depends_on)}


def upgrade() -> None:
    """Apply the revision."""
    ${plain(upgrades)}


def downgrade() -> None:
    """Take the revision back."""
    ${plain(downgrades)}
