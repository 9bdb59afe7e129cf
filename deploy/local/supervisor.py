"""supervisord (https://supervisord.org): it keeps the programs running, and tells about them over XML-RPC."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xmlrpc.client import ServerProxy

from supervisor.xmlrpc import SupervisorTransport  # type: ignore[import-untyped]

from deploy.local.options import ROOT, StackError
from deploy.local.programs import Program

START_SECONDS = 15
KILL_SECONDS = 15
LOG_BYTES = 10_000_000
INHERITED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR")  # the rest is said for each program, so that a change is seen
UP = ("RUNNING", "STARTING", "BACKOFF")


@dataclass(frozen=True, slots=True)
class State:
    name: str
    state: str
    pid: int
    description: str


class Supervisor:
    def __init__(self, folder: Path) -> None:
        self.logs = folder / "logs"
        self._run = folder / "run"
        self._configuration = self._run / "supervisord.conf"
        self._pid_file = self._run / "supervisord.pid"
        transport = SupervisorTransport(None, None, f"unix://{self._run}/supervisord.sock")
        self._rpc: Any = ServerProxy("http://127.0.0.1", transport=transport).supervisor

    def is_running(self) -> bool:
        pid = self._pid()
        return pid is not None and str(self._configuration) in command_line(pid)

    def start(self, programs: Sequence[Program]) -> None:
        """Starts supervisord, and none of the programs yet."""
        self.logs.mkdir(exist_ok=True)
        self._run.mkdir(exist_ok=True)
        self._write(programs)
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._configuration)]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        wait_until(self._answers, START_SECONDS, "supervisord")

    def update(self, programs: Sequence[Program]) -> set[str]:
        """Takes over what has changed, and returns the names of programs to start anew: `restart` them."""
        self._write(programs)
        [[added, changed, removed]] = self._rpc.reloadConfig()
        for name in removed:
            self.stop(name)
            self._rpc.removeProcessGroup(name)
        for name in added:
            self._rpc.addProcessGroup(name)
        return set(changed)

    def ensure(self, program: Program) -> None:
        if self.state(program.name).state not in UP:
            self._rpc.startProcess(program.name, False)

    def restart(self, name: str) -> None:
        """With its present definition; what is in flight is finished first."""
        self.stop(name)
        self._rpc.removeProcessGroup(name)
        self._rpc.addProcessGroup(name)
        self._rpc.startProcess(name, False)

    def reload(self, name: str) -> None:
        """The program reads its files again."""
        self._rpc.signalProcess(name, "HUP")

    def stop(self, name: str) -> None:
        if self.state(name).state in UP:
            self._rpc.stopProcess(name)

    def kill(self, name: str, folder: Path) -> None:
        """At once, with all that works in its folder; for what does not answer any more. It stays down."""
        if self.state(name).state in UP:
            self._rpc.stopProcess(name, False)
        for pid in (family := [pid for pid in all_pids() if working_folder(pid) == str(folder)]):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(command_line, family)), KILL_SECONDS, f"the end of {name}")

    def states(self) -> list[State]:
        return [_state(info) for info in self._rpc.getAllProcessInfo()]

    def state(self, name: str) -> State:
        return _state(self._rpc.getProcessInfo(name))

    def shut_down(self, seconds: float) -> None:
        """Stops the programs in the opposite of their order, then supervisord."""
        pid = self._pid()
        if pid is not None and self.is_running():
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: not self.is_running(), seconds, "the end of supervisord")

    def strays(self) -> list[int]:
        """Processes whose supervisord was killed: of its session, and in our folder or with it on the command line."""
        leader = self._pid()
        if leader is None or self.is_running():
            return []
        folder = str(self._run.parent)
        return [
            pid for pid in all_pids() if session(pid) == leader and folder in command_line(pid) + working_folder(pid)
        ]

    def _answers(self) -> bool:
        try:
            return bool(self._rpc.getState()["statename"] == "RUNNING")
        except OSError:
            return False

    def _pid(self) -> int | None:
        return int(self._pid_file.read_text()) if self._pid_file.exists() else None

    def _write(self, programs: Sequence[Program]) -> None:
        sections = [self._daemon(), *(self._program(program, order) for order, program in enumerate(programs))]
        self._configuration.touch(mode=0o600)
        self._configuration.write_text("\n".join(sections))

    def _daemon(self) -> str:
        user = "user=root\n" if os.geteuid() == 0 else ""
        return f"""\
[supervisord]
{user}pidfile={self._pid_file}
logfile={self.logs}/supervisord.log
logfile_maxbytes={LOG_BYTES}
logfile_backups=1
childlogdir={self.logs}
[unix_http_server]
file={self._run}/supervisord.sock
chmod=0600
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[eventlistener:orphans]
command={sys.executable} -m deploy.local.orphans
directory={ROOT}
events=PROCESS_STATE_EXITED
stderr_logfile={self.logs}/orphans.log
"""

    def _program(self, program: Program, order: int) -> str:
        environment = ",".join(f'{name}="{value}"' for name, value in program.environment.items())
        user = f"user={program.user}\n" if program.user else ""
        return f"""\
[program:{program.name}]
command={escaped(shlex.join(program.command))}
environment={escaped(environment)}
directory={program.folder}
{user}priority={order}
autostart=false
autorestart=true
startsecs=1
startretries=20
stopsignal={program.stop_signal.name.removeprefix("SIG")}
stopwaitsecs={program.stop_seconds}
killasgroup=true
redirect_stderr=true
stdout_logfile={self.logs}/{program.name}.log
stdout_logfile_maxbytes={LOG_BYTES}
stdout_logfile_backups=1
"""


def escaped(value: str) -> str:
    return value.replace("%", "%%")


def _state(info: dict[str, Any]) -> State:
    return State(info["name"], info["statename"], info["pid"], info["description"])


def wait_until(reached: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > end:
            raise StackError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.05)


def all_pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def command_line(pid: int) -> str:
    """Empty for a process that is gone, and for a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def working_folder(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/cwd").readlink())
    except OSError:
        return ""


def session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0
