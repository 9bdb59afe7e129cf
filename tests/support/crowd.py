"""Many people, in one organization and in many, and what there is about each: enough for the planner to take care."""

from uuid import UUID

import asyncpg

ORGANIZATIONS = 6_000  # of one person each
MEMBERS = 6_000  # more of the organization that is big

ADD_ORGANIZATIONS = """
INSERT INTO organizations (id, name) SELECT gen_random_uuid(), 'One of many' FROM generate_series(1, $1::int)
"""
ADD_OWNERS = """
INSERT INTO users (id, organization_id, email, full_name, role, password_hash)
SELECT gen_random_uuid(), id, id || '@example.com', 'Somebody', 'owner', '-' FROM organizations
WHERE name = 'One of many'
"""
ADD_MEMBERS = """
INSERT INTO users (id, organization_id, email, full_name, role, password_hash)
SELECT gen_random_uuid(), $1, gen_random_uuid() || '@example.com', 'Somebody', 'member', '-'
FROM generate_series(1, $2::int)
"""
# Of each person; of those whom the seed made, more.
FOR_EVERYBODY = (
    """
    INSERT INTO sessions (id, organization_id, user_id, salt, token_hash, expires_at, ended_at, device, address)
    SELECT gen_random_uuid(), organization_id, id, '', '', now() + interval '1 day',
        CASE WHEN number % 3 = 0 THEN NULL ELSE now() END, 'a test', '192.0.2.' || number
    FROM users, generate_series(1, CASE WHEN email LIKE 'demo%' THEN 60 ELSE 2 END) AS number
    """,
    """
    INSERT INTO api_keys (organization_id, id, user_id, name, slot, prefix, digest, scopes, created_at, expires_at,
        revoked_at)
    SELECT organization_id, gen_random_uuid(), id, 'key ' || id, 0, 'headroom_', sha256(id::text::bytea), '{}',
        now() - random() * interval '90 days', now() + interval '1 day',
        CASE WHEN email LIKE 'demo%' THEN NULL ELSE now() END
    FROM users
    """,
    """
    INSERT INTO invitations (organization_id, id, email, role, digest, invited_by, created_at, expires_at, accepted_at)
    SELECT organization_id, gen_random_uuid(), email, 'member', sha256(id::text::bytea), id,
        now() - random() * interval '90 days', now() + interval '1 day',
        CASE WHEN email LIKE 'demo%' THEN NULL ELSE now() END
    FROM users
    """,
    """
    INSERT INTO audit_entries (organization_id, lane, sequence, id, occurred_at, actor_id, action, target_id, details,
        address, request_id, key_id, mac, hash)
    SELECT organization_id, 0, row_number() OVER (PARTITION BY organization_id), gen_random_uuid(),
        now() - random() * interval '90 days', id, (ARRAY['equipment.created', 'session.opened'])[1 + number % 2], id,
        '{}', '192.0.2.1', 'a test', 'a key', '', ''
    FROM users, generate_series(1, CASE WHEN email LIKE 'demo%' THEN 100 ELSE 2 END) AS number
    """,
    """
    INSERT INTO single_use_tokens (token_hash, purpose, user_id, expires_at)
    SELECT sha256(id::text::bytea), 'a purpose', id, now() + interval '1 day' FROM users
    """,
    "INSERT INTO second_factors (user_id, sealed_secret, enabled_at) SELECT id, '', now() FROM users",
    """
    INSERT INTO recovery_codes (user_id, code_hash)
    SELECT id, sha256((id::text || number)::bytea) FROM users, generate_series(1, 2) AS number
    """,
)


async def add_crowd(connection: asyncpg.Connection, big: UUID) -> None:
    async with connection.transaction():
        await connection.execute("SET LOCAL synchronous_commit = off")
        await connection.execute(ADD_ORGANIZATIONS, ORGANIZATIONS)
        await connection.execute(ADD_OWNERS)
        await connection.execute(ADD_MEMBERS, big, MEMBERS)
        for statement in FOR_EVERYBODY:
            await connection.execute(statement)
