"""Bringing the stack up and down."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from deploy.local import folder as state_folder
from deploy.local import nginx, observe, pgbouncer, postgres, redis
from deploy.local.options import ROOT, Options, StackError, app_settings, remember, remember_settings, remembered
from deploy.local.programs import Program, Stack, command_environment, observers, stack
from deploy.local.supervisor import Supervisor, command_line, wait_until

READY_SECONDS = 90  # seconds suffice, unless the machine is overloaded
STOP_SECONDS = 180
STRAY_SECONDS = 15
DEMO_ROWS = 274
LOG_LINES = 20


def up(environment: Mapping[str, str]) -> Options:
    """Returns when nginx says that the API is ready. What is up stays as it is, unless its definition has changed."""
    home = state_folder.prepare(state_folder.state_path(environment))
    supervisor = Supervisor(home)
    present = remembered(home) if supervisor.is_running() else None
    options = (present or Options()).changed_by(environment)
    if present is None:
        end_strays(supervisor)
        refuse_busy_ports(options)
        remember(options, home)
    elif options != present:
        # What is up can't be moved to other ports, or made larger, while it runs.
        raise StackError("already up with other ports or counts: `make down` first, or set STATE_DIR for another stack")
    settings = app_settings(environment)
    wanted = stack(options, home, settings)
    nginx.prepare(home / "nginx", options, settings)
    redis.prepare(home / "redis")
    remember_settings(settings, home)
    if options.pooler:
        pgbouncer.prepare(home / "pgbouncer", options.pgbouncer_port, pgbouncer.entries(wanted.cluster))
    if options.observe:
        observe.prepare(home / "observe", options, observers(options, home, wanted.cluster), environment)
    start(wanted, supervisor, options, home)
    return options


def start(wanted: Stack, supervisor: Supervisor, options: Options, home: Path) -> None:
    changed: set[str] = set()
    if supervisor.is_running():
        changed = supervisor.update(wanted.programs)
        for name in ("nginx", *(["prometheus", "alertmanager"] if wanted.observers else [])):
            supervisor.reload(name)
    else:
        postgres.create(wanted.cluster)
        supervisor.start(wanted.programs)
    for program in wanted.data:
        run(program, supervisor, changed)
    for program in wanted.data:
        wait_for(program, supervisor)
    prepare_database(options, wanted.cluster, home)
    for program in wanted.workers:
        run(program, supervisor, changed)
    for program in (*wanted.api, wanted.nginx, *wanted.observers):
        run(program, supervisor, changed)
        wait_for(program, supervisor)
    for program in wanted.workers:
        wait_for(program, supervisor)


def run(program: Program, supervisor: Supervisor, changed: set[str]) -> None:
    if program.name in changed:
        print(f"restarting {program.name}: its settings have changed")
        supervisor.restart(program.name)
    else:
        supervisor.ensure(program)


def wait_for(program: Program, supervisor: Supervisor) -> None:
    try:
        wait_until(program.is_ready, READY_SECONDS, program.name)
    except StackError as error:
        log = supervisor.logs / f"{program.name}.log"
        raise StackError(f"{error}\n{last_lines(log)}\nThe whole log: {log}") from error


def last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:]) if log.exists() else ""


def prepare_database(options: Options, cluster: postgres.Cluster, home: Path) -> None:
    """Migrations each time, demo data once."""
    environment = command_environment(options, cluster)
    postgres.separate_owner(cluster.primary)
    call([sys.executable, "-m", "alembic", "upgrade", "head"], environment)
    seeded = home / "seeded"
    if not seeded.exists():
        call([sys.executable, "-m", "app.seed", "--rows", str(DEMO_ROWS)], environment)
        seeded.touch()


def call(command: list[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(command, env=environment, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise StackError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def refuse_busy_ports(options: Options) -> None:
    for variable, port in options.ports():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise StackError(f"port {port} can't be used ({error.strerror}): set {variable} to another") from error


def down(environment: Mapping[str, str]) -> None:
    home = state_folder.state_path(environment).resolve()
    supervisor = Supervisor(home)
    supervisor.shut_down(STOP_SECONDS)
    end_strays(supervisor)


def end_strays(supervisor: Supervisor) -> None:
    """What a killed supervisord has left running."""
    if not (strays := supervisor.strays()):
        return
    print(f"stopping {len(strays)} processes that a killed supervisord has left behind")
    for pid in strays:
        send(pid, signal.SIGINT if "/postgres " in command_line(pid) else signal.SIGTERM)
    try:
        wait_until(lambda: not supervisor.strays(), STRAY_SECONDS, "the end of what was left behind")
    except StackError:
        for pid in supervisor.strays():
            send(pid, signal.SIGKILL)


def send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def clean(environment: Mapping[str, str]) -> None:
    down(environment)
    state_folder.remove(state_folder.state_path(environment))
