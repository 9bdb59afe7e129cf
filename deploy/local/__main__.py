"""`python -m deploy.local VERB`: what the Makefile calls."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence

from deploy.local import failover as roles
from deploy.local import folder as state_folder
from deploy.local import pgbouncer, slow
from deploy.local import stack as lifecycle
from deploy.local.options import ROOT, Options, StackError, remembered, remembered_settings
from deploy.local.postgres import PostgresError
from deploy.local.programs import Stack, command_environment, stack
from deploy.local.status import Status, status_of
from deploy.local.supervisor import Supervisor

DEMO_EMAIL = "demo@example.com"
DEMO_PASSWORD = "headroom-demo"


def up(arguments: argparse.Namespace) -> None:
    lifecycle.up(os.environ)
    urls = _status().urls()
    print(f"{urls['http']}      the service, {urls['http']}/docs to try it, {urls['https']} with TLS")
    print(f"{urls['ops']}      for operators: a live picture, /health, /metrics, /nginx_status")
    if "prometheus" in urls:
        print(f"{urls['prometheus']}      Prometheus, {urls['alertmanager']} Alertmanager")
    print(f"demo login: {DEMO_EMAIL}, {DEMO_PASSWORD}")


def down(arguments: argparse.Namespace) -> None:
    lifecycle.down(os.environ)


def clean(arguments: argparse.Namespace) -> None:
    lifecycle.clean(os.environ)


def status(arguments: argparse.Namespace) -> None:
    now = _status()
    print(json.dumps(now.as_json(), indent=2) if arguments.format == "json" else now.as_table())


def restart(arguments: argparse.Namespace) -> None:
    """One program, or all instances of the API, one after the other."""
    _, wanted, supervisor = _running()
    programs = {program.name: program for program in wanted.programs}
    if arguments.name and arguments.name not in programs:
        raise StackError(f"no {arguments.name}; there are {', '.join(programs)}")
    for program in [programs[arguments.name]] if arguments.name else wanted.api:
        supervisor.restart(program.name)
        lifecycle.wait_for(program, supervisor)


def failover(arguments: argparse.Namespace) -> None:
    """The instances follow by themselves: they write again before the old primary is back."""
    options, before, supervisor = _running()
    cluster = roles.promote_best(before, supervisor, arguments.name)
    if options.pooler:
        home = state_folder.state_path(os.environ).resolve()
        pgbouncer.prepare(home / "pgbouncer", options.pgbouncer_port, pgbouncer.entries(cluster))
        supervisor.reload("pgbouncer")
    print(f"{cluster.primary.label} is the primary")
    _, after, _ = _running()
    roles.bring_back(before.cluster.primary, after, supervisor)
    print(f"{before.cluster.primary.label} is a replica")


def logs(arguments: argparse.Namespace) -> None:
    _, _, supervisor = _running()
    names = [f"{arguments.name}.log"] if arguments.name else sorted(path.name for path in supervisor.logs.glob("*.log"))
    os.chdir(supervisor.logs)
    os.execvp("tail", ["tail", "-n", "20", "-F", *names])


def run(arguments: argparse.Namespace) -> None:
    """A command with the settings that lead to this stack."""
    options, wanted, _ = _running()
    environment = command_environment(options, wanted.cluster)
    os.chdir(ROOT)
    os.execvpe(arguments.command[0], arguments.command, {"INSTANCE_NAME": "dev", **environment})


def slow_statements(arguments: argparse.Namespace) -> None:
    _, wanted, supervisor = _running()
    print(slow.report(wanted.cluster, supervisor.logs, arguments.count))


def psql(arguments: argparse.Namespace) -> None:
    _, wanted, _ = _running()
    databases = {server.label: server for server in wanted.cluster.servers}
    name = arguments.name or wanted.cluster.primary.label
    if name not in databases:
        raise StackError(f"no {name}; there are {', '.join(databases)}")
    os.execvp("psql", ["psql", databases[name].dsn])


def redis_cli(arguments: argparse.Namespace) -> None:
    os.execvp("redis-cli", ["redis-cli", "-u", _status().as_json()["redis"]["url"]])


def _running() -> tuple[Options, Stack, Supervisor]:
    home = state_folder.state_path(os.environ).resolve()
    supervisor = Supervisor(home)
    options = remembered(home)
    if options is None or not supervisor.is_running():
        raise StackError("not up: `make up` starts it")
    return options, stack(options, home, remembered_settings(home)), supervisor


def _status() -> Status:
    return status_of(*_running())


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description="The native stack.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, action: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        added = verbs.add_parser(name)
        added.set_defaults(action=action)
        return added

    verb("up", up)
    verb("down", down)
    verb("clean", clean)
    verb("status", status).add_argument("--format", choices=["table", "json"], default="table")
    verb("restart", restart).add_argument("name", nargs="?")
    verb("logs", logs).add_argument("name", nargs="?")
    verb("failover", failover).add_argument("name", nargs="?")
    verb("psql", psql).add_argument("name", nargs="?")
    verb("redis-cli", redis_cli)
    verb("slow", slow_statements).add_argument("--count", type=int, default=10)
    verb("run", run).add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args(arguments)


def main() -> None:
    options = parse(sys.argv[1:])
    try:
        options.action(options)
    except (StackError, PostgresError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
