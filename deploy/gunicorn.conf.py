"""gunicorn: how an instance of the API is served. `gunicorn -c deploy/gunicorn.conf.py app.main:app`

From the environment: BIND, WEB_CONCURRENCY (workers), FORWARDED_ALLOW_IPS (whose X-Forwarded-For is
believed), LOG_LEVEL, LOG_FORMAT, PROMETHEUS_MULTIPROC_DIR.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from gunicorn.sock import BaseSocket

from app.platform.telemetry.logs import configure_logging

wsgi_app = "app.main:app"
worker_class = "app.platform.resilience.worker.Worker"
bind = os.environ.get("BIND", "127.0.0.1:8000")
backlog = 2048

# Pools, event loops and threads don't survive a fork: each worker makes its own.
preload_app = False
# A worker that leaks is replaced before it matters; the jitter keeps workers from leaving together.
max_requests = 1_000_000
max_requests_jitter = 250_000
# A worker whose event loop stands still for so long is killed.
timeout = 30
# Of an idle connection, in seconds. Longer than nginx's, so that it is nginx who closes it.
keepalive = 15
# Above the worker's own bounds, which add up to 28 s.
graceful_timeout = 30
# The heartbeat is a file: on a disk its write may block.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None
control_socket_disable = True


def on_starting(server: Any) -> None:
    configure_logging(os.environ.get("LOG_LEVEL", "info"), os.environ.get("LOG_FORMAT", "json"))
    if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        go_on_counting(Path(folder))
    # The master only binds, and its port refuses: the first worker listens, when its application has started. Else
    # clients would wait in a queue that nobody serves yet.
    BaseSocket._is_listening = staticmethod(lambda _: True)


def go_on_counting(folder: Path) -> None:
    """Where the last run stopped, so that a restart loses no count; anew for other code, which may count otherwise."""
    code, mark = fingerprint(), folder / "code"
    if mark.exists() and mark.read_text() == code:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mark.write_text(code)


def fingerprint() -> str:
    """Of everything in app/; takes some milliseconds."""
    digest = hashlib.sha256()
    for path in sorted(Path("app").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
