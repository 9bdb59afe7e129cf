"""What instances say in Prometheus' format, read back by Prometheus' own parser."""

import math
from collections import Counter

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

Series = tuple[str, frozenset[tuple[str, str]]]


class Exposition:
    """The samples of one answer, or of several, added up."""

    def __init__(self, *texts: str) -> None:
        self.samples: Counter[Series] = Counter()
        for text in texts:
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    self.samples[key(sample)] += sample.value  # type: ignore[assignment]

    def total(self, name: str, **labels: str) -> float:
        """Of all series with these labels, whatever others they have."""
        return sum(
            value
            for (found, own), value in self.samples.items()
            if found == name and labels.items() <= dict(own).items()
        )

    def since(self, before: "Exposition") -> "Exposition":
        """How far each has gone up."""
        difference = Exposition()
        difference.samples = Counter({series: value - before.samples[series] for series, value in self.samples.items()})
        return difference

    def quantile(self, share: float, histogram: str) -> float:
        """As Prometheus' `histogram_quantile`."""
        bounds = {dict(labels)["le"] for name, labels in self.samples if name == f"{histogram}_bucket"}
        counts = sorted((float(bound), self.total(f"{histogram}_bucket", le=bound)) for bound in bounds)
        wanted = share * counts[-1][1]
        lower_bound = lower_count = 0.0
        for bound, count in counts:
            if count >= wanted:
                if math.isinf(bound):
                    return lower_bound
                return lower_bound + (bound - lower_bound) * (wanted - lower_count) / (count - lower_count)
            lower_bound, lower_count = bound, count
        raise AssertionError("the last bucket has all")


def key(sample: Sample) -> Series:
    return sample.name, frozenset(sample.labels.items())
