"""From what a device wrote to what rules and the envelope read: Sigma's names beside the vendor's own.

A vendor's field keeps its name. Where Sigma has a name for the same thing (taxonomy: `firewall`, `proxy`, `webserver`,
`dns`, `antivirus`), the column stands in the frame a second time under that name, which copies nothing.

Firewalls disagree on the words for letting through. SigmaHQ's rules of category firewall therefore also ask for
`blocked`, which is worked out here from the action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import polars as pl

from ingest.formats.columns import MAX_FIELDS, plain_name
from ingest.formats.piece import EnvelopeNames, Piece
from ingest.formats.shapes import Shape, frames_of
from ingest.logsource import LogSource

TIME: Final = "@timestamp"
"""Column that only feeds the envelope: the time of the event, put together and in ISO 8601."""

MOST_DERIVED: Final = 32
"""Columns that a derivation may add: frames of a device are that much narrower than others before it."""

PASSED: Final = (
    *("accept", "accepted", "allow", "allowed", "pass", "passthrough", "permit", "permitted", "forward", "start"),
    *("alert", "continue", "monitored", "detected"),
    *("close", "client-rst", "server-rst", "timeout", "ip-conn", "dns", "built", "teardown"),  # let through, then ended
)
STOPPED: Final = (
    *(
        "block",
        "blocked",
        "deny",
        "denied",
        "drop",
        "dropped",
        "discard",
        "discarded",
        "reject",
        "rejected",
        "reset",
        "quarantine",
    ),
    *("reset-client", "reset-server", "reset-both", "drop-icmp", "drop-all", "block-url", "block-continue", "sinkhole"),
    *("clear_session", "clear-session", "drop_session", "pass_session_blocked", "block-override", "override-lockout"),
)
BLOCKED: Final[dict[str, str]] = {**dict.fromkeys(PASSED, "false"), **dict.fromkeys(STOPPED, "true")}
"""Action in lower case -> `blocked`; of another word it is not said."""

Copies = Mapping[str, Sequence[str]]
"""Name to be added -> the names it may be taken from, the first that says something."""


class Columns:
    """The columns of a frame by their names in lower case."""

    __slots__ = ("frame", "names")

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame
        self.names = {name.lower(): name for name in frame.columns}

    def first(self, *names: str) -> pl.Series | None:
        """Of each row the first of these fields that is not empty; None if the frame has none of them."""
        found: pl.Series | None = None
        for name in names:
            known = self.names.get(name.lower())
            if known is None:
                continue
            column = self.frame[known]
            silent = (column == "") | (column == "-")
            said = column.set(silent, None) if silent.any() else column
            found = said if found is None else found.zip_with(found.is_not_null(), said)
            if not found.null_count():
                break
        return found

    def with_more(self, more: Mapping[str, pl.Series | None]) -> pl.DataFrame:
        """The frame with the columns it does not have yet."""
        added = [column.alias(name) for name, column in more.items() if column is not None and self.lacks(name)]
        return self.frame.with_columns(added) if added else self.frame

    def lacks(self, name: str) -> bool:
        """Whether the frame has no such column."""
        return name.lower() not in self.names


def copied(columns: Columns, copies: Copies) -> dict[str, pl.Series | None]:
    """The columns that `copies` asks for."""
    return {name: columns.first(*sources) if columns.lacks(name) else None for name, sources in copies.items()}


def blocked(action: pl.Series | None) -> pl.Series | None:
    """`true`, `false` or null of each action."""
    if action is None:
        return None
    return action.str.to_lowercase().replace_strict(BLOCKED, default=None, return_dtype=pl.String)


Derive = Callable[[Columns], Mapping[str, pl.Series | None]]
"""What a format adds to a frame of its fields."""


def device_pieces(
    logsource: LogSource,
    dataset: str,
    shapes: Sequence[Shape],
    names: EnvelopeNames,
    derive: Derive,
    column_name: Callable[[str], str] = plain_name,
) -> list[Piece]:
    """Pieces of one log source, each within the limit of columns."""
    return [
        Piece(logsource, dataset, rows, with_derived(frame, derive), names)
        for rows, frame in frames_of(shapes, column_name, most=MAX_FIELDS - MOST_DERIVED)
    ]


def with_derived(frame: pl.DataFrame, derive: Derive) -> pl.DataFrame:
    """The frame and what its format adds to it, in the spelling of Sigma where the vendor's differs only by case."""
    columns = Columns(frame)
    more = derive(columns)
    spelled = {known: name for name in more if (known := columns.names.get(name.lower(), name)) != name}
    return columns.with_more(more).rename(spelled) if spelled else columns.with_more(more)
