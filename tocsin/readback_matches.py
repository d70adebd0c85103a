"""The matches that are read back, newest first, and given to the engine in the order of event time: in bounded memory.

The longest window may hold days of a region's matches. What passes a bound goes to temporary files (`TMPDIR`), each row
with the time it is ordered by; the files say the least and greatest of it, so that a slice of time opens few of them.
In memory at once are the bound, that time of every match (8 bytes), and a slice.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import polars as pl

_KEY: Final = "order key"
_TURN: Final = "order turn"
_ORDER: Final = (_KEY, _TURN)


def in_slices(matches: pl.DataFrame, rows: int) -> Iterator[pl.DataFrame]:
    """Matches in the order of event time, a slice at a time: of what comes so, nothing is late.

    A match dated after its reception stands where the engine dates it, at the reception.
    """
    yield from matches.sort(_event_time(), maintain_order=True).iter_slices(rows)


class ReadbackMatches:
    """Matches, added in the wrong order and handed out in the right one. To be closed: it may have files.

    Args:
        most: Bytes held in memory while they are added.
        rows: Of a slice.
    """

    def __init__(self, most: int, rows: int) -> None:
        self.height = 0
        self._most, self._rows = most, rows
        self._parts: list[pl.DataFrame] = []
        self._bytes = self._turn = 0
        self._folder: TemporaryDirectory[str] | None = None
        self._files: list[Path] = []

    def add_before(self, matches: pl.DataFrame) -> None:
        """Add matches (`MATCH_SCHEMA`) that were on the bus before all that are here."""
        if matches.is_empty():
            return
        self._turn -= 1
        self._parts.append(matches.with_columns(_event_time().alias(_KEY), pl.lit(self._turn).alias(_TURN)))
        self.height += matches.height
        self._bytes += int(matches.estimated_size())
        if self._bytes > self._most:
            self._spill()

    def in_order(self) -> Iterator[pl.DataFrame]:
        """All of them in the order of event time, and of the bus where that is the same; slices of `MATCH_SCHEMA`."""
        if not self._files:
            if self._parts:
                whole = pl.concat(self._parts).sort(_ORDER, maintain_order=True)
                yield from whole.drop(_ORDER).iter_slices(self._rows)
            return
        if self._parts:
            self._spill()
        spilled = pl.scan_parquet(self._files)
        keys = spilled.select(_KEY).collect().get_column(_KEY).sort()
        last = None
        for place in range(self._rows - 1, len(keys) + self._rows - 1, self._rows):
            until = keys[min(place, len(keys) - 1)]
            if until == last:  # more of one time than a slice has rows: they came with the slice before
                continue
            within = pl.col(_KEY) <= until
            if last is not None:
                within &= pl.col(_KEY) > last
            last = until
            part = spilled.filter(within).collect().sort(_ORDER, maintain_order=True)
            yield from part.drop(_ORDER).iter_slices(self._rows)

    def close(self) -> None:
        """Delete the files."""
        self._parts.clear()
        self._files.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _spill(self) -> None:
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="tocsin-readback-")
        path = Path(self._folder.name) / f"{len(self._files)}.parquet"
        pl.concat(self._parts).sort(_ORDER, maintain_order=True).write_parquet(
            path, compression="lz4", row_group_size=self._rows
        )
        self._files.append(path)
        self._parts.clear()
        self._bytes = 0


def _event_time() -> pl.Expr:
    return pl.min_horizontal("timestamp", "received")
