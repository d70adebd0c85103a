from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from ingest.bus import Position
from ingest.envelope import ENVELOPE, EventFrame
from ingest.logsource import LogSource
from storage.lake import Lake
from storage.lake_cleanup import Cleaned, clean
from storage.lake_compact import compact
from storage.lake_manifest import seal
from storage.signing import open_signer

TABLE = "events/windows.process_creation._"
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def later(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def fill(lake: Lake, first: int, last: int) -> None:
    writer = lake.writer()
    for offset in range(first, last):
        envelope: dict[str, list[object]] = {name: [None] for name in ENVELOPE}
        envelope |= {"event.id": [f"tocsin.raw:0:{offset}:0"], "organization.id": ["CH de l'Été/2"]}
        envelope |= {"@timestamp": [NEW_YEAR + timedelta(minutes=offset)]}
        frame = EventFrame(LogSource("windows", "process_creation"), pl.DataFrame(envelope, schema=ENVELOPE))
        writer.add([frame], Position("tocsin.raw", 0, offset))
        writer.flush()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def data(lake: Lake) -> list[str]:
    return [path for path in lake.place.files(TABLE) if path.endswith(".parquet") and "_delta_log" not in path]


def test_what_was_removed_goes_after_the_grace_and_a_reader_can_end_until_then(lake: Lake) -> None:
    fill(lake, 0, 10)
    compact(lake.place, TABLE, file_bytes=1 << 20, now=lambda: later(1))
    assert clean(lake.place, TABLE, later(6)) == Cleaned()
    assert len(data(lake)) == 11
    assert clean(lake.place, TABLE, later(8)).files == 10
    assert (len(data(lake)), lake.count()) == (1, 10)


def test_a_file_that_was_removed_late_stays_however_old_it_is(lake: Lake, tmp_path: Path) -> None:

    fill(lake, 0, 10)
    old = (datetime.now(UTC) - timedelta(days=30)).timestamp()
    for path in tmp_path.rglob("part-*.parquet"):
        os.utime(path, (old, old))
    compact(lake.place, TABLE, file_bytes=1 << 20, now=lambda: later(1))
    assert clean(lake.place, TABLE, later(0)) == Cleaned()
    assert len(data(lake)) == 11


def test_an_orphan_goes_after_the_grace_and_live_files_never(lake: Lake) -> None:
    fill(lake, 0, 2)
    orphan = f"{data(lake)[0].rpartition('/')[0]}/sorted-of-a-process-that-died.parquet"
    lake.place.write(orphan, b"half a file")
    assert clean(lake.place, TABLE, later(6)) == Cleaned()
    assert clean(lake.place, TABLE, later(8)) == Cleaned(files=1, bytes=11)
    assert (orphan in data(lake), lake.count()) == (False, 2)


def test_the_log_goes_only_when_it_is_sealed_and_old(lake: Lake, tmp_path: Path) -> None:
    fill(lake, 0, 120)  # with checkpoints at 50 and 100
    log = f"{TABLE}/_delta_log"
    before = lake.place.files(log)
    assert clean(lake.place, TABLE, later(40)).log_entries == 0  # nothing is sealed
    seal(lake.place, open_signer(tmp_path / "keys"), datetime.now(UTC))
    assert clean(lake.place, TABLE, later(6)).log_entries == 0
    assert lake.place.files(log) == before
    done = clean(lake.place, TABLE, later(8))
    assert done.log_entries >= 100
    assert f"{log}/{99:020d}.json" not in lake.place.files(log)
    assert f"{log}/{100:020d}.json" in lake.place.files(log)
    assert lake.count() == 120
    assert DeltaTable(lake.place.uri(TABLE)).transaction_version("tocsin.raw/0") == 119
    fill(lake, 119, 122)  # 119 is known
    assert lake.count() == 122
    seal(lake.place, open_signer(tmp_path / "keys"), datetime.now(UTC))
