"""Times as devices write them, brought into ISO 8601 for the envelope.

What has a zone keeps it, an epoch gets `Z`, and what has none stays without: the envelope then knows whose time it is.
Of a time in French (`fév.`) or with a zone by name (`CEST`) only what is beyond doubt is read.
"""

from __future__ import annotations

import re
from typing import Final

import polars as pl

_ISO: Final = "%Y-%m-%dT%H:%M:%S%.6f"
_EPOCH_UNITS: Final = {10: 1_000_000, 13: 1_000, 16: 1}
_DECIMAL: Final = r"^([0-9]{10})\.([0-9]{1,9})$"
_NAMED: Final = (
    r"^(?:[A-Z][a-z]{2},? +)?(?P<month>[A-Z][a-z]{2}) +(?P<day>\d{1,2}),? +(?:(?P<year>\d{4}),? +)?"
    r"(?P<clock>\d\d:\d\d:\d\d(?:[.,]\d{1,9})?)(?: +(?P<year_after>(?:19|20)\d\d))?"
    r"(?: *(?:UTC|GMT)?(?P<zone>[+-]\d\d:?\d\d|Z)?)(?P<utc> ?(?:UTC|GMT|Z))?$"
)
_UTC_NAME: Final = r"(?:UTC|GMT|Z)$"


def epoch_moments(text: pl.Series) -> pl.Series:
    """Epochs in seconds (with a fraction or without), milliseconds, microseconds or nanoseconds, as ISO 8601 in UTC.

    Null where there is none.
    """
    frame = pl.DataFrame({"text": text})
    digits = pl.col("text").str.extract(r"^([0-9]{10}(?:[0-9]{3}|[0-9]{6}|[0-9]{9})?)$").cast(pl.Int64, strict=False)
    length = pl.col("text").str.len_bytes()
    by_length = [pl.when(length == count).then(digits * unit) for count, unit in _EPOCH_UNITS.items()]
    micros = pl.coalesce(*by_length, pl.when(length == 19).then(digits // 1000))
    if frame.select(pl.col("text").str.contains(".", literal=True).any()).item():
        seconds = pl.col("text").str.extract(_DECIMAL, 1).cast(pl.Int64, strict=False) * 1_000_000
        fraction = (
            pl.col("text").str.extract(_DECIMAL, 2).str.slice(0, 6).str.pad_end(6, "0").cast(pl.Int64, strict=False)
        )
        micros = pl.coalesce(micros, seconds + fraction)
    return frame.select(micros.cast(pl.Datetime("us")).dt.strftime(f"{_ISO}Z")).to_series()


def moments(text: pl.Series, form: str | None = None) -> pl.Series:
    """Times of the usual forms as ISO 8601; a text of another form, and a time without a year, stays as it is.

    Args:
        text: Epochs, `Feb 28 2026 10:00:00`, `Sat Feb 28 10:00:00 2026`, both with `.123`, `GMT+01:00` or `UTC`.
        form: chrono's form of these texts, where something declared it.
    """
    if form is not None:
        return declared_moments(text, form)
    if not text.str.contains(r"^[A-Z\d]").any():
        return text
    read = epoch_moments(text)
    if read.null_count() == text.null_count():
        return read
    found = read.zip_with(read.is_not_null(), _named_moments(text))
    return found.zip_with(found.is_not_null(), text)


def _named_moments(text: pl.Series) -> pl.Series:
    parts = text.str.extract_groups(_NAMED).struct.unnest()
    year = pl.coalesce("year", "year_after")
    joined = pl.concat_str(
        [
            year,
            pl.lit(" "),
            "month",
            pl.lit(" "),
            "day",
            pl.lit(" "),
            pl.col("clock").str.replace(",", ".", literal=True),
        ]
    )
    read = joined.str.to_datetime("%Y %b %e %H:%M:%S%.f", time_unit="us", strict=False).dt.strftime(_ISO)
    in_utc = pl.lit(text.str.contains(_UTC_NAME))
    zone = pl.coalesce("zone", pl.when(in_utc).then(pl.lit("Z")), pl.lit(""))
    return parts.select(pl.concat_str([read, zone])).to_series()


def declared_moments(text: pl.Series, form: str) -> pl.Series:
    """Times of one declared form as ISO 8601; null where they are not of that form."""
    zoned = "%z" in form or "%:z" in form or "%#z" in form
    try:
        read = text.str.to_datetime(form, time_unit="us", strict=False)
    except pl.exceptions.PolarsError:  # chrono refuses what contradicts itself
        return pl.Series(text.name, [None], dtype=pl.String).new_from_index(0, len(text))
    if zoned:
        read = read.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return read.dt.strftime(_ISO + ("Z" if zoned else ""))


_JAVA_TOKEN: Final = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|[^A-Za-z']+")
_JAVA: Final[dict[str, str]] = {
    **dict.fromkeys(("yyyy", "YYYY", "uuuu"), "%Y"),
    **dict.fromkeys(("dd", "DD"), "%d"),
    **dict.fromkeys(("MM", "M"), "%m"),
    **dict.fromkeys(("HH", "H"), "%H"),
    **dict.fromkeys(("hh", "h"), "%I"),
    **dict.fromkeys(("Z", "X", "XX", "XXX"), "%#z"),
    "yy": "%y",
    "MMM": "%b",
    "MMMM": "%B",
    "d": "%e",
    "mm": "%M",
    "ss": "%S",
    "a": "%p",
    "EEE": "%a",
    "T": "T",
}
"""Java's letters -> chrono's. `YYYY` and `DD` are wrong there, and what IBM's own examples write."""
MAX_FORM: Final = 64


def chrono_form(java: str) -> str | None:
    """The form of LEEF's `devTimeFormat` (Java's SimpleDateFormat) for chrono; None if it is not understood."""
    if len(java) > MAX_FORM:
        return None
    form = ""
    at = 0
    for match in _JAVA_TOKEN.finditer(java):
        if match.start() != at:
            return None
        at = match.end()
        token = match.group()
        if match[1] is not None:
            form += match[1].replace("%", "%%") or "'"
        elif not match[2]:
            form += token.replace("%", "%%")
        elif set(token) == {"S"}:  # a fraction, after a point or a comma
            form = form[:-1] + "%.f" if form.endswith(".") else form
            if not form.endswith("%.f"):
                return None
        elif token in _JAVA:
            form += _JAVA[token]
        else:
            return None
    return form if at == len(java) else None
