"""The tokens of a day may be more than an integer of PostgreSQL counts."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

TABLE, COLUMNS = "retained_usage", ("tokens_input", "tokens_output")


def upgrade() -> None:
    _change(sa.BigInteger())


def downgrade() -> None:
    _change(sa.Integer())


def _change(kind: sa.types.TypeEngine[int]) -> None:
    with op.batch_alter_table(TABLE) as table:
        for name in COLUMNS:
            table.alter_column(name, type_=kind, existing_nullable=False)
