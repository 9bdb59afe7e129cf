"""A machine more beside the native stack, for the alerts about machines: it can be in need, and no other is.

Real: the exporter, the instance of the service, a disk that is filled, and the memory that the instance's worker holds.
Stood in for: what the kernel says of memory and processors (/proc/meminfo, /proc/stat) and of the container's memory
(/sys/fs/cgroup), since nobody fills the memory of a machine on which others work.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.programs import GUNICORN, answers
from tests.support.native import NativeStack
from tests.support.stack import Service, free_ports, temporary_folder

NAME = "spare"
ALERTS = ("DiskFull", "MemoryHigh", "ProcessorSaturated", "WorkerMemoryHigh", "ContainerMemoryHigh")
DISK_BYTES = 4 * 1024 * 1024
HELD_BYTES = 520 * 1024 * 1024  # of a worker that may have 512 MiB
TICK_SECONDS = 0.2
KILOBYTES = 1_000_000  # of the machine and, as bytes, of the container
COLLECTORS = ("filesystem", "meminfo", "cpu")
# Read by every interpreter at its start. A forked worker, and it alone, holds memory as long as the file is there.
HOLDS_MEMORY = """
import os, threading, time

def hold():
    held = b""
    while True:
        wanted = os.path.exists({sign!r})
        held = (held or b"x" * {bytes}) if wanted else b""
        time.sleep({seconds})

os.register_at_fork(after_in_child=lambda: threading.Thread(target=hold, daemon=True).start())
"""


@dataclass
class SpareMachine:
    folder: Path
    services: list[Service] = field(default_factory=list)
    is_in_need: bool = False
    idle_seconds: float = 0.0

    @property
    def sign(self) -> Path:
        return self.folder / "hold-memory"

    @property
    def disk_as_mounted(self) -> Path:
        """The exporter alone sees it as a disk; here it is seen through the exporter's process."""
        return Path(f"/proc/{self.services[0].pid}/root{self.folder / 'disk'}")

    @asynccontextmanager
    async def in_need(self) -> AsyncIterator[None]:
        """Of disk, memory, and processors, all at once."""
        filling = self.disk_as_mounted / "filling"
        filling.write_bytes(b"x" * int(DISK_BYTES * 0.9))
        self.sign.touch()
        self.is_in_need = True
        self.tell()
        try:
            yield
        finally:
            self.is_in_need = False
            self.tell()
            self.sign.unlink()
            filling.unlink()

    def tell(self) -> None:
        """What the kernel says of the machine."""
        free = KILOBYTES // (20 if self.is_in_need else 2)
        ticks = round(self.idle_seconds * 100)
        self._write("proc/meminfo", f"MemTotal: {KILOBYTES} kB\nMemAvailable: {free} kB\n")
        self._write("proc/stat", f"cpu 0 0 0 {ticks} 0 0 0 0 0 0\ncpu0 0 0 0 {ticks} 0 0 0 0 0 0\n")
        self._write("cgroup/memory.current", f"{KILOBYTES - free}\n")

    def _write(self, name: str, text: str) -> None:
        """At once: the exporter may be reading."""
        written = self.folder / "being-written"
        written.write_text(text)
        written.rename(self.folder / name)

    async def run_the_clock(self) -> None:
        """Its processor is idle all the time, or not at all."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if not self.is_in_need:
                self.idle_seconds += TICK_SECONDS
            self.tell()


@asynccontextmanager
async def spare_machine(stack: NativeStack) -> AsyncIterator[SpareMachine]:
    """Prometheus asks it as long as the block lasts."""
    with temporary_folder() as folder:
        machine = prepared(folder)
        exporter_port, api_port = free_ports(2)
        machine.services += [exporter(folder, exporter_port), instance(stack, machine, api_port)]
        clock = asyncio.create_task(machine.run_the_clock())
        try:
            for service in machine.services:
                service.start(wait=False)
            for service in machine.services:
                await asyncio.to_thread(service.wait_until_ready)
            with asked_too(stack, target("host", exporter_port), target("headroom", api_port)):
                yield machine
        finally:
            clock.cancel()
            for service in machine.services:
                service.stop()


def prepared(folder: Path) -> SpareMachine:
    for name in ("proc", "cgroup", "disk", "metrics", "python"):
        (folder / name).mkdir()
    (folder / "proc" / "mounts").write_text(f"spare {folder}/disk tmpfs rw 0 0\n")
    (folder / "cgroup" / "memory.max").write_text(f"{KILOBYTES}\n")
    machine = SpareMachine(folder)
    holds_memory = HOLDS_MEMORY.format(sign=str(machine.sign), bytes=HELD_BYTES, seconds=TICK_SECONDS)
    (folder / "python" / "sitecustomize.py").write_text(holds_memory)
    machine.tell()
    return machine


@contextmanager
def asked_too(stack: NativeStack, *added: dict[str, object]) -> Iterator[None]:
    targets = Path(stack.settings["STATE_DIR"], "observe", "targets.json")
    known = targets.read_text()
    targets.write_text(json.dumps([*json.loads(known), *added]))
    try:
        yield
    finally:
        targets.write_text(known)


def target(job: str, port: int) -> dict[str, object]:
    return {"targets": [f"127.0.0.1:{port}"], "labels": {"job": job, "instance": NAME}}


def mounting(mount: str, *command: str) -> list[str]:
    """In a name space of its own, in which anybody may mount; what is mounted goes away with the program."""
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh", *command]


def exporter(folder: Path, port: int) -> Service:
    address = f"127.0.0.1:{port}"
    command = ["prometheus-node-exporter", f"--web.listen-address={address}", f"--path.procfs={folder}/proc"]
    command += ["--collector.disable-defaults", *(f"--collector.{name}" for name in COLLECTORS)]
    return Service(
        "node-exporter of the spare machine",
        mounting(f"mount -t tmpfs -o size={DISK_BYTES} spare {folder}/disk", *command),
        lambda: answers(f"http://{address}/metrics"),
        folder / "exporter.log",
        as_service=False,
    )


def instance(stack: NativeStack, machine: SpareMachine, port: int) -> Service:
    """As api-1 is, and nginx does not know it."""
    environment = Path(f"/proc/{stack.pid('api-1')}/environ").read_text().rstrip("\0").split("\0")
    own = {"INSTANCE_NAME": NAME, "BIND": f"127.0.0.1:{port}", "WEB_CONCURRENCY": "1"}
    own |= {
        "PROMETHEUS_MULTIPROC_DIR": str(machine.folder / "metrics"),
        "PYTHONPATH": str(machine.folder / "python"),
    }
    return Service(
        "instance on the spare machine",
        mounting(f"mount --bind {machine.folder}/cgroup /sys/fs/cgroup", *GUNICORN),
        lambda: answers(f"http://127.0.0.1:{port}/readyz"),
        machine.folder / "instance.log",
        dict(variable.split("=", 1) for variable in environment) | own,
        as_service=False,
    )
