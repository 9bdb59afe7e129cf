"""How overload looks over HTTP: which route matters how much, and what is said to those who are turned away.

Not to be taken for `admission`, which looks at the sender and their rate limit once the request is inside.
"""

import random
from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from app.platform.http.problems import Overloaded, send_problem
from app.platform.http.routes import RouteTable
from app.platform.resilience.overload import Criticality, criticality_of
from app.platform.telemetry.context import UNMATCHED_ROUTE, current

MAX_RETRY_AFTER_SECONDS = 3


def classifier(routes: Callable[[], RouteTable]) -> Callable[[Scope], tuple[str, Criticality]]:
    """A request's route template, and how much it matters by what the endpoint declared."""

    def classify(scope: Scope) -> tuple[str, Criticality]:
        policy = routes().match(scope["method"], scope["path"])
        if policy is None:
            return UNMATCHED_ROUTE, Criticality.NORMAL
        current().route = policy.template
        return f"{scope['method']} {policy.template}", criticality_of(policy.endpoint).of(scope["query_string"])

    return classify


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Each is told another second, so that they don't come back together."""
    seconds = random.randint(1, MAX_RETRY_AFTER_SECONDS)
    await send_problem(send, Overloaded(retry_after_seconds=seconds), scope["path"])
