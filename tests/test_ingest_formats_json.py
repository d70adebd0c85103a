from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingest.formats.cut_json import close_cut_json
from ingest.formats.sigma_taxonomy import is_known
from ingest.logsource import UNKNOWN, LogSource
from ingest.parse import parse
from raw_lines import NOW, Row, batch


def one(line: bytes, mark: str | None = None) -> tuple[LogSource, Row]:
    raw = batch([line], [mark])
    frames = parse(raw)
    assert len(frames) == 1
    return frames[0].logsource, frames[0].events.row(0, named=True)


DECLARED: list[tuple[LogSource, bool]] = [
    (LogSource("windows"), True),
    (LogSource("windows", "process_creation"), True),
    (LogSource("windows", "process_creation", "sysmon"), True),
    (LogSource("windows", "authentication"), True),
    (LogSource("windows", "registry_event"), True),
    (LogSource("linux", None, "auditd"), True),
    (LogSource("cisco", None, "aaa"), True),
    (LogSource("zeek", None, "smb_files"), True),
    (LogSource("windows", "checkout"), False),
    (LogSource("windows", "process_creation", "aaa"), False),
    (LogSource("windows", "process_creation", "wmi"), False),
    (LogSource("cisco", "process_creation"), False),
    (LogSource("shop"), False),
]


@pytest.mark.parametrize(("declared", "known"), DECLARED, ids=str)
def test_only_log_sources_that_sigma_knows_are_declared(declared: LogSource, known: bool) -> None:
    event = {"product": declared.product, "category": declared.category, "service": declared.service, "a": 1}
    logsource, row = one(json.dumps(event).encode())
    if known:
        assert (logsource, row["event.dataset"], row["error.message"]) == (declared, "json.declared", None)
    else:
        assert (logsource, row["event.dataset"], row["product"]) == (UNKNOWN, "json", declared.product)
        assert row["error.message"] == f"declared log source {declared} is no log source of Sigma"


def test_every_log_source_that_sigmahq_uses_may_be_declared(shared_data: Path) -> None:
    unknown = set()
    for path in (shared_data / "sigmahq").glob("rules*/**/*.yml"):
        block = path.read_text(encoding="utf-8").partition("\nlogsource:\n")[2].partition("\ndetection:")[0]
        keys = dict(re.findall(r"^\s+(product|category|service): *'?([\w.-]+)", block, re.MULTILINE))
        named = LogSource(keys.get("product"), keys.get("category"), keys.get("service"))
        if named.product is not None and not is_known(named):
            unknown.add(str(named))
    assert unknown == set()


def test_deep_json_with_many_colons_comes_out_once() -> None:
    deep = b'{"a":' * 600 + b"1" + b"}" * 600
    logsource, row = one(deep)
    assert (logsource, row["event.dataset"]) == (UNKNOWN, "json")
    one(b'{"a":' + b"[" * 1000 + b'{"b":1,"c":{"d":2}}' + b"]" * 1000 + b"}")


def test_fields_beyond_the_limit_are_remarked() -> None:
    junk: dict[str, object] = {f"k{number}": 1 for number in range(998)}
    declared: dict[str, object] = {"product": "windows", "category": "process_creation"}
    logsource, row = one(json.dumps(declared | junk | {"Image": "a.exe"}).encode())
    assert logsource == LogSource("windows", "process_creation")
    assert row["error.message"] == "more than 1,000 fields: those beyond are in the raw line only"
    assert one(json.dumps(declared | junk).encode())[1]["error.message"] is None
    nested: dict[str, object] = {"x": {f"k{number}": {"y": 1} for number in range(1001)}}
    trail: dict[str, object] = {"eventSource": "iam", "eventName": "a", "awsRegion": "b"}
    assert "1,000 fields" in str(one(json.dumps(trail | nested).encode())[1]["error.message"])
    assert "1,000 fields" in str(one(json.dumps(nested).encode())[1]["error.message"])


def test_a_long_command_line_does_not_hide_its_event() -> None:
    event = {
        "EventID": 1, "Channel": "Microsoft-Windows-Sysmon/Operational", "Image": "C:\\a.exe",
        "CommandLine": "a.exe " + "\\" * 5000, "Message": "x" * 5000,
    }  # fmt: skip
    whole = json.dumps(event).encode()
    for end in (*range(200, 230), 8192, len(whole) - 1):
        logsource, row = one(whole[:end], "cut")
        assert logsource == LogSource("windows", "process_creation", "sysmon")
        assert row["Image"] == "C:\\a.exe"
        assert str(row["CommandLine"]).startswith("a.exe \\")
        assert row["error.message"] == "cut; cut JSON: read as far as it goes"


