from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.envelope import ENVELOPE, EVENT_ID, ORIGINAL, EventFrame
from ingest.formats.columns import MAX_FIELDS
from ingest.formats.table import FORMATS
from ingest.formats.windows_logsource import CATEGORIES, CHANNEL_SERVICES, REFINED_CATEGORIES
from ingest.logsource import UNKNOWN, LogSource
from ingest.parse import parse
from raw_lines import NOW, SEEDS, Row, batch, damaged


def check_frames(raw: pl.DataFrame, frames: list[EventFrame]) -> None:
    """What holds whatever the input."""
    ids = [event_id for frame in frames for event_id in frame.events[EVENT_ID]]
    assert Counter(ids) == Counter(raw[EVENT_ID])
    for frame in frames:
        schema = dict(frame.events.schema)
        assert list(schema)[: len(ENVELOPE)] == list(ENVELOPE)
        assert {name: schema[name] for name in ENVELOPE} == ENVELOPE
        assert {schema[name] for name in frame.fields} <= {pl.String()}
        assert len({name.lower() for name in schema}) == len(schema)
        assert frame.events["@timestamp"].null_count() == 0
        assert frame.events[ORIGINAL].null_count() == 0


def one(line: bytes, mark: str | None = None) -> tuple[LogSource, Row]:
    raw = batch([line], [mark])
    frames = parse(raw)
    check_frames(raw, frames)
    assert len(frames) == 1
    return frames[0].logsource, frames[0].events.row(0, named=True)


def test_an_empty_batch_gives_no_frame() -> None:
    assert parse(batch([])) == []


def test_the_envelope_carries_what_the_channel_knows() -> None:
    _, row = one(b"<13>Mar  1 11:00:00 web01 app: hi", mark="cut at 64 KiB")
    assert row["organization.id"] == "chu-a"
    assert row["log.source.address"] == "192.0.2.1"
    assert row["event.created"] == NOW
    assert row["error.message"] == "cut at 64 KiB"
    assert row["event.original"] == "<13>Mar  1 11:00:00 web01 app: hi"


def test_a_sender_cannot_write_the_envelope() -> None:
    forged = {
        "event.id": "x", "organization": {"id": "other"}, "Event.Created": "y", "log.source.address": "z",
        "error.message": "w", "event": {"original": "v", "dataset": "u"}, "host.name": "h", "message": "m",
    }  # fmt: skip
    _, row = one(json.dumps(forged).encode())
    assert row["event.id"] == "t:0:0:0"
    assert row["organization.id"] == "chu-a"
    assert row["event.dataset"] == "json"
    assert row["error.message"] is None
    assert row["host.name"] == "h"
    assert row["payload.organization.id"] == "other"
    assert row["payload.event.original"] == "v"


