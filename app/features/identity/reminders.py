"""Who logs in with an address that was never verified is refused as by a wrong password, and sent the mail again.

That is noted, and ordered a little later: the refusal takes no longer by it, and tells nothing.
"""

from collections.abc import Awaitable, Callable, Collection

from app.platform.postgres.noted import Noted

PAUSE_SECONDS = 1.0
MOST_NOTED = 1_000

Reminders = Noted[str]  # addresses


def reminders(order: Callable[[Collection[str]], Awaitable[None]]) -> Reminders:
    """One that is lost comes with the next try to log in."""
    return Noted(order, "reminders", seconds=PAUSE_SECONDS, most=MOST_NOTED)
