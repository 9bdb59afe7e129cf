#!/bin/bash
# Makes the roles, the database and the replication slots on a new primary. psql connects as libpq's PG* variables say.
# REPLICAS: how many streaming replicas there will be.
# APP_PASSWORD, REPLICATION_PASSWORD: of the roles headroom and replicator.
set -euo pipefail

standbys=$(seq -s ', ' -f 'replica_%g' "$REPLICAS")

psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --dbname postgres \
     --set app_password="$APP_PASSWORD" --set replication_password="$REPLICATION_PASSWORD" \
     --set replicas="$REPLICAS" --set synchronous="${standbys:+ANY 1 ($standbys)}" >/dev/null <<'SQL'
CREATE ROLE headroom LOGIN CREATEDB PASSWORD :'app_password';
GRANT pg_monitor TO headroom;  -- /health reads the state of replication
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replication_password';
CREATE DATABASE headroom OWNER headroom;
SELECT pg_create_physical_replication_slot('replica_' || n) FROM generate_series(1, :replicas) AS n;
CREATE EXTENSION pg_stat_statements;
-- Takes effect when the server is started again: commits wait for a standby from then on.
ALTER SYSTEM SET synchronous_standby_names = :'synchronous';
SQL