BAD_LINES: list[tuple[bytes, str]] = [
    (b"", "no format understood this line"),
    (b"nothing like a log", "no format understood this line"),
    (b'{"EventID": 46', "broken JSON: "),
    (b'{"EventID": 1}, {"Chan', "broken JSON: "),
    (b'{"a": 1, "b": "x"y", "c": [1, ', "broken JSON: "),
    (b'{"a":[' + b"[" * 150 + b"1", "broken JSON: "),
    (b'{"EventID": 1} trailing', "broken JSON: "),
    (b"[1, 2]", "no format understood this line"),
    (b'[{"EventID": 1, "Channel": "Security"}]', "a JSON array, not an object"),
    (b'[{"EventID": 1, "Chan', "a JSON array, not an object"),
    (b"{" * 5000, "broken JSON: "),
    (b'{"a":' * 2000 + b"1" + b"}" * 2000, "broken JSON: "),
    (b'{"a":' + b"[" * 1500 + b"]" * 1500 + b"}", "broken JSON: "),
    (b'{"a":' + b"9" * 5000 + b"}", "broken JSON: "),
    (b"caf\xe9", "not UTF-8: read as ISO-8859-1"),
    (b"<Event><System>", "broken XML: "),
    (b"<Event>" + b"<a>" * 50_000, "broken XML: "),
    (b"<Events/>", "no format understood"),
    (b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><Event>&b;</Event>', "refused"),
    (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><Event>&a;</Event>', "refused"),
    (b'<?xml-x <Event ?><!DOCTYPE Event [<!ENTITY a "aaaa">]><Event>&a;</Event>', "refused"),
    (b"<Event>&xxe;</Event>", "broken XML: undefined entity"),
    (b"\0\0\0", "no format understood this line"),
    (b"x" * 1_000_000, "no format understood this line"),
]


@pytest.mark.parametrize(("line", "remark"), BAD_LINES, ids=lambda value: repr(value)[:40])
def test_a_line_that_cannot_be_read_is_kept_whole_and_marked(line: bytes, remark: str) -> None:
    logsource, row = one(line)
    assert logsource == UNKNOWN
    assert row["event.dataset"] == "unknown"
    assert remark in str(row["error.message"])
    assert row["@timestamp"] == NOW
    expected = line.decode() if b"\xe9" not in line else line.decode("iso-8859-1")
    assert row["event.original"] == expected


def test_broken_json_behind_a_syslog_header_keeps_what_the_header_says() -> None:
    logsource, row = one(b'<13>Mar  1 11:00:00 web01 agent[7]: {"a": ')
    assert logsource == LogSource("linux", None, "syslog")
    assert (row["host.name"], row["process.name"], row["message"]) == ("web01", "agent", '{"a": ')
    assert str(row["error.message"]).startswith("broken JSON: ")


REPAIRED: list[tuple[bytes, str, str]] = [
    (rb'{"a":"x\ud800y"}', "x\ufffdy", "not valid JSON, read all the same: "),
    (rb'{"a":"x\\ud800y"}', r"x\ud800y", ""),
    (rb'{"a":"\ud83d\ude00"}', "\U0001f600", ""),
    (b'{"a":"x\x01y"}', "x\x01y", "not valid JSON"),
    (b'{"a":NaN}', "nan", "not valid JSON"),
    (b'{"a":1e999}', "inf", "not valid JSON"),
    (b'{"a":123456789012345678901234567890}', "1.2345678901234568e+29", ""),
    (b'{"a":1,"a":2}', "2", "key 'a' occurs twice"),
    (b'{"a":1,"b":{"c":"\\"a\\":"}}', "1", ""),
    (b'{"A":null,"a":"second"}', "second", ""),
    (b'{"a":"first","A":"second"}', "first", ""),
    (b'\xef\xbb\xbf{"a":true}', "true", ""),
    (b'{"a":-18446744073709551615}', "-1.8446744073709552e+19", ""),
    (b'{"a":[1,{"b":null}]}', '[1,{"b":null}]', ""),
    (b'{"a":0.5}', "0.5", ""),
    (b'{"a":4688.0}', "4688", ""),
    (b'{"a":-0.0}', "-0", ""),
    (b'{"a":1e22}', "1e+22", ""),
    ('{"a":"caf\xe9"}'.encode("latin-1"), "caf\xe9", "not UTF-8"),
]


@pytest.mark.parametrize(("line", "value", "remark"), REPAIRED)
def test_json_values_become_text(line: bytes, value: str, remark: str) -> None:
    logsource, row = one(line)
    assert (logsource, row["event.dataset"]) == (UNKNOWN, "json")
    found = {name.lower(): field for name, field in row.items()}
    assert found["a"] == value
    if remark:
        assert str(row["error.message"]).startswith(remark)
    else:
        assert row["error.message"] is None


def test_nested_json_is_flattened_with_dots_and_names_are_made_printable() -> None:
    _, row = one(b'{"a":{"b":{"c":1}},"\\u0000\\n":2,"":3}')
    assert (row["a.b.c"], row["__"], row["_"]) == ("1", "2", "3")


def test_hostile_names_do_not_widen_a_frame() -> None:
    lines = [json.dumps({f"k{row}_{number}": 1 for number in range(300)}).encode() for row in range(20)]
    raw = batch([*lines, json.dumps({f"w{number}": 1 for number in range(5000)}).encode()])
    frames = parse(raw)
    check_frames(raw, frames)
    assert max(len(frame.fields) for frame in frames) <= MAX_FIELDS


TIMES: list[tuple[object, datetime | None]] = [
    ("2026-02-28T10:00:00Z", datetime(2026, 2, 28, 10, tzinfo=UTC)),
    ("2026-02-28T10:00:00.1234567Z", datetime(2026, 2, 28, 10, 0, 0, 123456, tzinfo=UTC)),
    ("2026-02-28 10:00:00.123", datetime(2026, 2, 28, 10, 0, 0, 123000, tzinfo=UTC)),
    ("2026-02-28T10:00:00+02:00", datetime(2026, 2, 28, 8, tzinfo=UTC)),
    ("2026-02-28T10:00:00-0530", datetime(2026, 2, 28, 15, 30, tzinfo=UTC)),
    (1772272800, datetime(2026, 2, 28, 10, tzinfo=UTC)),
    (1772272800123, datetime(2026, 2, 28, 10, 0, 0, 123000, tzinfo=UTC)),
    (1772272800123456, datetime(2026, 2, 28, 10, 0, 0, 123456, tzinfo=UTC)),
    ("1772272800123456789", datetime(2026, 2, 28, 10, 0, 0, 123456, tzinfo=UTC)),
    ("1772272800.5", datetime(2026, 2, 28, 10, 0, 0, 500000, tzinfo=UTC)),
    ("2026-02-28 10:00:00,123", datetime(2026, 2, 28, 10, 0, 0, 123000, tzinfo=UTC)),
    ("2026-02-28T10:00:00,123+02:00", datetime(2026, 2, 28, 8, 0, 0, 123000, tzinfo=UTC)),
    ("/Date(1772272800123)/", datetime(2026, 2, 28, 10, 0, 0, 123000, tzinfo=UTC)),
    ("Sat Feb 28 10:00:00 2026", datetime(2026, 2, 28, 10, tzinfo=UTC)),
    ("2026/02/28 10:00:00", datetime(2026, 2, 28, 10, tzinfo=UTC)),
    ("2026-03-03T11:59:59Z", datetime(2026, 3, 3, 11, 59, 59, tzinfo=UTC)),
    ("2026-03-03T12:00:01Z", None),
    ("1601-01-01T00:00:00Z", None),
    ("1989-12-31T23:59:59Z", None),
    ("2262-04-11T23:47:16Z", None),
    ("9999-12-31T23:59:59Z", None),
    ("2026-02-30T10:00:00Z", None),
    ("yesterday", None),
    ("\x1b[2J" * 100, None),
    (10**14, None),
]


@pytest.mark.parametrize(("text", "expected"), TIMES)
def test_event_times(text: object, expected: datetime | None) -> None:
    _, row = one(json.dumps({"@timestamp": text, "a": 1}).encode())
    assert row["@timestamp"] == (expected or NOW)
    assert (row["error.message"] is None) == (expected is not None)
    remark = str(row["error.message"] or "")
    assert "\x1b" not in remark
    assert len(remark) < 400


def test_a_json_line_may_declare_its_log_source() -> None:
    logsource, row = one(
        b'{"EventID":1,"Image":"a.exe","Computer":"pc1","product":"windows","category":"process_creation"}'
    )
    assert logsource == LogSource("windows", "process_creation")
    assert (row["Image"], row["host.name"]) == ("a.exe", "pc1")
    assert "product" not in row


def test_a_channel_outweighs_a_declaration() -> None:
    logsource, _ = one(
        b'{"EventID":"11","Channel":"Microsoft-Windows-Sysmon/Operational","product":"linux","category":"x","service":"y"}'
    )
    assert logsource == LogSource("windows", "file_event", "sysmon")


def test_a_syslog_line_carried_as_message_is_read_within_the_declared_product() -> None:
    carried = b'{"message":"<189>Jan 18 11:29:03 sw03 %AAA-5-USER_LOGGED: User x","product":"cisco","service":"aaa"}'
    logsource, row = one(carried)
    assert logsource == LogSource("cisco", None, "aaa")
    assert row["@timestamp"] == datetime(2026, 1, 18, 11, 29, 3, tzinfo=UTC)
    assert row["host.name"] == "sw03"
    assert row["event.original"] == carried.decode()
    assert row["error.message"] is None


def test_a_carried_line_of_another_product_stays_within_the_declaration() -> None:
    logsource, row = one(b'{"message":"<13>Jan 18 11:29:03 pc1 app: hello","product":"windows"}')
    assert logsource == LogSource("windows")
    assert (row["message"], row["host.name"], row["error.message"]) == ("hello", "pc1", None)
    assert one(b'{"message":"{\\"message\\":\\"x\\",\\"product\\":\\"a\\"}","product":"windows"}')[0] == LogSource(
        "windows"
    )


def test_a_bare_and_a_headed_line_carried_by_one_batch() -> None:
    lines = [
        b'{"message":"<34>Oct 11 10:00:00 h sshd[1]: Failed password","product":"linux","service":"sshd"}',
        b'{"message":"{\\"EventID\\":1}","product":"windows"}',
    ]
    raw = batch(lines)
    frames = parse(raw)
    check_frames(raw, frames)
    assert {frame.logsource for frame in frames} == {LogSource("linux", None, "sshd"), LogSource("windows")}


def test_cloudtrail() -> None:
    record = {
        "eventTime": "2026-02-28T10:00:00Z", "eventSource": "iam.amazonaws.com", "eventName": "CreateUser",
        "awsRegion": "eu-west-3", "sourceIPAddress": "203.0.113.9",
        "userIdentity": {"type": "IAMUser", "userName": "bob"}, "requestParameters": {"userName": "eve"},
    }  # fmt: skip
    logsource, row = one(json.dumps(record).encode())
    assert logsource == LogSource("aws", None, "cloudtrail")
    assert (row["user.name"], row["source.ip"], row["requestParameters.userName"]) == ("bob", "203.0.113.9", "eve")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=60), damaged(), st.sampled_from(SEEDS)), min_size=1, max_size=12))
