"""How a statement says where it comes from, to pg_stat_activity and to the server's log.

A comment is part of the text that prepared statements are cached by, so that it may hold the route's template (one more
text per route and statement) but no trace or request id (one more per request). Those go into `application_name`, with
the BEGIN of a write, where they cost no round trip; a read has neither a transaction nor locks to be traced by.
"""

import re
from functools import lru_cache

from app.platform.telemetry.context import UNMATCHED_ROUTE, RequestContext

UNSAFE = re.compile(r"[^A-Za-z0-9_/{}.:-]")
NAME_BYTES = 63  # NAMEDATALEN - 1: Postgres cuts off the rest


@lru_cache(maxsize=1_024)
def route_comment(route: str) -> str:
    return "" if route == UNMATCHED_ROUTE else f"/* {UNSAFE.sub('', route)} */ "


def request_name(application: str, context: RequestContext) -> str:
    """The application's name and the id of the request: its trace's, where it is part of one."""
    identity = UNSAFE.sub("", context.trace_id or context.request_id)
    return f"{application} {identity}"[:NAME_BYTES]
