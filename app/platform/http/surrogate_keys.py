"""Surrogate keys: by which names a CDN may purge what it keeps of an answer.

Fastly calls the header `Surrogate-Key` and separates by spaces, Cloudflare `Cache-Tag` and separates by commas. The
names are the tags of the route's cache rule, with the organization before them: who writes touches the same tags, and
may purge them there too. They tell how data is organized, so they are sent only where a CDN is there to take them off.
"""

from collections.abc import Iterable

from app.platform.telemetry.context import current

SEPARATORS = {"Surrogate-Key": " ", "Cache-Tag": ","}


class SurrogateKeys:
    """`header` is empty (nothing is sent), `Surrogate-Key` or `Cache-Tag`."""

    def __init__(self, header: str = "") -> None:
        self._name = header.lower().encode()
        self._separator = SEPARATORS.get(header, " ")

    def add(self, tags: Iterable[str]) -> None:
        """To the answer of the current request."""
        if self._name:
            current().extra_headers.append((self._name, self._separator.join(tags).encode("latin-1", "replace")))
