"""Whether a page far into a long list costs what the first one costs: by cursor it should, by OFFSET it can't."""

from collections.abc import Callable
from dataclasses import asdict
from urllib.parse import urlencode

from bench.client import API, MAX_LIMIT, Client
from bench.load import Load, Subject, interleaved, middle, ratios
from bench.report import Table, spread
from bench.servers import Server, Servers

PAGE_ITEMS = 50
FIRST, FAR = "page 1 by cursor", "page {:,} by cursor"
CONTROL_FIRST, CONTROL_FAR = "page 1 by OFFSET, hand-written", "page {:,} by OFFSET, hand-written"


def paging(servers: Servers, uncached: Server, rows: int, tell: Callable[[str], None], **how: int) -> Table:
    """`rows` have been seeded. One request at a time, so that its time is seen and not a queue's."""
    client, page = Client.logged_in(uncached, f"demo-{rows}@example.com"), rows // PAGE_ITEMS
    tell(f"walking to page {page:,}")
    subjects = [
        *_by_cursor(client, uncached, page),
        *_by_offset(servers.baseline("asyncpg_list"), client.get("/auth/me").json["organization_id"], page),
    ]
    loads = interleaved(subjects, cores=servers.cores.others, tell=tell, **how)
    return Table(
        title=f"Pages of {PAGE_ITEMS} in a list of {rows:,}, nothing cached, one connection",
        columns=("", "p50 ms", "p99 ms", "× its page 1", "goal"),
        rows=[_row(subject.name, loads[subject.name], _base(loads, subject.name)) for subject in subjects],
        figures={name: [asdict(load) for load in runs] for name, runs in loads.items()},
    )


def _by_cursor(client: Client, server: Server, page: int) -> list[Subject]:
    first = f"{API}/equipment?limit={PAGE_ITEMS}"
    far = f"{first}&{urlencode({'cursor': cursor_after(client, (page - 1) * PAGE_ITEMS)})}"
    return [
        Subject(FIRST, server, first, client.headers, connections=1),
        Subject(FAR.format(page), server, far, client.headers, connections=1),
    ]


def _by_offset(server: Server, organization_id: str, page: int) -> list[Subject]:
    first = f"/organizations/{organization_id}/equipment?limit={PAGE_ITEMS}"
    far = f"{first}&offset={(page - 1) * PAGE_ITEMS}"
    return [
        Subject(CONTROL_FIRST, server, first, connections=1),
        Subject(CONTROL_FAR.format(page), server, far, connections=1),
    ]


def cursor_after(client: Client, items: int) -> str:
    """The cursor behind so many items, found as any client finds it: from page to page."""
    cursor: dict[str, str] = {}
    while items:
        limit = min(items, MAX_LIMIT)
        answer = client.get("/equipment", fields="id", limit=limit, **cursor)
        cursor, items = {"cursor": answer.json["next_cursor"]}, items - limit
    return cursor["cursor"]


def _base(loads: dict[str, list[Load]], name: str) -> list[Load]:
    return loads[FIRST if "cursor" in name else CONTROL_FIRST]


def _row(name: str, own: list[Load], base: list[Load]) -> tuple[str, ...]:
    times = ratios(own, base, of="p50_ms")
    goal = "at most 1.2" if name not in (FIRST, CONTROL_FIRST) and "cursor" in name else ""
    return name, f"{middle(own, 'p50_ms'):.2f}", f"{middle(own, 'p99_ms'):.2f}", spread(times), goal
