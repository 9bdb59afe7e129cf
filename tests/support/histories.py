"""What sessions saw of versioned registers, and what none may have seen.

The guarantees are those of D. Terry et al., "Session Guarantees for Weakly Consistent Replicated Data" (1994).
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Event:
    """An operation that was answered well; each write of a register makes its version one more."""

    session: str
    register: str
    kind: Literal["write", "read"]
    version: int


@dataclass
class History:
    """Events in the order in which each session had its answers; a session does one thing at a time."""

    events: list[Event] = field(default_factory=list)

    def behind_own_writes(self) -> list[Event]:
        return self._behind("write")

    def behind_own_reads(self) -> list[Event]:
        return self._behind("read")

    def latest_written(self) -> dict[str, int]:
        latest: dict[str, int] = defaultdict(int)
        for event in self.events:
            if event.kind == "write":
                latest[event.register] = max(latest[event.register], event.version)
        return latest

    def _behind(self, kind: Literal["write", "read"]) -> list[Event]:
        """Reads that saw less than an earlier event of that kind, of the same session and register."""
        known: dict[tuple[str, str], int] = defaultdict(int)
        behind = []
        for event in self.events:
            place = (event.session, event.register)
            if event.kind == "read" and event.version < known[place]:
                behind.append(event)
            if event.kind == kind:
                known[place] = max(known[place], event.version)
        return behind