CUT: list[tuple[str, object]] = [
    ('{"a":"x\\u00', {"a": "x"}),
    ('{"a":"x\\\\u00', {"a": "x\\u00"}),
    ('{"a":"x\\', {"a": "x"}),
    ('{"a":"x\\"', {"a": 'x"'}),
    ('{"a":"', {"a": ""}),
    ('{"a":1,"b":46', {"a": 1}),
    ('{"a":1,"b":tru', {"a": 1}),
    ('{"a":1,"b', {"a": 1}),
    ('{"a":1,"b"', {"a": 1}),
    ('{"a":1,"b":', {"a": 1}),
    ('{"a":1,', {"a": 1}),
    ('{"a":[1,2,[3', {"a": [1, 2, []]}),
    ('{"a":["x","y', {"a": ["x", "y"]}),
    ('{"a":{"b":{},"c":{"d":"e', {"a": {"b": {}, "c": {"d": "e"}}}),
    ("{", {}),
    ("{}", None),
    ('{"a":1} x', None),
    ('{"a":[1}', None),
    ("", None),
    ("x", None),
]


@pytest.mark.parametrize(("text", "expected"), CUT)
def test_cut_json_is_closed(text: str, expected: object) -> None:
    closed = close_cut_json(text)
    assert (closed if closed is None else json.loads(closed)) == expected


def test_closing_cut_json_stays_cheap() -> None:
    for hostile in ('{"b":1,"a":[' + '"",' * 80_000, '{"b":1,"a":[' + "{}," * 80_000, '{"b":1,"a":"' + "\\" * 250_001):
        started = time.perf_counter()
        _, row = one(hostile.encode())
        assert time.perf_counter() - started < 0.5
        assert (row["b"], row["error.message"]) == ("1", "cut JSON: read as far as it goes")


def test_hostile_declarations_make_no_log_sources() -> None:
    lines = [json.dumps({"product": f"p{row}", "category": f"c{row}", "a": 1}).encode() for row in range(300)]
    raw = batch(lines)
    frames = parse(raw)
    assert sum(frame.events.height for frame in frames) == 300
    assert {frame.logsource for frame in frames} == {UNKNOWN}


def test_only_names_that_sigma_could_have_are_declared() -> None:
    assert one(b'{"product":"\\u001b[2J","a":1}')[0] == UNKNOWN
    assert one(b'{"service":"checkout","a":1}')[0] == UNKNOWN


@pytest.mark.parametrize("year", ["0000", "-0005", "+99999", "+262142", "-262143", "9999", "0001"])
@pytest.mark.parametrize(
    "line", ["<34>1 {}-01-01T00:00:00Z h p 1 - - hi", '{{"@timestamp":"{}-01-01T00:00:00Z","a":1}}']
)
def test_a_time_that_python_cannot_hold_is_replaced_and_remarked(year: str, line: str) -> None:
    _, row = one(line.format(year).encode())
    assert row["@timestamp"] == NOW
    remark = str(row["error.message"] or "received time used")
    assert "received time used" in remark or "not understood" in remark


OWN = datetime(2026, 2, 28, 10, tzinfo=UTC)
KEYS = (
    "@timestamp",
    "timestamp",
    "time",
    "UtcTime",
    "EventTime",
    "eventTime",
    "datetime",
    "date",
    "ts",
    "event_time",
    "Date",
)
VALUES = ("2026-02-28T10:00:00Z", "2026-02-28 11:00:00+01:00", "2026-02-28T10:00:00", 1772272800, "1772272800000")


@pytest.mark.parametrize("declared", [{}, {"product": "windows"}, {"product": "linux"}], ids=str)
@pytest.mark.parametrize("key", KEYS)
def test_the_time_is_found_under_the_usual_keys(key: str, declared: dict[str, str]) -> None:
    for value in VALUES:
        _, row = one(json.dumps({**declared, "a": 1, key: value}).encode())
        assert (row["@timestamp"], row["error.message"]) == (OWN, None), value


TIMES: list[tuple[dict[str, object], datetime, str | None]] = [
    ({"date": "2026-02-28T10:00:00Z", "@timestamp": "2026-02-28T09:00:00Z"}, OWN - timedelta(hours=1), None),
    ({"product": "windows", "time": "2026-02-28T09:00:00Z", "UtcTime": "2026-02-28 10:00:00.000"}, OWN, None),
    ({"time": "10:00:00", "ts": 1772272800.5}, OWN.replace(microsecond=500000), None),
    ({"time": "", "ts": "-", "date": "2026-02-28T10:00:00Z"}, OWN, None),
    ({"date": "2026-02-28", "time": "10:00:00"}, NOW, "event time not understood: 10:00:00"),
    ({"date": True, "ts": 12}, NOW, "event time not understood: true"),
]


@pytest.mark.parametrize(("event", "at", "remark"), TIMES, ids=str)
def test_of_several_times_the_first_that_is_one_counts(
    event: dict[str, object], at: datetime, remark: str | None
) -> None:
    _, row = one(json.dumps({"a": 1, **event}).encode())
    assert (row["@timestamp"], row["error.message"]) == (at, remark)
