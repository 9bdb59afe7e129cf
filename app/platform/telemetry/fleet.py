"""The metrics of all instances in one answer, told apart by an `instance` label, for those who can't scrape each.

Prometheus itself does better with one target per instance; scrape this one with `honor_labels: true`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import urlsplit

import anyio.to_thread
import httpx
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from app.platform.telemetry.exposition import plain_text
from app.platform.telemetry.traces import outgoing

PEER_TIMEOUT_SECONDS = 1.0
MAX_PEER_BYTES = 16 * 1024 * 1024


class FleetMetrics:
    """Asks `<peer>/metrics` of each base URL, all at once. One that does not answer in time has `up{instance} 0`.

    Without peers this instance is the fleet, and tells what `/metrics` does.
    """

    def __init__(
        self,
        peers: Sequence[str],
        *,
        timeout_seconds: float = PEER_TIMEOUT_SECONDS,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._peers = peers
        self._timeout = timeout_seconds
        self._transport = transport
        # Loading the certificates takes 15 ms of the event loop: only where they are needed.
        self._verify = any(peer.startswith("https:") for peer in peers)

    async def exposition(self) -> bytes:
        if not self._peers:
            return await anyio.to_thread.run_sync(plain_text)
        async with httpx.AsyncClient(
            timeout=self._timeout, verify=self._verify, trust_env=False, transport=self._transport
        ) as client:
            texts = await asyncio.gather(*(self._ask(client, peer) for peer in self._peers))
        answers = dict(zip(map(_instance, self._peers), texts, strict=True))
        return await anyio.to_thread.run_sync(_merged, answers)

    async def _ask(self, client: httpx.AsyncClient, peer: str) -> str | None:
        url = f"{peer.rstrip('/')}/metrics"
        try:
            with outgoing("GET /metrics", **{"server.address": _instance(peer)}) as headers:
                async with asyncio.timeout(self._timeout), client.stream("GET", url, headers=headers) as response:
                    response.raise_for_status()
                    return await _bounded_text(response)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError):
            return None


async def _bounded_text(response: httpx.Response) -> str:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_PEER_BYTES:
            raise ValueError("more metrics than an instance can have")
    return body.decode()


def _instance(peer: str) -> str:
    """host:port, which is what Prometheus calls a target."""
    return urlsplit(peer).netloc.rpartition("@")[2] or peer


def _merged(answers: dict[str, str | None]) -> bytes:
    up = GaugeMetricFamily("up", "Whether the instance told its metrics.", labels=["instance"])
    families: dict[str, Metric] = {}
    for instance, text in answers.items():
        parsed = _parsed(text)
        up.add_metric([instance], float(parsed is not None))
        for family in parsed or ():
            merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            merged.samples += (
                sample._replace(labels={**sample.labels, "instance": instance}) for sample in family.samples
            )
    registry = CollectorRegistry()
    registry.register(_Families([up, *families.values()]))
    return generate_latest(registry)


def _parsed(text: str | None) -> list[Metric] | None:
    if text is None:
        return None
    try:
        return list(text_string_to_metric_families(text))
    except (ValueError, IndexError, KeyError):  # it checks little before it indexes
        return None


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


def fleet_router(fleet: FleetMetrics) -> APIRouter:
    """`GET /metrics/fleet`, for operators: keep it off the public port."""
    router = APIRouter(include_in_schema=False)

    @router.get("/metrics/fleet")
    async def fleet_metrics() -> Response:
        return Response(await fleet.exposition(), media_type=CONTENT_TYPE_LATEST)

    return router
