"""audit log

Entries of an organization form LANES hash chains. A transaction takes a free lane at its end and keeps it through its
COMMIT: transactions of one organization wait for one another only when more than that commit at once.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

LANES = 16

# A backend begins at a lane of its own, and finds again the one that its transaction has. What is read after the lock
# was taken, by a statement of its own, has the last entry of whoever had it before: locks end after the COMMIT shows.
APPEND = f"""
CREATE FUNCTION append_audit_entry(
    p_organization_id uuid, p_id uuid, p_occurred_at timestamptz, p_actor_id uuid, p_api_key_id uuid, p_action text,
    p_target_id uuid, p_details text, p_address text, p_request_id text, p_key_id text, p_mac bytea
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    first_lane CONSTANT integer := pg_backend_pid() % {LANES};
    chosen integer;
    last_sequence bigint;
    last_hash bytea;
BEGIN
    FOR step IN 0..{LANES - 1} LOOP
        chosen := (first_lane + step) % {LANES};
        EXIT WHEN pg_try_advisory_xact_lock(hashtextextended(concat_ws(' ', 'audit', p_organization_id, chosen), 0));
        chosen := NULL;
    END LOOP;
    IF chosen IS NULL THEN
        chosen := first_lane;
        PERFORM pg_advisory_xact_lock(hashtextextended(concat_ws(' ', 'audit', p_organization_id, chosen), 0));
    END IF;
    SELECT sequence, hash INTO last_sequence, last_hash FROM audit_entries
        WHERE organization_id = p_organization_id AND lane = chosen ORDER BY sequence DESC LIMIT 1;
    last_sequence := coalesce(last_sequence, 0) + 1;
    INSERT INTO audit_entries (
        organization_id, lane, sequence, id, occurred_at, actor_id, api_key_id, action,
        target_id, details, address, request_id, key_id, mac, hash
    ) VALUES (
        p_organization_id, chosen, last_sequence, p_id, p_occurred_at, p_actor_id, p_api_key_id, p_action,
        p_target_id, p_details::jsonb, p_address, p_request_id, p_key_id, p_mac,
        sha256(coalesce(last_hash, '') || int8send(chosen) || int8send(last_sequence) || p_mac)
    );
END $$
"""

REFUSE = """
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE insufficient_privilege USING MESSAGE = format('%s is append-only', TG_TABLE_NAME);
END $$
"""
TABLES = ("audit_entries", "audit_checkpoints")


def upgrade() -> None:
    op.create_table(
        "audit_entries",
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("lane", sa.SmallInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("occurred_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("api_key_id", sa.Uuid(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target_id", sa.Uuid(), nullable=True),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("organization_id", "lane", "sequence", name=op.f("pk_audit_entries")),
    )
    op.create_index("ix_audit_entries_occurred_at", "audit_entries", ["organization_id", "occurred_at", "id"])
    for name, column in (("action", "action"), ("actor", "actor_id"), ("target", "target_id")):
        columns = ["organization_id", column, "occurred_at", "id"]
        op.create_index(f"ix_audit_entries_{name}", "audit_entries", columns)
    op.create_index("ix_audit_entries_recent", "audit_entries", ["occurred_at"], postgresql_using="brin")
    op.create_table(
        "audit_checkpoints",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("made_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("heads", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_checkpoints")),
    )
    op.execute(APPEND)
    op.execute(REFUSE)
    for table in TABLES:
        # The owner may grant itself what it revokes: that is an act of its own, and the triggers stay.
        op.execute(f"REVOKE UPDATE, DELETE, TRUNCATE ON {table} FROM CURRENT_USER, PUBLIC")
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()"
        )


def downgrade() -> None:
    op.drop_table("audit_checkpoints")
    op.drop_table("audit_entries")
    op.execute("DROP FUNCTION refuse_audit_change()")
    op.execute("DROP FUNCTION append_audit_entry")
