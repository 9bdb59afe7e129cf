"""Reads what EXPLAIN (FORMAT JSON) says."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Plan:
    """`big` are the tables that no query may read from end to end."""

    root: dict[str, Any]
    big: Collection[str]

    def nodes(self) -> Iterator[dict[str, Any]]:
        waiting = [self.root]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.get("Plans", [])

    @property
    def faults(self) -> list[str]:
        """What no query may do on a big table. A sort tells that it went to disk only where the plan was run."""
        return [fault for node in self.nodes() if (fault := self._fault(node))]

    @property
    def indexes(self) -> list[str]:
        return sorted({node["Index Name"] for node in self.nodes() if "Index Name" in node})

    @property
    def buffers(self) -> int:
        """Pages that were looked at, wherever they were; 0 where the plan was not run."""
        return int(self.root.get("Shared Hit Blocks", 0) + self.root.get("Shared Read Blocks", 0))

    @property
    def sorted_rows(self) -> int:
        """The rows that went into its sorts: of an index in the right order none have to. Expected ones, if not run."""
        return sum(int(child.get("Actual Rows", child["Plan Rows"])) for child in self._sorted())

    @property
    def discarded_rows(self) -> int:
        """Rows that were read and then failed a filter; known where the plan was run."""
        return sum(
            int(node.get(f"Rows Removed by {step}", 0)) * int(node.get("Actual Loops", 1))
            for node in self.nodes()
            for step in ("Filter", "Index Recheck")
        )

    @property
    def heap_fetches(self) -> int:
        """Rows that an index-only scan had to look up in the table, since VACUUM has not been there yet."""
        return sum(int(node.get("Heap Fetches", 0)) for node in self.nodes())

    def verdict(self) -> str:
        counts = {
            "rows sorted": self.sorted_rows,
            "rows read in vain": self.discarded_rows,
            "heap fetches": self.heap_fetches,
        }
        found = [*self.faults, *(f"{count:,} {what}" for what, count in counts.items() if count)]
        if self.indexes:
            found.insert(0, f"index {', '.join(self.indexes)}")
        return "; ".join(found) or "reads no big table"

    def _sorted(self) -> Iterator[dict[str, Any]]:
        """What the sorts take in. An incremental one stops early: how many it takes is known when it was run."""
        for node in self.nodes():
            if node["Node Type"] == "Sort" or (node["Node Type"] == "Incremental Sort" and "Actual Rows" in node):
                yield from node["Plans"]

    def _fault(self, node: dict[str, Any]) -> str | None:
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in self.big:
            return f"sequential scan of {node['Relation Name']}"
        if node.get("Sort Space Type") == "Disk" or node.get("Temp Written Blocks"):
            return f"{node['Node Type']} on disk"
        return None
