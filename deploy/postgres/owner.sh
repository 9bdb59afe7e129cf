#!/bin/bash
# Gives the database, and what is in it, to a role of its own: headroom_owner, which migrations run as. The service's role
# is left with what they grant it (migrations/rights.py), and can't change a table. Harmless where it was done before.
# psql connects as libpq's PG* variables say. OWNER_PASSWORD: of the role headroom_owner.
set -euo pipefail
export PGOPTIONS="--synchronous_commit=local"

psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --dbname headroom --set owner_password="$OWNER_PASSWORD" >/dev/null <<'SQL'
SELECT 'CREATE ROLE headroom_owner' WHERE to_regrole('headroom_owner') IS NULL \gexec
ALTER ROLE headroom_owner LOGIN PASSWORD :'owner_password';
GRANT pg_monitor TO headroom_owner;  -- a migrator names who is in its way, and waits for the replicas
REASSIGN OWNED BY headroom TO headroom_owner;
ALTER ROLE headroom NOCREATEDB;
SQL
