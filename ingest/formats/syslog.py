r"""The syslog envelope: RFC 5424 and RFC 3164, the latter in the dialects that are really sent.

RFC 3164 describes what was seen on the wire and devices read it freely: the timestamp may be ISO 8601, hold a year
before or after, a fraction, or a zone's name; the hostname or the tag may be missing; so may the priority (files).
Relays such as rsyslog write control characters as `#` and three octal digits; they are undone in what is parsed, while
`event.original` keeps the line as it came.

No expression reaches into the content: what it takes is the header, and the content is what is left without it. An
expression with groups costs some nanoseconds for each byte it passes, and contents are long.

A timestamp without a year gets the latest year that puts the event no more than a day after its receipt.
Without a zone it is taken as UTC.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import polars as pl

from ingest.envelope import UTC_MICROSECONDS
from ingest.formats.times import iso_time

_BEFORE_DATA: Final = (
    r"(?s)^<(?P<pri>[0-9]{1,3})>1 (?P<time>[^ \t\r\n]+) (?P<host>[^ \t\r\n]+) (?P<program>[^ \t\r\n]+) "
    r"(?P<pid>[^ \t\r\n]+) [^ \t\r\n]+ "
)
"""Without limits of length: bounded repetitions make the automaton so large that groups cost ten times as much."""

HEADER_5424: Final = _BEFORE_DATA + r'(?P<structured_data>-|(?:\[(?:[^"\]\\]|\\.|"(?:[^"\\]|\\.)*")*\])+)(?: |$)'
"""RFC 5424, 6: VERSION is 1; an escaped `]` or `"` may stand in a parameter's value."""

_NO_DATA_5424: Final = _BEFORE_DATA + r"(?P<structured_data>-)(?: |$)"
"""The header of most senders; the one above matches it too, at several times the cost."""

_MONTHS: Final = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_CLOCK: Final = r"[0-9][0-9]:[0-9][0-9]:[0-9][0-9](?:[.,][0-9]{1,9})?"
_ZONE: Final = "UTC|GMT|[ABD-Z][A-Z]{2,3}|C[A-DF-Z][A-Z]{1,2}|CE[A-EG-Z][A-Z]?"
"""Names of time zones; `CEF: 0|` is none, but what FortiGate writes."""
HEADER_3164: Final = (
    r"(?s)^(?:<(?P<pri>[0-9]{1,3})>)?(?:[0-9]{1,10}: (?:(?P<origin>[A-Za-z][A-Za-z0-9_.-]*): )?(?:[0-9]{1,10}: )?|: ?)?"
    r"[*.]?(?:"
    rf"(?P<iso>[0-9]{{4}}-[0-9][0-9]-[0-9][0-9][T ]{_CLOCK}(?:Z|[+-][0-9][0-9]:?[0-9][0-9])?)"
    rf"|(?:(?P<year_before>(?:19|20)[0-9][0-9]) )?(?P<month>{_MONTHS}) {{1,2}}(?P<day>[0-9]{{1,2}})"
    rf"(?: (?P<year_middle>(?:19|20)[0-9][0-9]))? "
    rf"(?P<clock>{_CLOCK})(?: (?P<year_after>(?:19|20)[0-9][0-9]))?(?: (?P<zone>{_ZONE}))?"
    r"):?(?: (?:Em|Al|Cr|Er|Wa|No|In|Db)\([0-9]{0,3}\)\+?)? +(?:(?P<host>[^\s\[\]{<%,=|#'’]*[^\s:\[\]{<%,=|#'’]) +)?"
)
"""TIMESTAMP, then HOSTNAME unless what stands there ends like a tag, or is already content (`id=firewall`, `CEF:0|`,
`1,2026/02/28`, `HOST#011MSWinEventLog`). ESXi 8 writes its severity, `In(14)`, between them. Cisco counts its messages
before the timestamp, and may name itself there (`45: core-sw01: 000045: *Feb 28`); ASA's EMBLEM and NX-OS begin with a
colon."""

