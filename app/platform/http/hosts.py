"""Which hosts the service answers for: a forged `Host` must not get into links, caches or mails."""

from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from app.platform.http.problems import Problem, send_problem


class UnknownHost(Problem):
    """The service does not answer for this host."""

    status = 421
    slug = "unknown-host"
    title = "The service does not answer for this host"


class AllowedHostsMiddleware:
    """Refuses requests for other hosts with 421 (RFC 9110, 15.5.20). `*` allows any; `*.example.com` its subdomains.

    What load balancers ask (`unchecked_paths`) is let through: they use the address of the instance.
    """

    def __init__(self, app: ASGIApp, *, allowed: Iterable[str], unchecked_paths: frozenset[str]) -> None:
        self._app = app
        hosts = {host.lower() for host in allowed}
        self._any = "*" in hosts
        self._exact = frozenset(host for host in hosts if not host.startswith("*."))
        self._suffixes = tuple(host[1:] for host in hosts if host.startswith("*."))
        self._unchecked_paths = unchecked_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._any or scope["type"] != "http" or scope["path"] in self._unchecked_paths or self._allows(scope):
            await self._app(scope, receive, send)
            return
        await send_problem(send, UnknownHost(), scope["path"])

    def _allows(self, scope: Scope) -> bool:
        sent = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1").lower()
        host = sent.partition("]")[0] + "]" if sent.startswith("[") else sent.partition(":")[0]
        return host in self._exact or (bool(self._suffixes) and host.endswith(self._suffixes))
