"""Prometheus, Alertmanager and the exporters beside the stack (`make up OBSERVE=1`), from Debian's packages."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.local import redis
from deploy.local.options import ROOT, Options, StackError
from deploy.local.postgres import Server
from deploy.local.templates import render
from deploy.local.users import service_folder

HOST = "127.0.0.1"
PROMETHEUS = ROOT / "deploy" / "prometheus"
ALERTMANAGER = ROOT / "deploy" / "alertmanager" / "alertmanager.yml.template"
UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
# In a rule's window, its `for:`, and the intervals of prometheus.yml; not in names such as `rate5m`.
DURATION = re.compile(r"(?P<before>\[|for: |_interval: |_timeout: )(?P<amount>\d+)(?P<unit>[smhd])\b")
SHORTEST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Observer:
    """A program, and what Prometheus calls it."""

    name: str
    job: str
    instance: str
    port: int
    command: list[str]
    environment: Mapping[str, str]
    ready_path: str


def observers(options: Options, home: Path, servers: tuple[Server, ...]) -> list[Observer]:
    """In the order of their ports, from OBSERVE_BASE_PORT on."""
    port = options.observe_base_port
    metrics = "/metrics"
    return [
        Observer("prometheus", "prometheus", "prometheus", port, prometheus(home, port), {}, "/-/ready"),
        Observer(
            "alertmanager", "alertmanager", "alertmanager", port + 1, alertmanager(home, port + 1), {}, "/-/ready"
        ),
        Observer("node-exporter", "host", "host", port + 2, node_exporter(port + 2), {}, metrics),
        Observer("redis-exporter", "redis", "redis", port + 3, redis_exporter(port + 3, options), {}, metrics),
        Observer("nginx-exporter", "nginx", "nginx", port + 4, nginx_exporter(port + 4, options), {}, metrics),
        *(
            Observer(
                f"postgres-exporter-{server.label}",
                "postgres",
                server.label,
                port + 5 + number,
                exporter("postgres", port + 5 + number),
                {"DATA_SOURCE_NAME": f"{server.dsn}?sslmode=disable&connect_timeout=1"},
                metrics,
            )
            for number, server in enumerate(servers)
        ),
    ]


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise StackError(f"{name} is not installed: `make install OBSERVE=1`")
    return found


def prometheus(home: Path, port: int) -> list[str]:
    return [
        program("prometheus"),
        f"--config.file={home}/prometheus.yml",
        f"--storage.tsdb.path={home}/prometheus",
        "--storage.tsdb.retention.time=15d",
        f"--web.listen-address={HOST}:{port}",
        "--web.enable-lifecycle",
        "--enable-feature=exemplar-storage",
        "--log.level=warn",
    ]


def alertmanager(home: Path, port: int) -> list[str]:
    return [
        program("prometheus-alertmanager"),
        f"--config.file={home}/alertmanager.yml",
        f"--storage.path={home}/alertmanager",
        f"--web.listen-address={HOST}:{port}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]


def exporter(name: str, port: int) -> list[str]:
    return [program(f"prometheus-{name}-exporter"), f"--web.listen-address={HOST}:{port}", "--log.level=error"]


def node_exporter(port: int) -> list[str]:
    return [*exporter("node", port), "--no-collector.systemd"]


def redis_exporter(port: int, options: Options) -> list[str]:
    address = ["-redis.addr", redis.url(options.redis_port), "-web.listen-address", f"{HOST}:{port}"]
    return [program("prometheus-redis-exporter"), *address]


def nginx_exporter(port: int, options: Options) -> list[str]:
    address = ["-nginx.scrape-uri", f"http://{HOST}:{options.ops_port}/nginx_status"]
    return [program("prometheus-nginx-exporter"), *address, "-web.listen-address", f"{HOST}:{port}"]


def prepare(home: Path, options: Options, parts: list[Observer], settings: Mapping[str, str]) -> None:
    """Writes the configuration, with the times scaled by OBSERVE_TIME_SCALE: 1 is what production has."""
    for folder in (home, home / "prometheus", home / "alertmanager"):
        service_folder(folder)
    scale = options.observe_time_scale
    (home / "prometheus.yml").write_text(scaled((PROMETHEUS / "prometheus.yml").read_text(), scale))
    write_rules(home / "rules", scale)
    (home / "targets.json").write_text(json.dumps(list(targets(options, parts)), indent=2))
    (home / "alertmanagers.json").write_text(json.dumps([{"targets": [f"{HOST}:{options.observe_base_port + 1}"]}]))
    (home / "alertmanager.yml").write_text(render(ALERTMANAGER.read_text(), routes(scale, settings)))


def write_rules(folder: Path, scale: float) -> None:
    folder.mkdir(exist_ok=True)
    for rules in (PROMETHEUS / "rules").glob("*.yml"):
        (folder / rules.name).write_text(scaled(rules.read_text(), scale))


def scaled(text: str, scale: float) -> str:
    """The same rules with shorter times, so that a test sees an alert fire in seconds."""
    return text if scale == 1 else DURATION.sub(lambda match: shorter(match, scale), text)


def shorter(match: re.Match[str], scale: float) -> str:
    seconds = max(SHORTEST_SECONDS, int(match["amount"]) * UNIT_SECONDS[match["unit"]] * scale)
    return f"{match['before']}{round(seconds * 1_000)}ms"


def targets(options: Options, parts: list[Observer]) -> Iterator[dict[str, object]]:
    for number, port in enumerate(options.api_ports(), start=1):
        yield target(port, "headroom", f"api-{number}")
    for part in parts:
        yield target(part.port, part.job, part.instance)


def target(port: int, job: str, instance: str) -> dict[str, object]:
    return {"targets": [f"{HOST}:{port}"], "labels": {"job": job, "instance": instance}}


def routes(scale: float, settings: Mapping[str, str]) -> dict[str, str]:
    """Nobody is told before there is somebody: PAGERDUTY_KEY_FILE, ALERT_EMAIL with SMTP_SMARTHOST."""
    wait = f"{round(max(SHORTEST_SECONDS, 30 * scale) * 1_000)}ms"
    defaults = {
        "PAGERDUTY_URL": "https://events.pagerduty.com/v2/enqueue",
        "PAGERDUTY_KEY_FILE": "/dev/null",
        "SMTP_SMARTHOST": f"{HOST}:25",
        "SMTP_REQUIRE_TLS": "true",
        "ALERT_FROM": "headroom@localhost",
        "ALERT_EMAIL": "root@localhost",
    }
    return {
        **defaults,
        **{name: value for name, value in settings.items() if name in defaults and value},
        "PAGE_RECEIVER": "pagerduty" if settings.get("PAGERDUTY_KEY_FILE") else "nobody",
        "MAIL_RECEIVER": "email" if settings.get("ALERT_EMAIL") else "nobody",
        "GROUP_WAIT": wait,
        "GROUP_INTERVAL": wait,
    }
