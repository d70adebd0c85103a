"""What a format hands back: pieces, each the fields of some rows of one log source.

A format sees lines (`LINE_SCHEMA`) and never the envelope: it says which of its fields hold the time, the host and so
on (`EnvelopeNames`), and the envelope is built from them in one way for every format. A line that a format was
offered and cannot read is a reject with its reason, and goes on to the next format that may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from ingest.logsource import LogSource

LINE_SCHEMA: Final[dict[str, pl.DataType]] = {
    "row": pl.UInt32(),  # place of the line in the batch
    "payload": pl.String(),  # the line, or what follows its syslog header and tag
    "program": pl.String(),  # APP-NAME or TAG of the syslog header
    "pid": pl.String(),
    "structured_data": pl.String(),
}
"""What every format is given."""


@dataclass(frozen=True, slots=True)
class EnvelopeNames:
    """Which fields of a format fill the envelope; of several, the first that is not empty.

    Attributes:
        time: (field, whether it is UTC when it names no zone). A field may stand twice: zoned first, assumed later.
        host: Fields with the name of the host the event happened on.
        user: Fields with the account.
        source_ip: Fields with the address the action came from.
        destination_ip: Fields with the address it went to.
    """

    time: tuple[tuple[str, bool], ...] = ()
    host: tuple[str, ...] = ()
    user: tuple[str, ...] = ()
    source_ip: tuple[str, ...] = ()
    destination_ip: tuple[str, ...] = ()


def spellings_of(names: EnvelopeNames, others: Iterable[str] = ()) -> dict[str, str]:
    """Name in lower case -> the spelling that `names` and `others` know it by, for `shapes.frames_of`."""
    times = (name for name, _ in names.time)
    known = (*times, *names.host, *names.user, *names.source_ip, *names.destination_ip, *others)
    return {name.lower(): name for name in known}


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one log source.

    Attributes:
        logsource: The most specific log source all rows share.
        dataset: The format that understood them, for `event.dataset`.
        rows: Their places in the batch (UInt32), in the order of `fields`.
        fields: String columns in Sigma's names. A column named like one of the envelope only feeds the envelope.
        names: Which fields fill the envelope.
    """

    logsource: LogSource
    dataset: str
    rows: pl.Series
    fields: pl.DataFrame
    names: EnvelopeNames


@dataclass(frozen=True, slots=True)
class Inner:
    """Lines within lines: JSON that declares a log source and carries the text of another line."""

    declared: LogSource
    rows: list[int]
    texts: list[str]


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a format made of the lines it was given: every row is in a piece, in `rejects` or in `inner`.

    Attributes:
        pieces: Rows it understood.
        rejects: Row -> why it could not be read.
        remarks: Row -> what was wrong with a line that was read all the same.
        inner: Lines that were carried within these, to be read in their turn.
    """

    pieces: list[Piece]
    rejects: Mapping[int, str] = field(default_factory=dict)
    remarks: Mapping[int, str] = field(default_factory=dict)
    inner: Sequence[Inner] = ()


@dataclass(frozen=True, slots=True)
class Format:
    """One format: how its lines are recognised, and what reads them.

    Attributes:
        name: As in docs/formats.md.
        recognise: Boolean expression over `LINE_SCHEMA`; null counts as no.
        parse: Reads the lines that were recognised; never raises, whatever they hold.
        hint: True wherever `recognise` is, and perhaps elsewhere, without a regular expression; None: no such thing.
    """

    name: str
    recognise: pl.Expr
    parse: Callable[[pl.DataFrame], Parsed]
    hint: pl.Expr | None = None

    def recognised(self, lines: pl.DataFrame) -> pl.Series:
        """Which lines are of this format.

        Polars keeps 32 compiled regular expressions a thread. There are more in a batch, so each would be compiled anew
        for every batch, at a millisecond or more; a hint spares it where no line could be of the format.
        """
        if self.hint is None:
            return _told(lines, self.recognise)
        likely = _told(lines, self.hint)
        if not likely.any() or likely.all():
            return _told(lines, self.recognise) if likely.any() else likely
        return likely.scatter(likely.arg_true(), _told(lines.filter(likely), self.recognise))


def _told(lines: pl.DataFrame, question: pl.Expr) -> pl.Series:
    return lines.select(question.fill_null(value=False).alias("is"))["is"]
