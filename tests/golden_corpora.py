"""Event frames of the real corpora, a part of each, for tests that compare engines."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ingest.envelope import EventFrame
from ingest.event_files import read_events
from ingest.event_source import SourceBatch
from ingest.parse import parse

BATCHES = 6
"""Batches of each source, of at most 5,000 events."""


def frames_of(shared_data: Path) -> Iterator[EventFrame]:
    """Frames of every fourth OTRF archive, of the EVTX samples, and of the lanes."""
    archives = sorted((shared_data / "otrf").rglob("*.zip"))[::4]
    samples = sorted((shared_data / "evtx-attack-samples").rglob("*.evtx"))
    lanes = sorted((shared_data / "lanes").glob("*.ndjson.gz"))
    for paths in ([archive] for archive in (*archives, *lanes)):
        yield from _frames(paths)
    yield from _frames(samples)


def _frames(paths: list[Path]) -> Iterator[EventFrame]:
    read = 0
    for batch in read_events(paths, now=datetime(2026, 3, 1, tzinfo=UTC)):
        if isinstance(batch, SourceBatch):
            read += 1
            if read > BATCHES and len(paths) == 1:
                return
            yield from parse(batch.raw[:5000])
