"""Parts of times: what `hour`, `week` and their kin read out of a field's text.

A field is a time if it is written in one of these ways; anything else has no hour, and the comparison is false:

- ISO 8601 and what Windows and Sysmon make of it: `2026-03-01T22:15:30.1234567Z`, `2026-03-01 22:15:30.123`,
  `2026-03-01T22:15+01:00`, `2026-03-01`. Seconds, their fraction and the zone may be left out;
- seconds since 1970 in ten digits, with a fraction or not; milli-, micro- and nanoseconds in thirteen, sixteen and
  nineteen. Fewer digits are a number, not a time: `4624` has no hour.

Times are taken in UTC, which is also where a time without a zone is said to be. Weeks are those of ISO 8601, 1 to 53; a
year is that of the calendar. Seconds are no part that Sigma asks for, so times are read to the minute.

`time_code` says the same as Python code for a notebook.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import polars as pl

ISO: Final = (
    r"\A\s*([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[Tt ]([0-9]{2}:[0-9]{2})(?::[0-5][0-9](?:[.,][0-9]+)?|:60(?:[.,][0-9]+)?)?"
    r" ?(?:[Zz]|([+-])([01][0-9]|2[0-3])(?::?([0-5][0-9]))?)?)?\s*\z"
)
"""Groups: date, hour and minute, sign, hours and minutes of the zone. A leap second is in the minute that it ends."""

EPOCH: Final = r"\A\s*([0-9]{10})(?:\.[0-9]+|(?:[0-9]{3}){1,3})?\s*\z"
"""Group: the seconds."""

MICROSECONDS: Final = 1_000_000

TIME_PARTS: Final[dict[str, Callable[[pl.Expr], pl.Expr]]] = {
    "minute": lambda time: time.dt.minute(),
    "hour": lambda time: time.dt.hour(),
    "day": lambda time: time.dt.day(),
    "week": lambda time: time.dt.week(),
    "month": lambda time: time.dt.month(),
    "year": lambda time: time.dt.year(),
}


def instant(text: pl.Expr) -> pl.Expr:
    """The time that a text is, in UTC and to the minute; null if it is none."""
    groups = text.str.extract_groups(ISO)
    date, time, sign, hours, minutes = (groups.struct[place] for place in range(5))
    wall = pl.concat_str(date, time.fill_null("00:00"), separator=" ").str.to_datetime("%Y-%m-%d %H:%M", strict=False)
    zone = hours.cast(pl.Int64).fill_null(0) * 60 + minutes.cast(pl.Int64).fill_null(0)
    local = wall - pl.duration(minutes=zone * pl.when(sign == "-").then(-1).otherwise(1))
    epoch = text.str.extract(EPOCH).cast(pl.Int64) * MICROSECONDS
    return pl.coalesce(local, epoch.cast(pl.Datetime("us")))


def time_part(text: pl.Expr, part: str) -> pl.Expr:
    """A part of the time that a text is, as a number; null if it is none."""
    return TIME_PARTS[part](instant(text))


def time_code(column: str, part: str) -> str:
    """`time_part` as Python code over the code of a text column."""
    date, time, sign, hours, minutes = (f'{column}.str.extract(r"{ISO}", {group})' for group in range(1, 6))
    seconds = f'{column}.str.extract(r"{EPOCH}").cast(pl.Int64) * {MICROSECONDS}'
    wall = (
        f'pl.concat_str({date}, {time}.fill_null("00:00"), separator=" ")'
        '.str.to_datetime("%Y-%m-%d %H:%M", strict=False)'
    )
    zone = f"{hours}.cast(pl.Int64).fill_null(0) * 60 + {minutes}.cast(pl.Int64).fill_null(0)"
    ahead = f'pl.when({sign} == "-").then(-1).otherwise(1)'
    return (
        f"pl.coalesce({wall} - pl.duration(minutes=({zone}) * {ahead}), "
        f'({seconds}).cast(pl.Datetime("us"))).dt.{part}()'
    )
