"""A replica takes the primary's place, and the old primary that of a replica: what Patroni does in production.

The order matters: the old primary is gone for good before another one commits.
"""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from deploy.local.postgres import HOST, Cluster, PostgresError, Server, copy, program, promotion_record, query, run

# The receiver's position starts anew with the receiver.
RECEIVED = "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'"
ADD_SLOT = """
SELECT pg_create_physical_replication_slot('{0}')
WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{0}')
"""
DROP_SLOTS = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active"


def furthest(replicas: Iterable[Server]) -> Server:
    """The one that received most: commits waited for any one replica, so it has all that was acknowledged."""
    return max(replicas, key=received)


def received(replica: Server) -> int:
    """Bytes of WAL that are safe on its disk."""
    return int(query(replica, RECEIVED))


def set_aside(lost: Server) -> None:
    """Nothing can start it by mistake any more. It must not run."""
    if lost.data.exists():
        lost.data.rename(_aside(lost))


def promote(replica: Server, cluster: Cluster) -> Cluster:
    """Its commits wait for one of the other servers from the first on; those find it by themselves."""
    promoted = cluster.led_by(replica)
    others = [server.name for server in promoted.replicas]
    for name in others:
        query(replica, ADD_SLOT.format(name))
    query(replica, f"ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 ({', '.join(others)})'")
    query(replica, "SELECT pg_reload_conf()")
    query(replica, "SELECT pg_promote()")
    promotion_record(cluster).write_text(replica.name)
    return promoted


def rejoin(lost: Server, primary: Server) -> None:
    """Makes a replica of what was set aside: rewound to where the new primary began, else copied from it anew."""
    aside = replace(lost, data=_aside(lost))
    query(primary, "CHECKPOINT")  # pg_rewind reads the new timeline in the control file
    try:
        run(_rewind(aside, primary))
    except PostgresError:
        shutil.rmtree(aside.data, ignore_errors=True)
        copy(lost, primary)
    else:
        aside.data.rename(lost.data)


def drop_old_slots(replica: Server) -> None:
    """Those of its time as the primary would keep WAL for ever."""
    query(replica, DROP_SLOTS)


def _rewind(target: Server, source: Server) -> list[str]:
    connection = f"host={HOST} port={source.port} user=postgres dbname=postgres"
    return [
        *(program("pg_rewind"), "--target-pgdata", str(target.data)),
        *("--source-server", connection, "--write-recovery-conf", "--no-sync"),
    ]


def _aside(server: Server) -> Path:
    return server.data.with_suffix(".lost")
