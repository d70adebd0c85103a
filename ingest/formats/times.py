"""Event times: text in the forms that loggers write, to UTC microseconds, over a whole column.

Traps: 13 digits are milliseconds, not seconds (read as seconds they are the year 55840); NXLog's EventTime has no zone;
.NET and Go write 7 and 9 digits of a second; Python and log4j write a comma before them (ISO 8601 allows it);
PowerShell's ConvertTo-Json writes /Date(ms)/.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import polars as pl

from ingest.envelope import UTC_MICROSECONDS

EARLIEST: Final = datetime(1990, 1, 1, tzinfo=UTC)
"""Nothing that logs today wrote before; an unset FILETIME is 1601, an unset Unix time 1970."""
LATEST_AHEAD: Final = timedelta(days=2)
"""How far a clock may be ahead: a wrong time zone is 14 hours at most."""

_CLOCK_AHEAD: Final = timedelta(minutes=5)
"""How far the clock of a source may be ahead of the collector's, where the hour that comes twice is told by it."""

_ZONED: Final = "%Y-%m-%dT%H:%M:%S%.f%#z"
_PLAIN: Final = "%Y-%m-%dT%H:%M:%S%.f"
_RARE: Final = ("%a %b %d %H:%M:%S %Y", "%Y/%m/%d %H:%M:%S%.f", "%Y/%m/%dT%H:%M:%S%.f")
_EPOCH_UNITS: Final = ((10, 1_000_000), (13, 1_000), (16, 1))
"""Digits of an epoch (from 2001 to 2286) -> microseconds in one unit; 19 digits are nanoseconds."""


_NO_ZONE: Final = r"^\d{4}-\d\d-\d\d[T ][0-9:.]+$"
"""Texts that name no zone. Looking is a fifth of the cost of reading them as if they did."""


UTC_ZONE: Final = "UTC"


@dataclass(frozen=True, slots=True)
class Clocks:
    """What is known of the clocks of some lines' source.

    Attributes:
        zone: Time zone (IANA) of the times that name none.
        received: When each line was received; tells which of the two passes of the autumn hour is meant.
    """

    zone: str
    received: pl.Series


def iso_times(texts: pl.Series, *, assume_utc: bool, clocks: Clocks | None = None) -> pl.Series:
    """`iso_time` of a column, without what its texts show to be in vain.

    Args:
        texts: What should hold times.
        assume_utc: Whether to read those that name no zone: as UTC, or as `clocks` say.
        clocks: Of the same length, or None.
    """
    no_zone = bool(texts.str.contains(_NO_ZONE).all())  # nulls have none
    if no_zone and not assume_utc:
        return pl.Series(texts.name, [None], dtype=UTC_MICROSECONDS).new_from_index(0, len(texts))
    frame = pl.DataFrame({"text": texts})
    if no_zone:
        return localised(frame.select(_plain_time(_joined(pl.col("text")))).to_series(), clocks)
    zoned = frame.select(iso_time(pl.col("text"), assume_utc=False)).to_series()
    if not assume_utc or zoned.null_count() == texts.null_count():
        return zoned
    return zoned.zip_with(
        zoned.is_not_null(), localised(frame.select(_plain_time(_joined(pl.col("text")))).to_series(), clocks)
    )


def localised(times: pl.Series, clocks: Clocks | None) -> pl.Series:
    """Times that were read as UTC, read as times of another zone.

    In autumn an hour comes twice: its second pass is meant if that is not after the line was received. In spring an
    hour does not exist: a clock that was not put forward is taken to have shown it.
    """
    if clocks is None or clocks.zone == UTC_ZONE or times.null_count() == len(times):
        return times
    frame = pl.DataFrame({"naive": times.dt.replace_time_zone(None), "received": clocks.received})
    hour, naive = pl.duration(hours=1), pl.col("naive")

    def zoned(expression: pl.Expr, *, latest: bool) -> pl.Expr:
        ambiguous: Literal["latest", "earliest"] = "latest" if latest else "earliest"
        there = expression.dt.replace_time_zone(clocks.zone, ambiguous=ambiguous, non_existent="null")
        return there.dt.convert_time_zone("UTC")

    passes = frame.select(
        pl.coalesce(zoned(naive, latest=False), zoned(naive - hour, latest=False) + hour).alias("first"),
        zoned(naive, latest=True).alias("second"),
        "received",
    )
    second = (pl.col("second") != pl.col("first")) & (pl.col("second") <= pl.col("received") + _CLOCK_AHEAD)
    chosen = pl.when(second).then("second").otherwise("first").cast(UTC_MICROSECONDS)
    return passes.select(chosen.alias(times.name)).to_series()


def iso_time(text: pl.Expr, *, assume_utc: bool) -> pl.Expr:
    """The times of ISO 8601 texts; null where there is none, or none with a zone unless `assume_utc`."""
    joined = _joined(text)
    zoned = joined.str.to_datetime(_ZONED, time_unit="us", strict=False).cast(UTC_MICROSECONDS)
    if not assume_utc:
        return zoned
    return pl.coalesce(zoned, _plain_time(joined))


def _joined(text: pl.Expr) -> pl.Expr:
    return text.str.replace(" ", "T", literal=True)


def _plain_time(joined: pl.Expr) -> pl.Expr:
    return joined.str.to_datetime(_PLAIN, time_unit="us", strict=False).dt.replace_time_zone("UTC")


def rare_times(texts: pl.Series, clocks: Clocks | None = None) -> pl.Series:
    """The times of texts in the forms that are not ISO 8601: epochs, asctime, slashes."""
    stripped = pl.col("text").str.strip_chars().str.replace(r"(:\d\d),(\d{1,9})", "$1.$2")
    forms = [stripped.str.to_datetime(form, time_unit="us", strict=False).dt.replace_time_zone("UTC") for form in _RARE]
    found = pl.DataFrame({"text": texts}).select(
        pl.coalesce(_epoch(stripped), iso_time(stripped, assume_utc=False)).alias("sure"),
        pl.coalesce(*forms, _plain_time(_joined(stripped))).alias("local"),
    )
    return found["sure"].zip_with(found["sure"].is_not_null(), localised(found["local"], clocks))


def _epoch(text: pl.Expr) -> pl.Expr:
    epoch = r"^(?:/Date\()?(\d{10,19})(?:[.,](\d+))?(?:[+-]\d{4})?(?:\)/)?$"
    digits, fraction = text.str.extract(epoch), text.str.extract(epoch, 2)
    length = digits.str.len_bytes()
    number = digits.cast(pl.Int64, strict=False)
    by_length = [pl.when(length == count).then(number * unit) for count, unit in _EPOCH_UNITS]
    whole = pl.coalesce(*by_length, pl.when(length == 19).then(number // 1000))
    # of seconds a fraction counts (Zeek, Squid); of milliseconds and less it is dropped
    more = pl.when(length == 10).then(fraction.str.slice(0, 6).str.pad_end(6, "0").cast(pl.Int64, strict=False))
    micros = whole + more.fill_null(0)
    return micros.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
