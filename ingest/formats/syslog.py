r"""The syslog envelope: RFC 5424 and RFC 3164, the latter in the dialects that are really sent.

RFC 3164 describes what was seen on the wire and devices read it freely: the timestamp may be ISO 8601, hold a year
before or after, a fraction, or a zone's name; the hostname or the tag may be missing; so may the priority (files).
Relays such as rsyslog write control characters as `#` and three octal digits; they are undone in what is parsed, while
`event.original` keeps the line as it came.

A timestamp without a year gets the latest year that puts the event no more than a day after its receipt.
Without a zone it is taken as UTC.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from ingest.envelope import UTC_MICROSECONDS
from ingest.formats.times import iso_time

HEADER_5424: Final = (
    r"(?s)^<(?P<pri>\d{1,3})>1 (?P<time>\S{1,64}) (?P<host>\S{1,255}) (?P<program>\S{1,255}) "
    r"(?P<pid>\S{1,255}) \S{1,255} "
    r'(?P<structured_data>-|(?:\[(?:[^"\]\\]|\\.|"(?:[^"\\]|\\.)*")*\])+)(?: (?P<payload>.*))?$'
)
"""RFC 5424, 6: VERSION is 1; an escaped `]` or `"` may stand in a parameter's value."""

_MONTHS: Final = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_CLOCK: Final = r"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
HEADER_3164: Final = (
    r"(?s)^(?:<(?P<pri>\d{1,3})>)?(?:\d{1,10}: )?[*.]?(?:"
    rf"(?P<iso>\d{{4}}-\d\d-\d\d[T ]{_CLOCK}(?:Z|[+-]\d\d:?\d\d)?)"
    rf"|(?:(?P<year_before>(?:19|20)\d\d) )?(?P<month>{_MONTHS}) {{1,2}}(?P<day>\d{{1,2}})"
    rf"(?: (?P<year_middle>(?:19|20)\d\d))? "
    rf"(?P<clock>{_CLOCK})(?: (?P<year_after>(?:19|20)\d\d))?(?: (?:UTC|GMT|[A-Z]{{3,4}}))?"
    r"):? +(?:(?P<host>[^\s\[\]{<%]*[^\s:\[\]{<%]) +)?(?P<payload>.*)$"
)
"""TIMESTAMP, then HOSTNAME unless what stands there ends like a tag, or is already the content."""

PRIORITY_ONLY: Final = r"(?s)^<(?P<pri>\d{1,3})>(?P<payload>.*)$"
TAG: Final = r"(?s)^(?P<program>[\w./()@-]{1,64})(?:\[(?P<pid>[^\]]{1,32})\])?: ?(?P<rest>.*)$"

CONTROLS: Final = {f"#{code:03o}": chr(code) for code in (*range(1, 32), 127)}
"""rsyslog's escapes ($EscapeControlCharactersOnReceive), NUL left out."""

_COLUMNS: Final = ("pri", "time", "host", "program", "pid", "structured_data", "payload")


def split_headers(text: pl.Series, received: pl.Series) -> pl.DataFrame:
    """Take the syslog header off each line.

    Args:
        text: Lines.
        received: When each was received.

    Returns:
        `syslog` (whether a header was found), `syslog.time`, `syslog.host`, `program`, `pid`, `structured_data`, and
        `payload`: what follows header and tag, or the whole line where there is no header.
    """
    frame = pl.DataFrame({"text": text, "received": received})
    modern = pl.col("text").str.extract_groups(HEADER_5424)
    parts = frame.select(
        "received", "text", modern.alias("m"), pl.col("text").str.contains(HEADER_5424).alias("is5424")
    )
    return _modern(parts.filter("is5424")) if parts["is5424"].all() else _mixed(parts)


def _mixed(parts: pl.DataFrame) -> pl.DataFrame:
    numbered = parts.with_row_index("place")
    modern = numbered.filter("is5424")
    legacy = numbered.filter(~pl.col("is5424"))
    both = pl.concat(
        [
            _modern(modern).with_columns(modern["place"]),
            _legacy(legacy).with_columns(legacy["place"]),
        ]
    )
    return both.sort("place").drop("place")


