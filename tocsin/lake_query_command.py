"""`tocsin lake query` and `tocsin lake tables`: what is in the lake.

Rows go out as they come, so a result may be larger than the memory. What is shown on a terminal is made visible: a log
line may hold what would move its cursor. Files and pipes get the values as they are, in formats that say where a value
ends.
"""

from __future__ import annotations

import csv
import io
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import click
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.visible import visible
from storage.errors import LakeError
from storage.lake_removal import LakeFile, files_of
from storage.lake_scan import Snapshot
from tocsin.lake_place import standing_lake
from tocsin.languages import gettext, number
from tocsin.settings_options import settings_from, settings_options
from tocsin.text_table import table_lines

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

FORMATS: Final = ("table", "csv", "json", "parquet")
TABLE_ROWS: Final = 100
"""Rows of a table on a terminal: its columns are as wide as their widest value, so it is held whole."""
WIDEST: Final = 200
"""Characters of a value in a table."""


@click.command()
@click.argument("sql")
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Most rows; a notice says if there are more. Of a table 100 unless said otherwise; else all.",
)
@settings_options
def query(
    sql: str, form: str, output: Path | None, limit: int | None, config: Path | None, flags: tuple[str, ...]
) -> None:
    """Ask the lake in SQL (DuckDB).

    Every log source is a table ("windows.process_creation._"), and `events` holds what all have in common. Ask for a
    time or a hospital, and only the files that have them are read:

    tocsin lake query 'SELECT "host.name", count(*) FROM events GROUP BY 1'
    """
    lake = standing_lake(settings_from(config, flags))
    if form == "parquet" and output is None and sys.stdout.isatty():
        raise click.UsageError(gettext("Parquet is not for a terminal: name a file with --output"))
    wanted = TABLE_ROWS if limit is None and form == "table" else limit
    with lake.stream(sql) as batches, _sink(output) as sink:
        rows = _Limited(batches, wanted)
        try:
            WRITERS[form](batches.schema, rows, sink)
            sink.flush()
        except BrokenPipeError:
            raise SystemExit(0) from None  # `| head` has had enough
    if rows.more:
        notice = gettext("Only the first {n} rows: --limit gives more, --format csv, json or parquet all")
        click.echo(notice.format(n=number(wanted or 0)), err=True)


class _Limited:
    """Batches up to a number of rows; whether there were more is known at the end."""

    def __init__(self, batches: pa.RecordBatchReader, limit: int | None) -> None:
        self.more = False
        self._batches = batches
        self._limit = limit

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        left = self._limit
        for batch in self._batches:
            if left is None or batch.num_rows <= left:
                yield batch
            elif left:
                yield batch.slice(0, left)
            if left is not None:
                left -= batch.num_rows
                if left < 0:
                    self.more = True
                    return


@contextmanager
def _sink(output: Path | None) -> Iterator[BinaryIO]:
    if output is None:
        yield _Terminal(sys.stdout.buffer) if sys.stdout.isatty() else sys.stdout.buffer
        return
    try:
        file = output.open("wb")
    except OSError as error:
        raise LakeError(f"{output}: cannot be written: {error.strerror}") from error
    try:
        with file:
            yield file
    except BaseException:
        output.unlink(missing_ok=True)  # half a result looks like a whole one
        raise


class _Terminal(io.BytesIO):
    """A terminal: lines are shown with what could move its cursor made visible."""

    def __init__(self, terminal: BinaryIO) -> None:
        super().__init__()
        self._terminal = terminal

    def write(self, data: ReadableBuffer) -> int:
        text = bytes(data).decode("utf-8", "backslashreplace")
        return self._terminal.write(visible(text, keep="\n").encode())

    def writelines(self, lines: Iterable[ReadableBuffer]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._terminal.flush()


def _write_table(schema: pa.Schema, batches: Iterable[pa.RecordBatch], sink: BinaryIO) -> None:
    rows = [[_short(value) for value in row] for row in _rows(batches)]
    numbers = [at for at, column in enumerate(schema) if pa.types.is_integer(column.type)]
    lines = table_lines(schema.names, rows, numbers=numbers)
    sink.writelines(line.encode("utf-8", "backslashreplace") + b"\n" for line in lines)


def _write_csv(schema: pa.Schema, batches: Iterable[pa.RecordBatch], sink: BinaryIO) -> None:
    text = io.TextIOWrapper(sink, "utf-8", errors="backslashreplace", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(schema.names)
    for row in _rows(batches):
        writer.writerow(["" if value is None else _plain(value) for value in row])
    text.flush()
    text.detach()


def _write_json(schema: pa.Schema, batches: Iterable[pa.RecordBatch], sink: BinaryIO) -> None:
    for row in _rows(batches):
        found = dict(zip(schema.names, row, strict=True))
        sink.write(orjson.dumps(found, default=str, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS))


def _write_parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch], sink: BinaryIO) -> None:
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)


WRITERS: Final[dict[str, Callable[[pa.Schema, Iterable[pa.RecordBatch], BinaryIO], None]]] = {
    "table": _write_table,
    "csv": _write_csv,
    "json": _write_json,
    "parquet": _write_parquet,
}


def _rows(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[object, ...]]:
    for batch in batches:
        yield from zip(*(_values(column) for column in batch.columns), strict=True)


def _values(column: pa.Array[pa.Scalar[pa.DataType]]) -> list[object]:
    """The values for Python; times that it cannot hold (years beyond 9999) as their number."""
    try:
        return [value.as_py() for value in column]
    except (OverflowError, ValueError):
        return [value.as_py() for value in column.cast(pa.int64())]


def _short(value: object) -> str:
    text = "" if value is None else _plain(value)
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def _plain(value: object) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value)


@click.command()
@settings_options
def tables(config: Path | None, flags: tuple[str, ...]) -> None:
    """What the lake holds: for each table its events, files, days and hospitals."""
    lake = standing_lake(settings_from(config, flags))
    found = [(table, files_of(table.delta)) for table in lake.snapshots()]
    heads = [
        *(gettext("table"), gettext("events"), gettext("files"), gettext("bytes"), gettext("smallest")),
        *(gettext("largest"), gettext("days"), gettext("hospitals"), gettext("oldest"), gettext("newest")),
    ]
    rows = [_about(table, files) for table, files in found]
    for line in table_lines(heads, rows, numbers=range(1, 8)):
        click.echo(line)
    every = list(itertools.chain.from_iterable(files for _, files in found))
    summed = gettext("{tables} tables, {events} events, {files} files, {bytes} bytes").format(
        tables=number(len(found)),
        events=number(sum(file.rows for file in every)),
        files=number(len(every)),
        bytes=number(sum(file.bytes for file in every)),
    )
    click.echo(summed)


def _about(table: Snapshot, files: Sequence[LakeFile]) -> list[str]:
    sizes = [file.bytes for file in files]
    return [
        table.name,
        number(sum(file.rows for file in files)),
        number(len(files)),
        number(sum(sizes)),
        number(min(sizes, default=0)),
        number(max(sizes, default=0)),
        number(len({file.day for file in files})),
        number(len({file.tenant for file in files})),
        _moment(min((file.first for file in files if file.first is not None), default=None)),
        _moment(max((file.last for file in files if file.last is not None), default=None)),
    ]


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"
