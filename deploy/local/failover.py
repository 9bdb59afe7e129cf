"""`make failover`: the best replica becomes the primary, and the old primary a replica, while the service runs."""

from deploy.local import postgres
from deploy.local.options import StackError
from deploy.local.postgres import Cluster, Server
from deploy.local.programs import Program, Stack
from deploy.local.promotion import drop_old_slots, furthest, promote, received, rejoin, set_aside
from deploy.local.stack import wait_for
from deploy.local.supervisor import Supervisor


def promote_best(wanted: Stack, supervisor: Supervisor, name: str | None) -> Cluster:
    """Raises `StackError`, before anything is stopped, where acknowledged commits could be lost.

    Those are on any one replica: when the primary is lost, every replica has to be asked. `name` says that one will do.
    """
    cluster = wanted.cluster
    primary_answers = postgres.is_ready(cluster.primary)
    replicas = [replica for replica in cluster.replicas if postgres.is_ready(replica)]
    named = [replica for replica in replicas if name in (None, replica.label)]
    if not named:
        raise StackError(f"no replica {name or ''} answers")
    if len(replicas) < len(cluster.replicas) and not primary_answers and name is None:
        raise StackError(
            "a replica does not answer, and may have commits that no other has: NAME= chooses all the same"
        )
    take_out(_program(wanted, cluster.primary), supervisor, orderly=primary_answers)
    set_aside(cluster.primary)
    return promote(_choose(replicas, named), cluster)


def take_out(program: Program, supervisor: Supervisor, *, orderly: bool) -> None:
    """Stopped in order, a primary sends its replicas all that it has; one that doesn't answer is killed."""
    if orderly:
        supervisor.stop(program.name)
    else:
        supervisor.kill(program.name, program.folder)


def bring_back(lost: Server, wanted: Stack, supervisor: Supervisor) -> None:
    """As a replica; then the instances learn, one after the other, which servers they may read from now."""
    rejoin(lost, wanted.cluster.primary)
    program = _program(wanted, lost)
    supervisor.ensure(program)
    wait_for(program, supervisor)
    drop_old_slots(lost)
    changed = supervisor.update(wanted.programs)
    for instance in wanted.api:
        if instance.name in changed:
            supervisor.restart(instance.name)
            wait_for(instance, supervisor)


def _choose(replicas: list[Server], named: list[Server]) -> Server:
    best, wished = furthest(replicas), furthest(named)
    if received(wished) == received(best):
        return wished
    print(f"{wished.label} is behind {best.label}, which is promoted in its place")
    return best


def _program(wanted: Stack, server: Server) -> Program:
    return next(program for program in wanted.data if program.folder == server.data)
