"""`make slow`: which statements took the time, and how the server went about them."""

import asyncpg

from deploy.local.slow import plans
from tests.support.mixed_load import primary_dsn
from tests.support.native import NativeStack

LOG = """\
2026-11-20 22:00:43.805 UTC [7515] headroom@headroom/api-1 abc LOG:  duration: 812.250 ms  plan:
\tQuery Text: /* /api/v1/equipment */ SELECT id
\t  FROM equipment
\tSeq Scan on equipment  (cost=0.00..8.27 rows=1 width=16)
2026-11-20 22:00:44.000 UTC [7515] headroom@headroom/api-1 LOG:  duration: 0.9 s, of something else
\tnot a plan
"""


def test_plans_are_read_from_the_log() -> None:
    [slow] = plans(LOG)
    assert (slow.at, slow.ms) == ("2026-11-20 22:00:43.805", 812.25)
    assert slow.lines[0] == "Query Text: /* /api/v1/equipment */ SELECT id"
    assert slow.lines[-1].startswith("Seq Scan on equipment")


async def test_it_shows_statements_and_plans(stack: NativeStack) -> None:
    connection = await asyncpg.connect(primary_dsn(stack))
    statement = "/* /slow/route */ SELECT pg_sleep(0.6) FROM equipment WHERE name <> $1 LIMIT 1"
    await connection.fetchval(statement, "a private value")
    await connection.close()
    shown = stack.must("slow", "--count", "50")
    assert "== primary: most time in all" in shown
    assert "calls" in shown
    assert "/* /slow/route */ SELECT pg_sleep($" in shown
    assert "Query Text: /* /slow/route */ SELECT pg_sleep" in shown
    assert "Scan" in shown
    assert "== replica-1: most time in all" in shown
    assert "a private value" not in shown