def test_every_line_comes_out_once_whatever_its_bytes(lines: list[bytes]) -> None:
    raw = batch(lines)
    check_frames(raw, parse(raw))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
windows_keys = st.sampled_from(
    ["EventID", "Channel", "SourceName", "winlog", "event_data", "event_id", "Event", "System", "EventData", "UserData",
     "Data", "@timestamp", "EventTime", "Keywords", "Level", "message", "product", "host.name", "TargetUserName",
     "ObjectName", "NewValue", "OperationType", "MandatoryLabel", "IpAddress", "#text", "#attributes"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.dictionaries(windows_keys, json_values, max_size=6), min_size=1, max_size=6))
def test_json_of_any_shape_comes_out_once(objects: list[dict[str, object]]) -> None:
    raw = batch([json.dumps(value).encode() for value in objects])
    check_frames(raw, parse(raw))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(SEEDS), min_size=2, max_size=8), st.integers(1, 7))
def test_how_lines_are_batched_does_not_change_what_is_read(lines: list[bytes], cut: int) -> None:
    def read(part: list[bytes]) -> Counter[str]:
        rows: Counter[str] = Counter()
        for frame in parse(batch(part)):
            for row in frame.events.rows(named=True):
                said = {name: value for name, value in row.items() if value is not None and name != EVENT_ID}
                rows[f"{frame.logsource} {sorted(said.items())}"] += 1
        return rows

    assert read(lines) == read(lines[:cut]) + read(lines[cut:])


