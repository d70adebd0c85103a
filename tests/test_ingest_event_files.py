"""Event files: every kind is read, every damage is reported, every split of the bytes gives the same events."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.event_files import read_events
from ingest.event_source import ByteSource, ReadLimits, Rows, SourceBatch, SourceProblem
from ingest.event_text import read_text, text_kind, utf16
from ingest.evtx_file import CHUNK_BYTES, FILE_HEADER_BYTES, read_evtx
from ingest.json_values import Broken, JsonValues, Piece, Whole
from ingest.rawbatch import RAW_SCHEMA

NOW = datetime(2026, 8, 5, 12, tzinfo=UTC)
EVENTS = [{"EventID": 1, "Image": "C:\\é.exe"}, {"EventID": 2}, {"EventID": 3}]
NDJSON = b"".join(json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode() + b"\n" for event in EVENTS)


def read(*paths: Path, limits: ReadLimits | None = None) -> tuple[list[SourceBatch], list[SourceProblem]]:
    items = list(read_events(paths, now=NOW, limits=limits))
    return (
        [item for item in items if isinstance(item, SourceBatch)],
        [item for item in items if isinstance(item, SourceProblem)],
    )


def lines(batches: list[SourceBatch]) -> list[bytes]:
    return [line for batch in batches for line in batch.raw.get_column("line")]


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


PRETTY = "\n".join(json.dumps(event, indent=2, ensure_ascii=False) for event in EVENTS).encode()
READABLE = {
    "lines.json": NDJSON,
    "lines.jsonl": NDJSON.rstrip(b"\n"),
    "lines.ndjson": NDJSON.replace(b"\n", b"\r\n"),
    "blank.json": NDJSON.replace(b"\n", b"\n\n"),
    "pretty.json": PRETTY,
    "array.json": json.dumps(EVENTS).encode(),
    "pretty-array.json": json.dumps(EVENTS, indent=4).encode(),
    "array-of-lines.json": b"[\n" + NDJSON.rstrip().replace(b"\n", b",\n") + b"\n]\n",
    "cloudtrail.json": json.dumps({"Records": EVENTS}).encode(),
    "graph.json": json.dumps({"@odata.context": "x", "value": EVENTS}, indent=1).encode(),
    "elastic.json": json.dumps({"took": 1, "hits": {"hits": [{"_source": event} for event in EVENTS]}}).encode(),
    "sequence.json": b"".join(b"\x1e" + line + b"\n" for line in NDJSON.splitlines()),
    "utf8-mark.json": b"\xef\xbb\xbf" + NDJSON,
    "utf16.json": NDJSON.decode().encode("utf-16"),
    "utf16-be.json": b"\xfe\xff" + PRETTY.decode().encode("utf-16-be"),
    "utf16-no-mark.json": NDJSON.decode().encode("utf-16-le"),
    "events.log": NDJSON,
    "name-says-nothing": NDJSON,
    "lies.evtx.json": NDJSON,
    "lines.json.gz": gzip.compress(NDJSON),
    "lies.log": gzip.compress(PRETTY),
    "events.zip": zipped({"a/lines.json": NDJSON, "__MACOSX/a/._lines.json": b"\x00\x05\x16", "._x.json": b"\x00"}),
    "events.tar.gz": tarred({"./lines.json": NDJSON, "./._lines.json": b"\x00\x05"}),
    "events.tgz": tarred({"deep/er/lines.json": PRETTY}),
    "events.tar": tarred({"lines.json": NDJSON}, "w:"),
    "nested.zip": zipped({"inner.zip": zipped({"lines.json.gz": gzip.compress(NDJSON)})}),
}


@pytest.mark.parametrize("name", READABLE)
def test_every_kind_of_file_gives_the_same_events(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(READABLE[name])
    batches, problems = read(tmp_path / name)
    assert problems == []
    assert [json.loads(line) for line in lines(batches)] == EVENTS
    assert all(b"\n" not in line and b"\r" not in line for line in lines(batches))
    raw = pl.concat([batch.raw for batch in batches])
    assert raw.schema == {**RAW_SCHEMA, "event.id": pl.String()}
    assert raw.get_column("mark").null_count() == len(EVENTS)
    assert raw.get_column("received").to_list() == [NOW] * len(EVENTS)


@pytest.mark.parametrize("name", READABLE)
def test_a_folder_finds_what_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / name).write_bytes(READABLE[name])
    batches, problems = read(tmp_path)
    assert problems == []
    assert [json.loads(line) for line in lines(batches)] == EVENTS


@pytest.mark.parametrize(
    ("name", "content", "source"),
    [
        ("a.json", NDJSON, "a.json"),
        ("a.json.gz", gzip.compress(NDJSON), "a.json.gz"),
        ("a.zip", zipped({"b/c.json": NDJSON}), "a.zip!b/c.json"),
        ("a.tgz", tarred({"b.json": NDJSON}), "a.tgz!b.json"),
        ("a.zip", zipped({"b.zip": zipped({"c.json": NDJSON})}), "a.zip!b.zip!c.json"),
    ],
)
def test_sources_and_ids_name_archive_and_member(name: str, content: bytes, source: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    batches, _ = read(tmp_path / name)
    assert [batch.source for batch in batches] == [f"{tmp_path}/{source}"]
    assert batches[0].raw.get_column("event.id").to_list() == [f"{tmp_path}/{source}:{row}" for row in (1, 2, 3)]


def test_rows_of_lines_are_line_numbers(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_bytes(b"one\n\n\nfour\r\n\nsix")
    batches, _ = read(tmp_path / "x.log")
    ids = [item for batch in batches for item in batch.raw.get_column("event.id")]
    assert [item.rsplit(":", 1)[1] for item in ids] == ["1", "4", "6"]
    assert lines(batches) == [b"one", b"four", b"six"]


def test_a_table_gives_an_object_a_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b'\xef\xbb\xbfname;"note";n\r\nfoo;"a ""b""\nc";\r\nb\xe9r;x;1;2;3\r\n')
    batches, problems = read(tmp_path / "t.csv")
    assert problems == []
    assert lines(batches) == [
        b'{"name":"foo","note":"a \\"b\\"\\nc"}',
        b'{"name":"b\xe9r","note":"x","n":"1","_surplus":["2","3"]}',
    ]


def test_parquet_of_other_tools_gives_an_object_a_row(tmp_path: Path) -> None:
    frame = pl.DataFrame({"EventID": [1, None], "at": [NOW, NOW], "blob": [b"\xff", b"x"], "deep": [{"a": 1}] * 2})
    frame.write_parquet(tmp_path / "x.parquet")
    batches, problems = read(tmp_path / "x.parquet")
    assert problems == []
    assert [json.loads(line) for line in lines(batches)] == [
        {"EventID": 1, "at": "2026-08-05T12:00:00+00:00", "blob": "\\xff", "deep": {"a": 1}},
        {"at": "2026-08-05T12:00:00+00:00", "blob": "x", "deep": {"a": 1}},
    ]


def test_parquet_of_the_lake_gives_its_lines_under_their_ids(tmp_path: Path) -> None:
    then = datetime(2026, 1, 2, tzinfo=UTC)
    pl.DataFrame(
        {"event.id": ["tocsin.raw:0:7:0"], "event.original": ["<34>x"], "event.created": [then], "host.name": ["h"]}
    ).write_parquet(tmp_path / "x.parquet")
    (batch,), problems = read(tmp_path / "x.parquet")
    assert problems == []
    assert batch.raw.to_dicts() == [
        {"line": b"<34>x", "received": then, "mark": None, "tenant": None, "peer": None, "event.id": "tocsin.raw:0:7:0"}
    ]
    assert batch.raw.schema == {**RAW_SCHEMA, "event.id": pl.String()}


def test_parquet_rows_without_a_raw_line_are_not_lost(tmp_path: Path) -> None:
    frame = pl.DataFrame({"event.id": ["a", "b"], "event.original": ["<34>x", None], "EventID": ["1", "2"]})
    frame.write_parquet(tmp_path / "x.parquet")
    batches, problems = read(tmp_path / "x.parquet")
    assert problems == []
    assert [json.loads(line)["EventID"] for line in lines(batches)] == ["1", "2"]


UNSPEAKABLE: dict[str, tuple[pa.Array[pa.Scalar[pa.DataType]], object]] = {
    # what Python's datetime or UTF-8 cannot hold: column, and the value that comes out (None: any)
    "nanoseconds": (pa.array([1_785_931_200_123_456_789], pa.timestamp("ns")), "2026-08-05T12:00:00.123456"),
    "zoned nanoseconds": (pa.array([1], pa.timestamp("ns", "Nowhere/Known")), "1970-01-01T00:00:00+00:00"),
    "nanoseconds of a day": (pa.array([3_600_000_000_001], pa.time64("ns")), "01:00:00"),
    "a duration": (pa.array([1_000_000_001], pa.duration("ns")), "0:00:01"),
    "a far time": (pa.array([2**61], pa.timestamp("us")), "<value out of range: 2305843009213693952>"),
    "a far zoned time": (pa.array([400_000_000_000], pa.timestamp("s", "Europe/Paris")), None),
    "a far date": (pa.array([2**30], pa.date32()), "<value out of range: 1073741824>"),
    "deep": (pa.array([{"x": [1_001]}], pa.struct([("x", pa.list_(pa.timestamp("ns")))])), None),
    "a map": (pa.array([[("a", 1_001)]], pa.map_(pa.string(), pa.timestamp("ns"))), None),
    "a dictionary": (pa.array([1_001], pa.timestamp("ns")).dictionary_encode(), "1970-01-01T00:00:00.000001"),
    "not UTF-8": (
        pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(bytes(4) + b"\2\0\0\0"), pa.py_buffer(b"\xffa")]),
        "\\xffa",
    ),
}


@pytest.mark.parametrize("name", UNSPEAKABLE)
def test_parquet_values_that_python_cannot_hold_are_read(name: str, tmp_path: Path) -> None:
    column, expected = UNSPEAKABLE[name]
    pq.write_table(pa.table({"EventID": [1], "value": column}), tmp_path / "x.parquet")
    batches, problems = read(tmp_path / "x.parquet")
    assert problems == []
    (record,) = [json.loads(line) for line in lines(batches)]
    assert record["EventID"] == 1
    assert record["value"] == expected if expected is not None else record["value"]


@pytest.mark.parametrize("created", [[1.5], ["yesterday"], [True], [{"a": 1}]])
def test_parquet_with_the_lakes_names_and_other_types_is_read(created: list[object], tmp_path: Path) -> None:
    frame = pl.DataFrame({"event.id": ["1"], "event.original": ["<34>x"], "event.created": created})
    frame.write_parquet(tmp_path / "x.parquet")
    batches, problems = read(tmp_path / "x.parquet")
    assert problems == []
    assert b"<34>x" in lines(batches)[0]
    frame = pl.DataFrame({"event.id": [1], "event.original": [[1]], "event.created": created})
    frame.write_parquet(tmp_path / "x.parquet")
    batches, problems = read(tmp_path / "x.parquet")
    assert (len(lines(batches)), problems) == (1, [])


def test_an_integer_too_long_for_python_stays_as_its_digits(tmp_path: Path) -> None:
    digits = "9" * 5_000
    (tmp_path / "x.json").write_text('[{"EventID": 1, "n": [' + digits + ']},\n{"EventID": 2}]')
    batches, problems = read(tmp_path / "x.json")
    assert problems == []
    assert [json.loads(line) for line in lines(batches)] == [{"EventID": "1", "n": [digits]}, {"EventID": 2}]


def test_a_table_whose_header_is_too_long_is_reported(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a" * 140_000 + ",b\n1,2\n")
    batches, (problem,) = read(tmp_path / "x.csv")
    assert batches == []
    assert (problem.kind, problem.reason[:21]) == ("unreadable", "broken table: header:")


DAMAGED: dict[str, tuple[bytes, list[bytes], str]] = {
    # name: content, lines that are read all the same, what is said of the rest
    "cut.json.gz": (gzip.compress(NDJSON * 50)[:-30], [], "end-of-stream marker"),
    "not.zip": (b"PK\x03\x04 but no directory", [], "not a readable zip file"),
    "bytes.bin": (b"\x7fELF\x00\x01\x02\x00", [], "neither text nor"),
    "x.7z": (b"7z\xbc\xaf\x27\x1crest", [], "7-Zip"),
    "x.evtx": (b"nothing of the kind", [], "not an event log"),
    "empty.evtx": (b"", [], "not an event log"),
    "cut.evtx": (b"ElfFile\x00cut", [], "cut in the file header"),
    "cut.tar.gz": (
        tarred({"a.json": NDJSON, "b.json": NDJSON * 99}, "w:")[:2048],
        NDJSON.splitlines(),
        "unexpected end",
    ),
    "x.parquet": (b"PAR1 is not enough", [], "broken Parquet"),
    "deep.zip": (
        zipped({"a.zip": zipped({"a.zip": zipped({"a.zip": zipped({"a.zip": zipped({"x.json": NDJSON})})})})}),
        [],
        "nested more than 4 deep",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_reported_and_the_rest_is_read(name: str, tmp_path: Path) -> None:
    content, readable, reason = DAMAGED[name]
    (tmp_path / name).write_bytes(content)
    batches, problems = read(tmp_path / name)
    assert lines(batches)[: len(readable)] == readable
    assert any(reason in problem.reason for problem in problems), problems
    assert all(problem.kind in ("damaged", "unreadable") for problem in problems)
    assert str(problems[0]).startswith(str(tmp_path / name))


def test_lines_before_the_cut_of_a_gzip_are_read(tmp_path: Path) -> None:
    content = b"".join(b"%06d %s\n" % (row, os.urandom(60).hex().encode()) for row in range(2000))
    (tmp_path / "x.log.gz").write_bytes(gzip.compress(content)[:-5000])
    batches, problems = read(tmp_path / "x.log.gz")
    whole, last = lines(batches)[:-1], lines(batches)[-1]
    assert len(whole) > 1000
    assert whole == content.splitlines()[: len(whole)]
    assert content.splitlines()[len(whole)].startswith(last)
    assert "damaged" in str(batches[-1].raw.get_column("mark")[-1])
    assert [problem.kind for problem in problems] == ["damaged"]


def test_an_encrypted_member_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    content = bytearray(zipped({"secret.json": NDJSON, "plain.json": NDJSON}))
    central = content.index(b"PK\x01\x02")
    content[6] |= 1  # general purpose bit 0, local header
    content[central + 8] |= 1  # and in the central directory
    (tmp_path / "x.zip").write_bytes(content)
    batches, problems = read(tmp_path / "x.zip")
    assert [batch.source for batch in batches] == [f"{tmp_path}/x.zip!plain.json"]
    assert [(problem.source, problem.kind) for problem in problems] == [(f"{tmp_path}/x.zip!secret.json", "unreadable")]
    assert "encrypted" in problems[0].reason


def test_a_broken_member_ends_itself_only(tmp_path: Path) -> None:
    content = bytearray(zipped({"broken.json": os.urandom(3000).hex().encode(), "whole.json": NDJSON}))
    content[500:520] = bytes(20)
    (tmp_path / "x.zip").write_bytes(content)
    batches, problems = read(tmp_path / "x.zip")
    assert lines([batch for batch in batches if batch.source.endswith("whole.json")]) == NDJSON.splitlines()
    assert [problem.source for problem in problems] == [f"{tmp_path}/x.zip!broken.json"]


@pytest.mark.parametrize(
    "pack", [gzip.compress, lambda data: zipped({"x.log": data}), lambda data: tarred({"x.log": data})]
)
def test_a_bomb_is_read_up_to_the_limit(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (tmp_path / "bomb").write_bytes(pack((b"x" * 99 + b"\n") * 500_000))
    batches, problems = read(tmp_path / "bomb", limits=ReadLimits(decompressed_bytes=1_000_000, line_bytes=10_000))
    assert any("larger than 1,000,000 bytes" in problem.reason for problem in problems), problems
    assert sum(map(len, lines(batches))) <= 1_000_000


def test_a_line_beyond_the_limit_is_cut_marked_and_reported(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_bytes(b"short\n" + b"y" * 5000 + b"\nshort again\n")
    batches, problems = read(tmp_path / "x.log", limits=ReadLimits(line_bytes=100))
    assert lines(batches) == [b"short", b"y" * 100, b"short again"]
    assert [mark is None for batch in batches for mark in batch.raw.get_column("mark")] == [True, False, True]
    assert [(problem.place, problem.kind) for problem in problems] == [("line 2", "damaged")]


def test_a_folder_leaves_alone_what_is_no_event_file(tmp_path: Path) -> None:
    for name, content in {
        "info.yml": b"id: 1\n",
        "README.md": b"# hello\n",
        "photo": b"\x89PNG\x00",
        "b.json": NDJSON,
        "a.json": NDJSON,
        "auth.log.1": b"line\n",
        "messages-20260801": b"line\n",
        "events.jsoncls": PRETTY,
    }.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe.log")
    (tmp_path / "dangling.json").symlink_to(tmp_path / "nowhere")
    batches, problems = read(tmp_path, tmp_path / "a.json")
    names = [Path(batch.source).name for batch in batches]
    assert names == ["a.json", "auth.log.1", "b.json", "events.jsoncls", "messages-20260801"]
    assert [(Path(problem.source).name, problem.kind) for problem in problems] == [
        ("README.md", "skipped"),
        ("info.yml", "skipped"),
        ("photo", "skipped"),
    ]


def test_a_name_that_is_not_utf8_is_shown_escaped(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.json")
    path.write_bytes(NDJSON)
    batches, problems = read(path)
    assert problems == []
    assert batches[0].source == f"{tmp_path}/caf\\xe9.json"
    assert lines(batches) == NDJSON.splitlines()


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    batches, problems = read(tmp_path / "nowhere.json")
    assert (batches, [problem.kind for problem in problems]) == ([], ["unreadable"])


BROKEN = [
    # text, values, broken pieces
    ('{"a":1}{"b":2}', [{"a": 1}, {"b": 2}], []),
    ('[{"a":1},{"b":', [{"a": 1}], ['{"b":']),
    ('{"a":1}\n{"b": nonsense}\n{"c":3}', [{"a": 1}, {"c": 3}], ['{"b": nonsense}']),
    (
        '[\n  {\n    "a": 1\n  },\n  {\n    "b" 2\n  },\n  {\n    "c": 3\n  }\n]',
        [{"a": 1}, {"c": 3}],
        ['{\n    "b" 2\n  },'],
    ),
    ('{"a":"line\nbreak"}', [{"a": "line\nbreak"}], []),
    ("[" * 100_000, [], ["[" * 99_999]),
    ("12 34", [12, 34], []),
    ('{"big":123456789012345678901234567890}', [{"big": 123456789012345678901234567890}], []),
    ("", [], []),
]


def pieces(text: str, cuts: list[int], limit: int = 10_000) -> list[Piece]:
    values = JsonValues(limit)
    found: list[Piece] = []
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    for start, end in pairwise(edges):
        found.extend(values.feed(text[start:end]))
    return [*found, *values.end()]


@pytest.mark.parametrize(("text", "values", "broken"), BROKEN)
def test_json_values(text: str, values: list[object], broken: list[str]) -> None:
    found = pieces(text, [], limit=1_000_000)
    assert [piece.value for piece in found if isinstance(piece, Whole)] == values
    assert [piece.text for piece in found if isinstance(piece, Broken)] == broken


@given(st.text(alphabet='{}[],:"\\ \nabn12', max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_json_values_do_not_depend_on_the_cut(text: str, cuts: list[int]) -> None:
    assert pieces(text, cuts) == pieces(text, [])


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9)), max_size=5), st.data())
def test_json_values_find_every_object(objects: list[dict[str, object]], data: st.DataObject) -> None:
    indent = data.draw(st.sampled_from([None, 0, 2]))
    text = "\n".join(json.dumps(item, indent=indent) for item in objects)
    if data.draw(st.booleans()):
        text = json.dumps(objects, indent=indent)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=4))
    assert [piece.value for piece in pieces(text, cuts) if isinstance(piece, Whole)] == objects


class InPieces:
    """A stream that gives as many bytes at a time as it likes."""

    def __init__(self, content: bytes, sizes: list[int]) -> None:
        self._rest = content
        self._sizes = sizes

    def read(self, size: int, /) -> bytes:
        size = min(size, self._sizes.pop() if self._sizes else size)
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


def text_rows(content: bytes, sizes: list[int]) -> list[tuple[int, bytes, str | None]]:
    source = ByteSource("x", InPieces(content, sizes))
    kind = text_kind(source.head, ".json") or "lines"
    found: list[tuple[int, bytes, str | None]] = []
    for item in read_text(source, kind, ReadLimits(line_bytes=40)):
        if isinstance(item, Rows):
            found += [(item.first + at, line, item.marks.get(at)) for at, line in enumerate(item.lines)]
    return found


@given(
    st.binary(max_size=300) | st.text(alphabet='{}[],:"é\r\n a1', max_size=200).map(str.encode),
    st.lists(st.integers(1, 50), max_size=20),
)
def test_any_bytes_are_read_the_same_however_they_come(content: bytes, sizes: list[int]) -> None:
    assert text_rows(content, sizes) == text_rows(content, [])


@given(st.binary(max_size=2000))
def test_no_line_is_lost(content: bytes) -> None:
    source = ByteSource("x", io.BytesIO(content))
    if utf16(source.head):
        return
    found = b"".join(
        line for item in read_text(source, "lines", ReadLimits()) if isinstance(item, Rows) for line in item.lines
    )
    expected = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\n", b"")
    assert found == expected


def evtx(content: bytes) -> tuple[list[bytes], list[SourceProblem]]:
    items = list(read_evtx(ByteSource("x.evtx", io.BytesIO(content))))
    rows = [line for item in items if isinstance(item, Rows) for line in item.lines]
    return rows, [item for item in items if isinstance(item, SourceProblem)]


@pytest.fixture(scope="module")
def event_log(shared_data: Path) -> bytes:
    """A real event log of more than one chunk."""
    files = sorted((shared_data / "evtx-attack-samples").rglob("*.evtx"))
    return next(data for file in files if len(data := file.read_bytes()) > FILE_HEADER_BYTES + 2 * CHUNK_BYTES)


def test_event_logs_give_every_record_as_json(event_log: bytes) -> None:
    rows, problems = evtx(event_log)
    assert problems == []
    assert len(rows) > 10
    assert all(json.loads(row)["Event"]["System"]["EventRecordID"] for row in rows)


def test_an_event_log_without_its_header_is_read(event_log: bytes) -> None:
    rows, problems = evtx(bytes(FILE_HEADER_BYTES) + event_log[FILE_HEADER_BYTES:])
    assert rows == evtx(event_log)[0]
    assert [problem.kind for problem in problems] == ["damaged"]


def test_a_cut_event_log_is_read_up_to_the_cut(event_log: bytes) -> None:
    whole = evtx(event_log)[0]
    rows, problems = evtx(event_log[: FILE_HEADER_BYTES + CHUNK_BYTES + 9000])
    assert 0 < len(rows) < len(whole)
    assert rows == whole[: len(rows)]
    assert [problem.place for problem in problems] == ["chunk 2"]
    assert "cut after 9000 of 65536 bytes" in problems[0].reason


def test_a_broken_chunk_costs_itself_only(event_log: bytes) -> None:
    whole = evtx(event_log)[0]
    broken = bytearray(event_log)
    broken[FILE_HEADER_BYTES : FILE_HEADER_BYTES + 8] = b"WasChnk\x00"
    rows, problems = evtx(bytes(broken))
    assert rows == whole[-len(rows) :]
    assert [problem.place for problem in problems] == ["chunk 1"]


def test_a_broken_record_costs_itself_only(event_log: bytes) -> None:
    whole = evtx(event_log)[0]
    broken = bytearray(event_log)
    first = FILE_HEADER_BYTES + 512
    size = struct.unpack_from("<I", broken, first + 4)[0]
    broken[first + size + 24 : first + size + 40] = b"\xff" * 16  # the second record's content
    rows, problems = evtx(bytes(broken))
    assert rows == [whole[0], *whole[2:]]
    assert len(problems) == 1
    assert "1 of " in problems[0].reason


@given(st.data())
def test_no_damage_to_an_event_log_raises(event_log: bytes, data: st.DataObject) -> None:
    content = bytearray(event_log[: FILE_HEADER_BYTES + CHUNK_BYTES])
    for _ in range(data.draw(st.integers(1, 10))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    rows, _ = evtx(bytes(content[: data.draw(st.integers(0, len(content)))]))
    assert all(json.loads(row) for row in rows)


def test_every_real_event_log_is_read_whole(shared_data: Path) -> None:
    batches, problems = read(shared_data / "evtx-attack-samples")
    assert [problem for problem in problems if problem.kind != "skipped"] == []
    assert sum(batch.raw.height for batch in batches) > 3000


def test_every_real_archive_is_read_whole(shared_data: Path) -> None:
    batches, problems = read(*sorted((shared_data / "otrf").rglob("*.*")))
    assert problems == []
    assert len({batch.source for batch in batches}) >= 64
    assert sum(batch.raw.height for batch in batches) > 300_000
    assert all("__MACOSX" not in batch.source for batch in batches)


def test_a_folder_that_cannot_be_listed_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.log").write_text("one\n")
    listing = os.scandir

    def scandir(path: str) -> object:  # root may list any folder, so permissions would show nothing here
        if Path(path) == tmp_path / "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr("os.scandir", scandir)
    batches, problems = read(tmp_path)
    assert lines(batches) == [b"one"]
    assert [(problem.source, problem.reason, problem.kind) for problem in problems] == [
        (str(tmp_path / "closed"), "Permission denied", "unreadable")
    ]
