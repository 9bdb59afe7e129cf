"""Requests per second of the service with all patterns on, beside a bare endpoint and a hand-written list."""

from collections.abc import Callable
from dataclasses import asdict
from statistics import median
from typing import Any

import httpx

from app.features.equipment.schemas import OWN_FIELDS
from bench.client import API, Client
from bench.load import Load, Subject, interleaved, middle, ratios
from bench.processes import BenchError
from bench.report import Table, spread
from bench.servers import Server, Servers

OWNER, CREATOR = "demo@example.com", "creator@example.com"
BARE, BY_HAND = "bare endpoint", "hand-written list of 20"
CACHED, UNCACHED = "list of 20, cached", "list of 20, cache off"
MISSED = "list of 20, missed and kept"
CREATE = "create, committed before the answer"
NEW_ITEM = '{"asset_tag": "B-{n}", "name": "Aurora camera 1A", "category": "camera"}'
ALL_FIELDS = f"fields={{n}}&fields={','.join(OWN_FIELDS)}"
# What it is compared with, and how much of it has to be reached.
GOALS = {CACHED: (BARE, 1.5), UNCACHED: (BY_HAND, 0.8), CREATE: (BARE, 0.1)}


def throughput(servers: Servers, cached: Server, uncached: Server, tell: Callable[[str], None], **how: int) -> Table:
    subjects = all_subjects(servers, cached, uncached)
    loads = interleaved(subjects, cores=servers.cores.others, tell=tell, **how)
    return Table(
        title="Throughput, one worker each, 32 connections",
        columns=("", "req/s", "p50 ms", "p99 ms", "CPU µs", "× bare", "by CPU", "goal and ratio"),
        rows=[_row(subject.name, loads) for subject in subjects],
        notes="Ratios: median (least to greatest) of the rounds. CPU µs: of the worker, per request; `by CPU`: the\n"
        "ratio of that, which is the one to go by on a machine that does other things as well.",
        figures={name: [asdict(load) for load in runs] for name, runs in loads.items()},
    )


def all_subjects(servers: Servers, cached: Server, uncached: Server) -> list[Subject]:
    client, without_cache = Client.logged_in(cached, OWNER), Client.logged_in(uncached, OWNER)
    page = client.get("/equipment", limit=20).json
    by_hand = servers.baseline("asyncpg_list")
    me = client.get("/auth/me").json
    list_by_hand = f"/organizations/{me['organization_id']}/equipment?limit=20"
    _refuse_other_items(by_hand, list_by_hand, page)
    creator = Client.registered(cached, CREATOR)  # of an organization of its own: the lists of others stay as they are
    several, one = f"{API}/equipment?limit=20", f"{API}/equipment/{page['items'][0]['id']}"
    # Another query string each time, with the same meaning: of requests that are equal one would answer for all.
    distinct = several.replace("?", "?limit={n}&")
    return [
        Subject(BARE, servers.baseline("bare"), "/"),
        Subject(CACHED, cached, several, client.headers),
        Subject("get by key, cached", cached, one, client.headers),
        Subject(BY_HAND, by_hand, list_by_hand.replace("?", "?limit={n}&")),
        Subject(UNCACHED, uncached, distinct, without_cache.headers),
        Subject(MISSED, cached, distinct, client.headers),
        Subject(
            "get by key, cache off",
            uncached,
            f"{one}?fields={{n}}&fields={','.join(OWN_FIELDS)}",
            without_cache.headers,
        ),
        Subject(CREATE, cached, f"{API}/equipment", creator.headers, body=NEW_ITEM),
    ]


def _refuse_other_items(server: Server, path: str, page: Any) -> None:
    """A comparison of the same answers, or none."""
    if httpx.get(f"{server.url}{path}").json()["items"] != page["items"]:
        raise BenchError("the hand-written list gives other items than the service")


def _row(name: str, loads: dict[str, list[Load]]) -> tuple[str, ...]:
    own = loads[name]
    base, wanted = GOALS.get(name, (BARE, None))
    return (
        name,
        f"{middle(own, 'rate'):,.0f}",
        f"{middle(own, 'p50_ms'):.2f}",
        f"{middle(own, 'p99_ms'):.2f}",
        f"{middle(own, 'cpu_us'):.0f}",
        spread(ratios(own, loads[BARE])),
        f"{median(ratios(loads[BARE], own, of='cpu_us')):.2f}",
        "" if wanted is None else f"{wanted} × {base}: {_compared(own, loads[base])}",
    )


def _compared(own: list[Load], base: list[Load]) -> str:
    return f"{spread(ratios(own, base))}, by CPU {median(ratios(base, own, of='cpu_us')):.2f}"
