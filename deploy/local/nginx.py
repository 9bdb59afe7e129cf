"""nginx with the files of nginx/, filled in as the container's entrypoint fills them in."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from deploy import certificate
from deploy.local.options import ROOT, Options
from deploy.local.templates import render
from deploy.local.users import service_account

HOST = "127.0.0.1"
SOURCE = ROOT / "nginx"
REQUESTS_PER_SECOND = 200  # per client address
CONNECTIONS_PER_ADDRESS = 256
MOST_CONNECTIONS = 65_535  # that nginx can count


def prepare(home: Path, options: Options, settings: Mapping[str, str]) -> None:
    """Renders the configuration into `home`, with copies of what nginx' workers may be unable to read in place."""
    variables = _variables(home, options, settings)
    for folder in ("conf.d", "snippets", "static", "operators", "temp"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    for template in (SOURCE / "templates").glob("*.template"):
        (home / "conf.d" / template.stem).write_text(render(template.read_text(), variables))
    shutil.copy(SOURCE / "nginx.conf", home)
    shutil.copytree(SOURCE / "snippets", home / "snippets", dirs_exist_ok=True)
    shutil.copytree(ROOT / "app" / "static", home / "static", dirs_exist_ok=True)
    shutil.copytree(SOURCE / "operators", home / "operators", dirs_exist_ok=True)
    certificate.ensure(home / "certificates")


def command(home: Path) -> list[str]:
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    directives = f"daemon off;pid {home}/nginx.pid;"
    if account := service_account():
        directives += f"user {account.pw_name};"
    return [program, "-e", "stderr", "-p", str(home), "-c", f"{home}/nginx.conf", "-g", directives]


def _variables(home: Path, options: Options, settings: Mapping[str, str]) -> dict[str, str]:
    instances = {f"api-{number}": f"{HOST}:{port}" for number, port in enumerate(options.api_ports(), start=1)}
    scale = float(settings.get("RATE_LIMIT_SCALE") or 1)
    requests = max(1, round(REQUESTS_PER_SECOND * scale))
    return {
        "ENVIRONMENT": settings.get("ENVIRONMENT") or "development",
        "LISTEN": HOST,
        "HTTP_PORT": str(options.http_port),
        "HTTPS_PORT": str(options.https_port),
        "OPS_PORT": str(options.ops_port),
        "SERVER_NAMES": "~.",
        "API_SERVERS": " ".join(f"server {address} max_fails=0;" for address in instances.values()),
        "API_INSTANCES": " ".join(f"upstream {name} {{ server {address}; }}" for name, address in instances.items()),
        "API_NAMES": json.dumps(list(instances)),
        "MAX_BODY_BYTES": settings.get("MAX_BODY_BYTES") or "1048576",
        "REQUESTS_PER_SECOND": str(requests),
        "REQUESTS_BURST": str(2 * requests),
        "CONNECTIONS_PER_ADDRESS": str(min(MOST_CONNECTIONS, max(1, round(CONNECTIONS_PER_ADDRESS * scale)))),
        "STATIC_FOLDER": str(home / "static"),
        "OPERATORS_FOLDER": str(home / "operators"),
        "CERTIFICATE_FOLDER": str(home / "certificates"),
        "TEMP_FOLDER": str(home / "temp"),
    }