PRIORITY_ONLY: Final = r"^<[0-9]{1,3}>"
TAG: Final = r"^(?P<program>[\w./()@-]+)\]?(?:\[(?P<pid>[^\]]+)\])?: ?"
"""`gdm-password]: ` is how GDM names itself."""
MAX_PROGRAM: Final = 64
MAX_PID: Final = 32
"""Characters of a tag; counted apart: a bounded repetition of so wide a class makes the expression 100 times larger."""

CONTROLS: Final = {f"#{code:03o}": chr(code) for code in (*range(1, 32), 127)}
"""rsyslog's escapes ($EscapeControlCharactersOnReceive), NUL left out."""

ESXI_LEVELS: Final = ["info", "warning", "error", "verbose", "trivia", "panic"]

_BEGINS_5424: Final = r"^<[0-9]{1,3}>1 "


def split_headers(text: pl.Series, received: pl.Series) -> pl.DataFrame:
    """Take the syslog header off each line.

    Args:
        text: Lines.
        received: When each was received.

    Returns:
        `syslog` (whether a header was found), `syslog.time`, `syslog.naive` (whether that time named no zone and was
        taken as UTC), `syslog.host`, `program`, `pid`, `structured_data`, and
        `payload`: what follows header and tag, or the whole line where there is no header.
    """
    frame = pl.DataFrame({"text": text, "received": received})
    begins = text.str.contains(_BEGINS_5424)
    if not begins.any():
        return _legacy(frame)
    plain = begins & text.str.contains(_NO_DATA_5424)
    if plain.all():
        return _modern(frame, _NO_DATA_5424)
    modern = begins & ~plain & text.str.contains(HEADER_5424)
    parts = (
        (plain, lambda lines: _modern(lines, _NO_DATA_5424)),
        (modern, lambda lines: _modern(lines, HEADER_5424)),
        (~plain & ~modern, _legacy),
    )
    read = [(rows.arg_true(), read(frame.filter(rows))) for rows, read in parts if rows.any()]
    return pl.concat([lines for _, lines in read])[pl.concat([places for places, _ in read]).arg_sort()]


def _taken_off(text: pl.Series, header: str) -> tuple[pl.DataFrame, pl.Series]:
    """(`header` and its groups, null where there is none; the text without the header)."""
    groups = text.str.extract_groups(f"(?P<header>{header})").struct.unnest()
    frame = pl.DataFrame({"text": text, "header": groups["header"]})
    return groups, frame.select(pl.col("text").str.strip_prefix(pl.col("header").fill_null(""))).to_series()


def _tag_taken_off(content: pl.Series) -> tuple[pl.DataFrame, pl.Series]:
    """(`program` and `pid`, null where there is no tag; the content without the tag)."""
    tag, rest = _taken_off(content, TAG)
    long = (tag["program"].str.len_chars() > MAX_PROGRAM) | (tag["pid"].str.len_chars() > MAX_PID).fill_null(
        value=False
    )
    if not long.any():
        return tag, rest
    return tag.with_columns(pl.when(~long.fill_null(value=False)).then(pl.all())), rest.zip_with(
        ~long.fill_null(value=False), content
    )


def _modern(lines: pl.DataFrame, pattern: str) -> pl.DataFrame:
    fields, payload = _taken_off(lines["text"], pattern)
    nil = {
        name: pl.when(pl.col(name) != "-").then(pl.col(name)) for name in ("host", "program", "pid", "structured_data")
    }
    return fields.with_columns(**nil).select(
        pl.lit(value=True).alias("syslog"),
        iso_time(pl.col("time"), assume_utc=True).alias("syslog.time"),
        pl.lit(value=False).alias("syslog.naive"),  # RFC 5424, 6.2.3: TIME-OFFSET is not optional
        pl.col("host").alias("syslog.host"),
        "program",
        "pid",
        "structured_data",
        # RFC 5424, 6.4: a UTF-8 MSG starts with a byte order mark.
        unescaped(payload.str.strip_prefix("\ufeff")).alias("payload"),
    )


