"""The command that runs Redis, and the question whether it answers."""

import shutil
import socket
from pathlib import Path

from deploy.local.users import service_folder

HOST = "127.0.0.1"
CONFIGURATION = Path(__file__).parents[1] / "redis" / "redis.conf"


def url(port: int) -> str:
    return f"redis://{HOST}:{port}/0"


def prepare(folder: Path) -> None:
    """Copies the configuration: whom Redis runs as may be unable to read the original."""
    service_folder(folder)
    (folder / "redis.conf").write_text(CONFIGURATION.read_text())


def command(port: int, folder: Path) -> list[str]:
    program = shutil.which("redis-server") or "/usr/bin/redis-server"
    return [program, f"{folder}/redis.conf", "--port", str(port), "--bind", HOST, "--dir", str(folder)]


def is_ready(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7) == b"+PONG\r\n"
    except OSError:
        return False