ARCHIVES = [
    ("credential_access/host/covenant_dcsync_dcerpc_drsuapi_DsGetNCChanges.zip", "WORKSTATION5.theshire.local"),
    ("defense_evasion/host/wmic_remote_xsl_jscript.zip", "WORKSTATION5"),
    ("credential_access/host/cmd_lsass_memory_dumpert_syscalls.zip", "WORKSTATION5"),
]


@pytest.mark.parametrize(("name", "host"), ARCHIVES)
def test_real_archives_are_understood_whole(
    name: str, host: str, shared_data: Path, require: Callable[[bool, str], None]
) -> None:
    path = shared_data / "otrf" / "atomic" / "windows" / name
    require(path.is_file(), f"{path} is missing")
    with zipfile.ZipFile(path) as archive:
        member = next(entry for entry in archive.namelist() if entry.endswith(".json") and "__MACOSX" not in entry)
        lines = io.BytesIO(archive.read(member)).read().splitlines()
    expected = Counter(str(json.loads(line)["EventID"]) for line in lines)
    raw = batch(lines)
    frames = parse(raw)
    check_frames(raw, frames)
    assert not any(frame.logsource.unknown for frame in frames)
    read = Counter(event_id for frame in frames for event_id in frame.events["EventID"])
    assert read == expected
    by_category = Counter(
        {category: sum(frame.events.height for frame in frames if frame.logsource.category == category)
         for category in ("process_access", "image_load")}
    )  # fmt: skip
    sysmon = Counter(str(json.loads(line)["EventID"]) for line in lines if b"Sysmon/Operational" in line)
    assert by_category == Counter({"process_access": sysmon["10"], "image_load": sysmon["7"]})
    assert host in {value for frame in frames for value in frame.events["host.name"]}
    remarks = {remark for frame in frames for remark in frame.events["error.message"].drop_nulls()}
    assert remarks == set()


def test_every_format_is_in_the_documentation() -> None:
    text = (Path(__file__).resolve().parent.parent / "docs" / "formats.md").read_text(encoding="utf-8")
    documented = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")} - {"event.dataset"}
    datasets = {"aws.cloudtrail", "json.declared", "unknown", "windows.evtx", "windows.json", "windows.nxlog"}
    datasets |= {"windows.winlogbeat", "windows.winlogbeat6", *(form.name for form in FORMATS)}
    datasets |= {"adapter.NAME", "fhir.auditevent", "fortigate.cef", "json.ecs", "json.ocsf", "zeek"}
    assert documented == datasets


def test_every_windows_log_source_that_sigmahq_uses_has_a_place(shared_data: Path) -> None:
    services = set(CHANNEL_SERVICES.values())
    categories = {*CATEGORIES.values(), *REFINED_CATEGORIES.values()}
    homeless = set()
    for path in (shared_data / "sigmahq").glob("rules*/windows/**/*.yml"):
        block = path.read_text(encoding="utf-8").partition("\nlogsource:\n")[2].partition("\ndetection:")[0]
        keys = dict(re.findall(r"^\s+(product|category|service): *'?([\w.-]+)", block, re.MULTILINE))
        if keys.get("service", "system") not in services or keys.get("category", "file_event") not in categories:
            homeless.add(path.name)
    assert homeless == set()
