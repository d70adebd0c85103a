"""Raw batches for the tests of parsing: what `collect` would have put on the bus."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
from hypothesis import strategies as st

from ingest.envelope import EVENT_ID
from ingest.logsource import LogSource
from ingest.parse import parse
from ingest.rawbatch import RAW_SCHEMA

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
Row = dict[str, object]


def batch(
    lines: list[bytes],
    marks: list[str | None] | None = None,
    first: int = 0,
    tenant: str = "chu-a",
    received: datetime = NOW,
) -> pl.DataFrame:
    size = len(lines)
    return pl.DataFrame(
        {
            "line": lines,
            "received": [received] * size,
            "mark": marks or [None] * size,
            "tenant": [tenant] * size,
            "peer": ["192.0.2.1"] * size,
        },
        schema=RAW_SCHEMA,
    ).with_columns(pl.Series(EVENT_ID, [f"t:0:0:{first + row}" for row in range(size)], dtype=pl.String))


def read(line: bytes, received: datetime = NOW) -> tuple[LogSource, Row]:
    """The log source of one line, and what its event says (nulls left out)."""
    (frame,) = parse(batch([line], received=received))
    row = frame.events.row(0, named=True)
    return frame.logsource, {name: value for name, value in row.items() if value is not None}


SEEDS = [
    b'{"EventID":1,"Channel":"Security","EventTime":"2026-01-01 00:00:00","Keywords":-5,"Data":[1]}',
    b'{"winlog":{"event_data":{"a":1},"channel":"System","event_id":[]},"event":3}',
    b'{"Event":{"System":{"EventID":{"#text":1}},"EventData":{"Data":[{"@Name":"a","#text":"b"},"c",null]}}}',
    b'<34>1 2026-01-01T00:00:00Z h sshd 1 - [a b="c"] Failed password for x from 1.2.3.4 port 5',
    b"<13>Feb 30 10:00:00 h sudo: a : TTY=1 ; COMMAND=x",
    b"type=EXECVE msg=audit(1.2:3): a0=2F",
    b"<Event xmlns='x'><System><EventID>1</EventID></System><EventData><Data Name='a'>b</Data></EventData></Event>",
    b'{"message":"<13>x","product":"windows"}',
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A real line with bytes put in, taken out, or cut off."""
    line = draw(st.sampled_from(SEEDS))
    start = draw(st.integers(0, len(line)))
    stop = draw(st.integers(start, min(len(line), start + 8)))
    return line[:start] + draw(st.binary(max_size=6)) + line[stop:]