def _modern(parts: pl.DataFrame) -> pl.DataFrame:
    fields = parts.select("m").unnest("m")
    # RFC 5424, 6.4: a UTF-8 MSG starts with a byte order mark.
    message = fields["payload"].fill_null("").str.strip_prefix("\ufeff")
    nil = {
        name: pl.when(pl.col(name) != "-").then(pl.col(name)) for name in ("host", "program", "pid", "structured_data")
    }
    return fields.with_columns(**nil).select(
        pl.lit(value=True).alias("syslog"),
        iso_time(pl.col("time"), assume_utc=True).alias("syslog.time"),
        pl.col("host").alias("syslog.host"),
        "program",
        "pid",
        "structured_data",
        unescaped(message).alias("payload"),
    )


def _legacy(parts: pl.DataFrame) -> pl.DataFrame:
    lines = parts.select(
        "received",
        "text",
        pl.col("text").str.extract_groups(HEADER_3164).alias("h"),
        pl.col("text").str.extract_groups(PRIORITY_ONLY).alias("p"),
    )
    header, bare = lines.select("h").unnest("h"), lines.select("p").unnest("p")
    found = header["payload"].is_not_null()
    payload = header["payload"].zip_with(found, bare["payload"])
    syslog = payload.is_not_null()
    payload = payload.zip_with(syslog, lines["text"])
    tag = pl.DataFrame({"p": payload, "s": syslog}).select(
        pl.when("s").then(pl.col("p").str.extract_groups(TAG)).alias("t")
    )
    tag = tag.unnest("t")
    return pl.DataFrame(
        {
            "syslog": syslog,
            "syslog.time": _legacy_times(header, lines["received"]),
            "syslog.host": header["host"],
            "program": tag["program"],
            "pid": tag["pid"],
            "structured_data": pl.Series([None] * len(lines), dtype=pl.String),
            "payload": unescaped(tag["rest"].zip_with(tag["rest"].is_not_null(), payload)),
        }
    )


def unescaped(content: pl.Series) -> pl.Series:
    """Control characters back from rsyslog's escapes; in JSON, which escapes its own, `#011` is what it looks like."""
    if not content.str.contains("#[01][0-7]{2}").any():
        return content
    frame = pl.DataFrame({"content": content})
    json = pl.col("content").str.contains(r"^\s*(?:@cee:\s*)?\{")
    return frame.select(
        pl.when(json).then("content").otherwise(pl.col("content").str.replace_many(CONTROLS)).alias("content")
    )["content"]


def _legacy_times(header: pl.DataFrame, received: pl.Series) -> pl.Series:
    iso = header.select(iso_time(pl.col("iso").str.replace(",", ".", literal=True), assume_utc=True))["iso"]
    if iso.null_count() == 0:
        return iso
    given = pl.coalesce("year_before", "year_middle", "year_after").cast(pl.Int32)
    day_clock = pl.concat_str(
        [pl.lit(" "), "month", pl.lit(" "), "day", pl.lit(" "), pl.col("clock").str.replace(",", ".")]
    )
    frame = header.with_columns(received.alias("received"))
    candidates = []
    for shift in (1, 0, -1, -2, -3, -4):  # the last three for 29 February
        year = pl.coalesce(given, pl.col("received").dt.year() + shift)
        text = pl.concat_str([year.cast(pl.String), day_clock])
        time = text.str.to_datetime("%Y %b %e %H:%M:%S%.f", time_unit="us", strict=False).dt.replace_time_zone("UTC")
        near = given.is_not_null() | (time <= pl.col("received") + pl.duration(days=1))
        candidates.append(pl.when(near).then(time))
    legacy = frame.select(pl.coalesce(candidates).cast(UTC_MICROSECONDS).alias("time"))["time"]
    return iso.zip_with(iso.is_not_null(), legacy)
