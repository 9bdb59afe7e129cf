"""The figures of the audit that the example features come from, beside this service's, at the audit's own size.

It counted 274 items with five checkouts each, 50 KB a document, and 50 ms a query.
"""

from collections.abc import Iterator

from bench.client import Answer, Client
from bench.report import Table
from bench.servers import Server

OWNER, OWNER_OF_DOCUMENTS = "demo@example.com", "demo-274-50000@example.com"
DOCUMENT_BYTES = 50_000
ITEMS = 274
FIELDS = "asset_tag,name,status"
AUDITED_BYTES = 13_700_000
AUDITED_QUERIES = 1_370
AUDITED_SECONDS = 68.0
BATCH = [
    {"id": "list", "method": "GET", "url": f"/api/v1/equipment?limit=200&fields={FIELDS}"},
    {"id": "analytics", "method": "GET", "url": "/api/v1/analytics/equipment"},
    {"id": "checkouts", "method": "GET", "url": "/api/v1/checkouts?limit=200"},
]


def audit(uncached: Server) -> Table:
    client = Client.logged_in(uncached, OWNER)
    found = [*_bytes(Client.logged_in(uncached, OWNER_OF_DOCUMENTS)), *_queries(client), *_requests(client)]
    return Table(
        title=f"The audit's figures at its size: {ITEMS} items, 5 checkouts each, nothing cached",
        columns=("", "audit", "here", "ratio"),
        rows=[
            (what, _amount(then, unit), _amount(now, unit), f"1 : {then / now:,.0f}") for what, then, now, unit in found
        ],
        notes="Bytes before compression. A page holds 200 items at most: the 274 take two requests.",
        figures=[{"what": what, "audit": then, "here": now, "unit": unit} for what, then, now, unit in found],
    )


Row = tuple[str, float, float, str]


def _bytes(client: Client) -> Iterator[Row]:
    """Documents of 50 KB: all of them, and the three fields that a list shows."""
    whole, chosen = list(client.pages("/equipment")), list(client.pages("/equipment", fields=FIELDS))
    yield "list, all fields", AUDITED_BYTES / 1e3, _total(whole, "bytes") / 1e3, "KB"
    yield f"list, fields={FIELDS}", AUDITED_BYTES / 1e3, _total(chosen, "bytes") / 1e3, "KB"


def _queries(client: Client) -> Iterator[Row]:
    pages = list(client.pages("/equipment", expand="checkouts"))
    queries = [client.queries(page) for page in pages]
    assert sum(len(item["checkouts"]) for page in pages for item in page.json["items"]) == AUDITED_QUERIES
    yield "items with checkouts, queries", AUDITED_QUERIES, sum(queries), ""
    yield "the same, queries a page of any size", AUDITED_QUERIES, max(queries), ""
    yield "items with checkouts, time", AUDITED_SECONDS, _total(pages, "seconds"), "s"


def _requests(client: Client) -> Iterator[Row]:
    batch = client.post("/batch", {"requests": BATCH})
    assert all(part["status"] == 200 for part in batch.json["responses"])
    yield "list, analytics and checkouts, requests", 3, 1, ""


def _amount(value: float, unit: str) -> str:
    return f"{value:,.3g} {unit}" if value < 100 else f"{value:,.0f} {unit}"


def _total(answers: list[Answer], of: str) -> float:
    return float(sum(getattr(answer, of) for answer in answers))
