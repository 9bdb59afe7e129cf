#!/bin/bash
# Copies the primary into PGDATA unless a copy is there already, ready to stream from it.
# PRIMARY_HOST, PRIMARY_PORT; where several hosts are named, that of the primary is found, after a promotion too.
# REPLICA_NAME: replica_1, replica_2, ...: its slot, and its name in synchronous_standby_names.
# PGPASSWORD: of the role replicator.
set -euo pipefail

[ ! -s "$PGDATA/PG_VERSION" ] || exit 0

pg_basebackup --pgdata "$PGDATA" --wal-method stream --checkpoint fast --write-recovery-conf --slot "$REPLICA_NAME" \
    --dbname "host=$PRIMARY_HOST port=$PRIMARY_PORT user=replicator application_name=$REPLICA_NAME \
target_session_attrs=primary connect_timeout=2"
