"""What each route declared, found before the router runs: that is how a cached answer leaves early."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.routing import compile_path


class Route(Protocol):
    """What FastAPI's `iter_route_contexts` gives."""

    @property
    def path(self) -> str | None: ...
    @property
    def methods(self) -> set[str] | None: ...
    @property
    def endpoint(self) -> Callable[..., Any] | None: ...


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """A route's template and endpoint, with whatever its decorators left on the endpoint."""

    template: str
    endpoint: Callable[..., Any]

    def declared(self, attribute: str) -> Any:
        """None where nothing was declared."""
        return getattr(self.endpoint, attribute, None)


class RouteTable:
    """Static paths by dict; templates by the number of their segments, so that few patterns are tried."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._static: dict[tuple[str, str], RoutePolicy] = {}
        self._patterns: dict[tuple[str, int], list[tuple[re.Pattern[str], RoutePolicy]]] = {}
        for route in routes:
            if route.path is not None and route.endpoint is not None:
                for method in route.methods or ():
                    self._add(method, RoutePolicy(route.path, route.endpoint))

    def match(self, method: str, path: str) -> RoutePolicy | None:
        if (static := self._static.get((method, path))) is not None:
            return static
        for pattern, policy in self._patterns.get((method, path.count("/")), ()):
            if pattern.match(path):
                return policy
        return None

    def _add(self, method: str, policy: RoutePolicy) -> None:
        if "{" not in policy.template:
            self._static.setdefault((method, policy.template), policy)
            return
        pattern, _, _ = compile_path(policy.template)
        self._patterns.setdefault((method, policy.template.count("/")), []).append((pattern, policy))