def _legacy(lines: pl.DataFrame) -> pl.DataFrame:
    header, content = _taken_off(lines["text"], HEADER_3164)
    syslog = found = header["header"].is_not_null()
    if not found.all():
        bare = content.str.contains(PRIORITY_ONLY)
        syslog = found | bare
        content = content.zip_with(found, content.str.replace(PRIORITY_ONLY, ""))
    tagged = content if syslog.all() else content.set(~syslog, None)
    tag, rest = _tag_taken_off(tagged)
    return pl.DataFrame(
        {
            "syslog": syslog,
            "syslog.time": _legacy_times(header, lines["received"]),
            "syslog.naive": _naive(header),
            "syslog.host": _hosts(header["origin"].zip_with(header["origin"].is_not_null(), header["host"]), content),
            "program": tag["program"],
            "pid": tag["pid"],
            "structured_data": pl.Series([None], dtype=pl.String).new_from_index(0, lines.height),
            "payload": unescaped(rest.zip_with(syslog, content)),
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
    if header["iso"].null_count() < header.height:
        iso = header.select(iso_time(pl.col("iso").str.replace(",", ".", literal=True), assume_utc=True))["iso"]
        if not iso.null_count():
            return iso
    else:
        iso = pl.Series("iso", [None], dtype=UTC_MICROSECONDS).new_from_index(0, header.height)
    return iso.zip_with(iso.is_not_null(), _times_without_year(header, received))


def _hosts(host: pl.Series, content: pl.Series) -> pl.Series:
    """Hosts, but for what ESXi's log files have there: `2026-02-28T10:00:00Z info hostd[2099] [Originator...`."""
    level = host.is_in(ESXI_LEVELS).fill_null(value=False)
    if not level.any():
        return host
    return host.set(level & content.str.contains(r"^(?:hostd|vpxa)(?:-\w{1,32})?\["), None)


def _naive(header: pl.DataFrame) -> pl.Series:
    """Whether a time names no zone. `CET` and the like are names that only the source's own zone tells apart."""
    named = pl.col("iso").str.contains(r"(?:Z|[+-]\d\d:?\d\d)$")
    return header.select(
        pl.coalesce(~named, ~pl.col("zone").is_in(["UTC", "GMT"]), pl.col("month").is_not_null(), pl.lit(value=False))
    ).to_series()


def _times_without_year(header: pl.DataFrame, received: pl.Series) -> pl.Series:
    """Times such as `Jan 18 11:29:03`, in the latest year that is not after their receipt, unless they name one."""
    frame = header.select(
        pl.coalesce("year_before", "year_middle", "year_after").cast(pl.Int32).alias("given"),
        pl.concat_str(
            [pl.lit(" "), "month", pl.lit(" "), "day", pl.lit(" "), pl.col("clock").str.replace(",", ".", literal=True)]
        ).alias("day_clock"),
        received.alias("received"),
    )
    time = pl.Series("time", [None], dtype=UTC_MICROSECONDS).new_from_index(0, header.height)
    # Most are of this year or the last: each year is tried on the rows that are left (the last three: 29 February).
    for shift in (1, 0, -1, -2, -3, -4):
        left = time.is_null() & frame["day_clock"].is_not_null()
        if shift > 0:  # next year can only be less than a day away on its eve
            eve = (frame["received"] + timedelta(days=1)).dt.year() > frame["received"].dt.year()
            left &= eve | frame["given"].is_not_null()
        if not left.any():
            continue
        part = frame if left.all() else frame.filter(left)
        text = pl.concat_str(
            [pl.coalesce("given", pl.col("received").dt.year() + shift).cast(pl.String), pl.col("day_clock")]
        )
        read = text.str.to_datetime("%Y %b %e %H:%M:%S%.f", time_unit="us", strict=False).dt.replace_time_zone("UTC")
        near = pl.col("given").is_not_null() | (read <= pl.col("received") + pl.duration(days=1))
        found = part.select(pl.when(near).then(read).cast(UTC_MICROSECONDS)).to_series()
        time = found if left.all() else time.scatter(left.arg_true(), found)
    return time
