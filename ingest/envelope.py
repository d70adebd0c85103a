"""The event frame: what parsing hands on, and what rules, the lake and hunts read.

A frame holds events of ONE log source. Its first columns are the envelope (ECS names, typed, always all present, in the
order of `ENVELOPE`); after them come the fields of the source in Sigma's own names, every one a String column that is
null where the event has no such field. One type for all fields is a decision (docs/decisions/0003-fields-are-text.md):
Sigma holds number and string forms of a value equal, sources disagree on them, and Parquet schemas then never clash.
No two columns of a frame differ only by case, since Delta and DuckDB fold the case of column names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from ingest.logsource import LogSource

UTC_MICROSECONDS: Final = pl.Datetime("us", "UTC")

EVENT_ID: Final = "event.id"
TENANT: Final = "organization.id"
TIMESTAMP: Final = "@timestamp"
RECEIVED: Final = "event.created"
DATASET: Final = "event.dataset"
HOST: Final = "host.name"
USER: Final = "user.name"
SOURCE_IP: Final = "source.ip"
DESTINATION_IP: Final = "destination.ip"
PEER: Final = "log.source.address"
REMARK: Final = "error.message"
ORIGINAL: Final = "event.original"

ENVELOPE: Final[dict[str, pl.DataType]] = {
    EVENT_ID: pl.String(),  # deterministic: topic:partition:offset:row, or file:row in a hunt
    TENANT: pl.String(),  # the hospital, from the channel
    TIMESTAMP: UTC_MICROSECONDS,  # event time; never null: the received time where the event has none that is usable
    RECEIVED: UTC_MICROSECONDS,  # when the collector had the whole frame
    DATASET: pl.String(),  # the format that understood the line, e.g. "windows.nxlog"; "unknown" if none did
    HOST: pl.String(),
    USER: pl.String(),
    SOURCE_IP: pl.String(),
    DESTINATION_IP: pl.String(),
    PEER: pl.String(),  # address of the sender on the listener
    REMARK: pl.String(),  # null, or what was wrong with the line and what was done about it
    ORIGINAL: pl.String(),  # the raw line; bytes that are not UTF-8 are read as ISO-8859-1, which loses nothing
}
"""Envelope column -> Polars type."""


@dataclass(frozen=True, slots=True)
class EventFrame:
    """Events of one log source.

    Attributes:
        logsource: The most specific Sigma log source all rows share.
        events: `ENVELOPE` columns, then String columns in Sigma's field names.
    """

    logsource: LogSource
    events: pl.DataFrame

    @property
    def fields(self) -> list[str]:
        """The Sigma fields: every column that is not of the envelope."""
        return [name for name in self.events.columns if name not in ENVELOPE]
