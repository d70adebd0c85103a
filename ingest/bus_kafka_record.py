"""A record of the Kafka client in the terms of `ingest.bus`. Imports no client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ingest.bus import Record


class ConsumerRecord(Protocol):
    """What the client fetched."""

    @property
    def topic(self) -> str:
        """Its topic."""

    @property
    def partition(self) -> int:
        """Its partition."""

    @property
    def offset(self) -> int:
        """Its place there."""

    @property
    def key(self) -> bytes | None:
        """None: it has no key."""

    @property
    def value(self) -> bytes | None:
        """None: Kafka's mark of a deleted key."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Name and value."""


def as_record(item: ConsumerRecord) -> Record:
    """A record in our terms. Other programs may have written it: no key, no value, bytes that are not UTF-8."""
    return Record(
        topic=item.topic,
        partition=item.partition,
        offset=item.offset,
        key=(item.key or b"").decode(errors="backslashreplace"),
        value=item.value or b"",
        headers={name: (value or b"").decode(errors="backslashreplace") for name, value in item.headers},
    )
