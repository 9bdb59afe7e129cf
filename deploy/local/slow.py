"""`make slow`: what took the databases most time, and how they went about the last statements that were slow."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.local import postgres
from deploy.local.postgres import Cluster, PostgresError, Server

# The view tells of all databases of its server. A cluster that an older version has made lacks it.
INSTALL = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements"
STATEMENTS = r"""
SELECT format('%s ms in all, %s calls, %s ms each, %s ms at most, %s rows each: %s',
              round(total_exec_time), calls, round(mean_exec_time::numeric, 2), round(max_exec_time),
              round(rows::numeric / calls, 1), left(regexp_replace(query, '\s+', ' ', 'g'), 300))
FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid
WHERE datname = 'headroom' ORDER BY total_exec_time DESC LIMIT {count}
"""
READ_BYTES = 2_000_000  # of the end of a log
# A plan that was made for certain values quotes them. What is shown here gets pasted elsewhere.
VALUE = re.compile(r"'(?:[^']|'')*'")
BEGIN = re.compile(r"^(?P<at>\S+ \S+) .*duration: (?P<ms>[\d.]+) ms  plan:$")


@dataclass(frozen=True, slots=True)
class SlowStatement:
    at: str
    ms: float
    lines: tuple[str, ...]  # the statement, then its plan


def report(cluster: Cluster, logs: Path, count: int) -> str:
    """At most `count` of each, by server."""
    try:
        postgres.query(cluster.primary, INSTALL)
    except PostgresError as error:
        return f"the primary does not answer: {error}"
    return "\n".join(line for server in cluster.servers for line in _of_server(server, logs, count))


def _of_server(server: Server, logs: Path, count: int) -> Iterator[str]:
    yield f"== {server.label}: most time in all"
    try:
        yield postgres.query(server, STATEMENTS.format(count=count)) or "nothing yet"
    except PostgresError as error:
        yield str(error).strip()
    slow = list(plans(_end_of(logs / f"postgres-{server.label}.log")))[-count:]
    yield f"== {server.label}: the last slow ones, with their plans" if slow else f"== {server.label}: none was slow"
    for statement in slow:
        yield f"-- {statement.at}, {statement.ms:.0f} ms"
        yield from statement.lines


def plans(log: str) -> Iterator[SlowStatement]:
    """What auto_explain wrote: a line that says how long, and indented ones behind it."""
    lines = log.splitlines()
    for number, line in enumerate(lines):
        if (begin := BEGIN.match(line)) is not None:
            yield SlowStatement(begin["at"], float(begin["ms"]), tuple(_indented(lines[number + 1 :])))


def _indented(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith("\t"):
            return
        yield VALUE.sub("'…'", line.removeprefix("\t"))


def _end_of(log: Path) -> str:
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - READ_BYTES))
        return file.read().decode(errors="replace")
