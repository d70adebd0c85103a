r"""Snare for Windows, and what writes like it (NXLog `to_syslog_snare`, SolarWinds, LogLogic): tab-separated columns.

    HOST\tMSWinEventLog\tCRITICALITY\tLOG\tCOUNTER\tTIME\tEVENTID\tPROVIDER\tUSER\tSIDTYPE\tTYPE\tCOMPUTER\tCATEGORY\tDATA\tTEXT\tMD5

The first tab may be a space, and relays write tabs as `#011` or as spaces. The time is local, in the words of the
machine's language (`ven. août 26 16:42:01 2011`). The text may hold tabs itself: all columns from its first on are it,
but for a last one that is a number or a checksum.
Source: Snare Enterprise Agent for Windows, "Event Format"; NXLog reference manual, `to_syslog_snare()`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import polars as pl

from ingest.formats.columns import Json
from ingest.formats.piece import Inner, Parsed
from ingest.formats.shapes import alike
from ingest.formats.syslog import unescaped
from ingest.formats.windows_events import WindowsEvents
from ingest.formats.windows_labels import without_accented, without_accents
from ingest.formats.windows_text import complete, judged
from ingest.logsource import LogSource

DATASET: Final = "windows.snare"
MARK: Final = "MSWinEventLog"
RECOGNISE: Final = pl.col("payload").str.contains(rf"^(?:[^\s]{{1,255}}[ \t]+)?{MARK}[ \t,;]") | pl.col(
    "program"
).str.starts_with(MARK).fill_null(value=False)
"""Lines with Snare's mark, which a relay may have taken for the TAG."""

_COLUMNS: Final = 13
_MONTHS: Final = {
    **{name: month for month, name in enumerate(("jan", "feb", "mar", "apr", "may", "jun"), 1)},
    **{name: month for month, name in enumerate(("jul", "aug", "sep", "oct", "nov", "dec"), 7)},
    **{name: month for month, name in enumerate(("janv", "fevr", "mars", "avr", "mai", "juin"), 1)},
    **{name: month for month, name in enumerate(("juil", "aout", "sept", "oct", "nov", "dec"), 7)},
    # with accented letters left out, as a mistaken encoding leaves them
    "fvr": 2,
    "aot": 8,
    "dc": 12,
}
_TIME: Final = re.compile(
    r"(?:[^\W\d]{2,9}\.?,? )?(?P<month>[^\s\d]{2,9}) {1,2}(?P<day>\d{1,2}) (?P<clock>\d\d:\d\d:\d\d) (?P<year>\d{4})"
)
_SPACED: Final = re.compile(
    rf"{MARK}[ \t,;]+(?P<criticality>\d{{1,2}})[ \t,;]+(?P<channel>\S(?:.{{0,120}}?\S)?)[ \t,;]+"
    r"(?P<counter>\d{1,20})[ \t,;]+"
    r"(?P<time>\S{2,10} \S{2,10} {1,2}\d{1,2} \d\d:\d\d:\d\d \d{4})[ \t,;]+(?P<id>\d{1,5})[ \t,;]+"
    r"(?P<provider>Microsoft-Windows-\S+|Service Control Manager|\S+)[ \t,;]+(?P<rest>.*)",
    re.DOTALL,
)
_KIND: Final = re.compile(r"\b(?:Success Audit|Failure Audit|Audit Success|Audit Failure|Information|Warning|Error)\b")
_LAST_COLUMN: Final = re.compile(r"\t(?:\d{1,20}|[0-9a-fA-F]{32})?\s*$")
_WINDOWS: Final = LogSource("windows")

NO_COLUMNS: Final = "MSWinEventLog without its columns"


def parse_snare(lines: pl.DataFrame) -> Parsed:
    """Events; a line with the mark alone, or cut before its event id, is a reject."""
    events: list[tuple[int, dict[str, Json]]] = []
    rejects: dict[int, str] = {}
    carried: list[tuple[int, str]] = []
    for row, text in zip(lines["row"].to_list(), _texts(lines), strict=True):
        begins = text.find(MARK)
        columns = text[begins:].split("\t", _COLUMNS)
        if len(columns) > 2 and columns[2].startswith("{"):
            carried.append((row, text[begins:].split("\t", 2)[2]))
            continue
        event = _of_columns(columns) if len(columns) > 5 else _of_spaces(text[begins:])
        if event is None:
            rejects[row] = NO_COLUMNS
        else:
            host = text[:begins].strip()
            if host and " " not in host:
                event.setdefault("Computer", host)
            events.append((row, event))
    windows = WindowsEvents()
    for same in alike(events):
        windows.add(DATASET, same)
    inner = [Inner(_WINDOWS, [row for row, _ in carried], [text for _, text in carried])] if carried else []
    return Parsed(windows.pieces(), rejects, {}, inner)


def _texts(lines: pl.DataFrame) -> list[str]:
    """The lines with what a relay took for their TAG put back."""
    program = pl.col("program")
    joined = pl.concat_str([program, pl.lit(" "), pl.col("payload")])
    texts = lines.select(
        pl.when(program.str.starts_with(MARK).fill_null(value=False)).then(joined).otherwise("payload").alias("text")
    )["text"]
    return unescaped(texts).to_list()


def _of_columns(columns: list[str]) -> dict[str, Json] | None:
    event_id = columns[5].strip()
    if not (event_id.isascii() and event_id.isdigit() and len(event_id) <= 10):
        return None
    cells = [cell.strip() for cell in columns]
    fields: dict[str, Json] = {"EventID": event_id, "Channel": cells[2], "EventTime": snare_time(cells[4])}
    names = {6: "Provider_Name", 7: "UserName", 10: "Computer", 11: "Category"}
    for place, name in names.items():
        if place < len(cells) and cells[place] not in ("", "N/A"):
            fields[name] = cells[place]
    if len(cells) > 9:
        judged(fields, cells[9])
    message = _LAST_COLUMN.sub("", columns[_COLUMNS]) if len(columns) > _COLUMNS else ""
    return complete(fields, message.strip())


def _of_spaces(text: str) -> dict[str, Json] | None:
    """A line of which a relay made the tabs spaces: where its columns end can be told only for the first of them."""
    found = _SPACED.match(text)
    if found is None:
        return None
    fields: dict[str, Json] = {
        "EventID": found["id"],
        "Channel": found["channel"],
        "EventTime": snare_time(found["time"]),
        "Provider_Name": found["provider"],
    }
    kind = _KIND.search(found["rest"][:500])
    if kind is not None:
        judged(fields, kind[0])
    return complete(fields, found["rest"])


def snare_time(text: str) -> str:
    """`Fri May 24 22:30:43 2013` and `ven. août 26 16:42:01 2011` as ISO 8601 without a zone; else the text itself."""
    return _snare_time(text) if len(text) <= 64 else text


@lru_cache(maxsize=4096)
def _snare_time(text: str) -> str:
    found = _TIME.fullmatch(text.strip())
    if found is None:
        return text
    month = _MONTHS.get(without_accents(found["month"])) or _MONTHS.get(without_accented(found["month"]))
    if month is None:
        return text
    return f"{found['year']}-{month:02d}-{int(found['day']):02d} {found['clock']}"
