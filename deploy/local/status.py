"""What runs, for people and for tools."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local import redis
from deploy.local.options import Options
from deploy.local.programs import HOST, Stack
from deploy.local.supervisor import State, Supervisor


@dataclass(frozen=True, slots=True)
class Status:
    options: Options
    stack: Stack
    states: dict[str, State]
    logs: Path

    def urls(self) -> dict[str, str]:
        observing = {"prometheus": self.options.observe_base_port, "alertmanager": self.options.observe_base_port + 1}
        return {
            "http": f"http://{HOST}:{self.options.http_port}",
            "https": f"https://{HOST}:{self.options.https_port}",
            "ops": f"http://{HOST}:{self.options.ops_port}",
            **{name: f"http://{HOST}:{port}" for name, port in observing.items() if self.options.observe},
        }

    def as_json(self) -> dict[str, Any]:
        running = [program for program in self.stack.programs if self.states[program.name].pid]
        return {
            "urls": self.urls(),
            "processes": [
                {"name": program.name, "role": program.role, "pid": self.states[program.name].pid, "port": program.port}
                for program in running
            ],
            "databases": [
                {
                    "name": server.label,
                    "role": "primary" if server == self.stack.cluster.primary else "replica",
                    "dsn": server.dsn,
                }
                for server in self.stack.cluster.servers
            ],
            "redis": {"url": redis.url(self.options.redis_port)},
            "logs": str(self.logs),
        }

    def as_table(self) -> str:
        rows = [("NAME", "ROLE", "PORT", "STATE", "")]
        for program in self.stack.programs:
            state = self.states[program.name]
            rows.append((program.name, program.role, str(program.port), state.state.lower(), state.description))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
        return "\n".join(lines)


def status_of(options: Options, stack: Stack, supervisor: Supervisor) -> Status:
    return Status(options, stack, {state.name: state for state in supervisor.states()}, supervisor.logs)
