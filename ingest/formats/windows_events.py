"""Windows events, whatever carried them: from (channel, event id, provider, fields) to pieces in Sigma's names.

A bucket holds the events of one (dataset, channel, event id, provider), so that its frame is narrow: the rules that
meet it are then few, and the columns are full. Buckets too small to be worth a frame of their own are joined with
others of the same log source.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, TypeAlias

import polars as pl

from ingest.formats.columns import Fields, Json, as_text, plain_name, runs_within_limits, text_frame
from ingest.formats.piece import EnvelopeNames, Piece, spellings_of
from ingest.formats.windows_fields import DERIVED_FROM, derive
from ingest.formats.windows_logsource import REFINED_BY, windows_logsource
from ingest.logsource import LogSource

SMALL_BUCKET: Final = 32
"""Buckets of fewer rows share a frame with others of their log source: a frame costs the engine about 30 rows."""

WINDOWS_NAMES: Final = EnvelopeNames(
    # NXLog's EventTime and some exports' TimeCreated are local time without a zone; UtcTime of Sysmon is UTC without
    # one; @timestamp is the event time from Winlogbeat, but the time of receipt when logstash took NXLog's events.
    time=(
        ("TimeCreated", False),
        ("EventTime", False),
        ("UtcTime", True),
        ("@timestamp", True),
        ("EventTime", True),
        ("TimeCreated", True),
    ),
    host=("Computer", "host.name"),
    user=("TargetUserName", "User", "SubjectUserName", "SourceUser", "UserName", "AccountName", "user.name"),
    source_ip=("IpAddress", "SourceIp", "SourceAddress", "ClientAddress", "source.ip"),
    destination_ip=("DestinationIp", "DestAddress", "DestinationAddress", "destination.ip"),
)

WINDOWS_SPELLINGS: Final = spellings_of(WINDOWS_NAMES, DERIVED_FROM)

FLAT_NAMES: Final[Mapping[str, str]] = {
    "Hostname": "Computer",
    "ProviderGuid": "Provider_Guid",
    "RecordNumber": "EventRecordID",
    "RecordID": "EventRecordID",
    "SourceName": "Provider_Name",
    "message": "Message",
}
"""Names of flat JSON (NXLog, OTRF) -> the names Sigma rules use."""

Event: TypeAlias = tuple[int, Fields]
Key: TypeAlias = tuple[str, str | None, str, str | None, str | None]
Buckets: TypeAlias = dict[Key, list[Event]]
"""(dataset, channel, event id, provider, refining value) -> events, by row.

All as text: Python holds 1, 1.0 and True equal, so with raw values one event would choose the log source of another.
"""


def put(buckets: Buckets, row: int, dataset: str, fields: Fields, provider: Json) -> None:
    """Lay an event into its bucket; `fields` has `Channel` and `EventID` already, if the event has them.

    `System.Channel` and the like stand where UserData has a field of that name (`ingest.formats.windows_json`).
    """
    channel = fields.get("System.Channel", fields.get("Channel"))
    event_id = fields.get("System.EventID", fields.get("EventID"))
    number = (as_text(event_id) or "").strip()
    refined = as_text(fields.get(REFINED_BY[number])) if number in REFINED_BY else None
    buckets.setdefault((dataset, as_text(channel), number, as_text(provider), refined), []).append((row, fields))


@lru_cache(maxsize=65536)
def windows_name(name: str) -> str:
    """EventData's name as Sigma rules write it: without spaces (`New Value` of Defender is `NewValue`)."""
    return plain_name(name.replace(" ", ""))


@lru_cache(maxsize=65536)
def flat_name(name: str) -> str:
    """A name of flat JSON as Sigma rules write it."""
    return FLAT_NAMES.get(name) or windows_name(name)


def pieces_of(buckets: Buckets) -> list[Piece]:
    """Frames of all buckets, with the fields that rules expect and the carrier did not give."""
    frames: dict[tuple[str, LogSource, Key | None], list[Event]] = {}
    for key, events in buckets.items():
        dataset, channel, event_id, provider, refined = key
        logsource = windows_logsource(channel, event_id, provider, refined)
        own = key if len(events) >= SMALL_BUCKET else None
        frames.setdefault((dataset, logsource, own), []).extend(events)
    pieces: list[Piece] = []
    for (dataset, logsource, _), events in frames.items():
        events.sort(key=_width)  # so that events with the same keys stand together
        runs = runs_within_limits([fields for _, fields in events])
        pieces += [_piece(dataset, logsource, events[run.start : run.stop]) for run in runs]
    return pieces


def _width(event: Event) -> int:
    return len(event[1])


def _piece(dataset: str, logsource: LogSource, events: list[Event]) -> Piece:
    naming = flat_name if dataset in FLAT_DATASETS else windows_name
    frame = text_frame([fields for _, fields in events], naming, WINDOWS_SPELLINGS)
    rows = pl.Series("row", [row for row, _ in events], dtype=pl.UInt32)
    return Piece(logsource, dataset, rows, derive(frame, logsource), WINDOWS_NAMES)


FLAT_DATASETS: Final = frozenset({"windows.nxlog", "windows.json"})
"""Datasets whose names are those of flat JSON."""
