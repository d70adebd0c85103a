"""Whether the time of this machine can be believed before events are removed for their age.

A clock that jumps years ahead would make everything too old at once, and events received since would bear the wrong
time as well, as would all that this machine signs. What the jump does not reach are the clocks of the senders: most
lines carry a time of their own. So the newest files of the lake are the witness: of the events in them whose own time
differs from that of receipt at all (a line without a time gets the time of receipt), more than half must lie within two
days of it, and the newest of these receipts must be no more than two days ago.

A region from which nothing comes has no witness, nor has one that only sends archives: then nothing expires until live
lines come again, which is the safe side.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import polars as pl
import pyarrow as pa
from pyarrow.parquet import ParquetFile

from ingest.envelope import RECEIVED, TIMESTAMP
from storage.errors import LakeError
from storage.lake_place import LakePlace

CLOCK_DOUBT: Final = timedelta(days=2)
NEWEST_FILES: Final = 32


class ClockDoubt(LakeError):  # noqa: N818 - reads as what it says
    """Events are due for removal, but nothing says that so much time has passed; nothing was removed."""


def witnessed(place: LakePlace, files: Iterable[tuple[str, datetime]]) -> datetime | None:
    """The newest receipt that the senders' own clocks bear out; None if they do not.

    Args:
        place: The lake.
        files: Path in the lake, and when it was written, of its data files.

    Raises:
        LakeError: A file cannot be read.
    """
    newest = sorted(files, key=lambda file: file[1], reverse=True)[:NEWEST_FILES]
    own, agreeing = 0, 0
    latest: datetime | None = None
    for path, _ in newest:
        events = _times(place, path)
        timed = events.filter(pl.col(TIMESTAMP) != pl.col(RECEIVED))
        close = timed.filter((pl.col(TIMESTAMP) - pl.col(RECEIVED)).abs() <= CLOCK_DOUBT)
        own, agreeing = own + timed.height, agreeing + close.height
        last = close.get_column(RECEIVED).max()
        if isinstance(last, datetime) and (latest is None or last > latest):
            latest = last
    return latest if 2 * agreeing > own else None


def believe(place: LakePlace, files: Iterable[tuple[str, datetime]], now: datetime) -> None:
    """Refuse to remove by age when the time is in doubt.

    Raises:
        ClockDoubt: It is; the message says why.
        LakeError: A file cannot be read.
    """
    seen = witnessed(place, files)
    today = f"{now:%Y-%m-%d %H:%M} UTC"
    if seen is None:
        raise ClockDoubt(
            f"lake {place.name}: nothing expires: it is {today} here, and the times that senders gave their newest "
            "lines do not bear that out (a clock that jumped, or archives were read in)"
        )
    if now - seen > CLOCK_DOUBT:
        raise ClockDoubt(
            f"lake {place.name}: nothing expires: it is {today} here, and the newest line came at "
            f"{seen:%Y-%m-%d %H:%M} UTC: a clock that jumped, or nothing comes in; it goes on when lines come again"
        )


def _times(place: LakePlace, path: str) -> pl.DataFrame:
    """Event time and receipt of the first and last rows of a file."""
    try:
        with place.filesystem().open_input_file(path) as source, ParquetFile(source) as parquet:
            groups = sorted({0, parquet.num_row_groups - 1}) if parquet.num_row_groups else []
            found = pl.from_arrow(parquet.read_row_groups(groups, columns=[TIMESTAMP, RECEIVED]))
    except FileNotFoundError:
        return pl.DataFrame(schema={TIMESTAMP: pl.Datetime("us", "UTC"), RECEIVED: pl.Datetime("us", "UTC")})
    except (OSError, pa.ArrowException) as error:
        raise LakeError(f"lake {place.name}: {path}: cannot be read: {error}") from error
    return pl.DataFrame(found)
