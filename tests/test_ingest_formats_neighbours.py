from __future__ import annotations

import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_lines import ALL, Case
from ingest.envelope import EVENT_ID, EventFrame
from ingest.formats.device_table import DEVICES, PAIRS
from ingest.formats.piece import Format
from ingest.formats.table import FORMATS
from ingest.logsource import LogSource
from ingest.parse import decode_lines, parse, split_lines
from raw_lines import SEEDS, Row, batch, damaged


def said(frames: list[EventFrame]) -> dict[str, tuple[LogSource, Row]]:
    """Event id -> log source and what the event says; how a column is spelled may depend on the batch."""
    return {
        str(row[EVENT_ID]): (
            frame.logsource,
            {name.lower(): value for name, value in row.items() if value is not None},
        )
        for frame in frames
        for row in frame.events.rows(named=True)
    }


SCALARS = [
    1,
    1.0,
    True,
    "1",
    "1 ",
    " 1",
    12,
    12.0,
    "12",
    4688,
    4688.0,
    "4688",
    None,
    "",
    [],
    {"a": 1},
    400,
    "information",
]
NEAR_KEYS = [
    "EventID", "eventid", "Channel", "channel", "SourceName", "Provider_Name", "Image", "image", "Level", "level",
    "Computer", "computer", "EventType", "eventtype", "NewProcessId", "newprocessid", "ProcessId", "ParentProcessId",
    "parentprocessid", "Data", "param1", "PARAM1", "Message", "message", "User", "user", "USER", "UtcTime", "utctime",
    "TargetUserName", "targetUserName", "TargetDomainName", "SubjectUserName", "product", "category", "service",
]  # fmt: skip
NEAR_VALUES = [
    *SCALARS, "Microsoft-Windows-Sysmon/Operational", "Microsoft-Windows-Sysmon", "Security", "Application", "windows",
    "process_creation", "CreateKey", "2026-02-28 10:00:00,123", "2026-02-28 10:00:00", "Windows PowerShell",
]  # fmt: skip
near_events = st.builds(
    lambda start, more: json.dumps({**start, **more}).encode(),
    st.sampled_from(
        [
            {"EventID": 1, "Channel": "Microsoft-Windows-Sysmon/Operational", "SourceName": "Microsoft-Windows-Sysmon"},
            {"EventID": 1.0, "Channel": "Microsoft-Windows-Sysmon/Operational"},
            {"EventID": 4688, "Channel": "Security"},
            {"EventID": 4688.0, "SourceName": "Microsoft-Windows-Security-Auditing"},
            {"EventID": 400, "Channel": "Windows PowerShell"},
            {"EventID": True, "Channel": "Application"},
            {"product": "windows"},
            {"eventSource": "a", "eventName": "b", "awsRegion": "c"},
            {},
        ]
    ),
    st.dictionaries(st.sampled_from(NEAR_KEYS), st.sampled_from(NEAR_VALUES), max_size=6),
)
near_lines = st.lists(st.one_of(near_events, damaged(), st.sampled_from(SEEDS)), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(near_lines, near_lines)
def test_no_event_depends_on_its_neighbours_nor_on_another_hospital(ours: list[bytes], theirs: list[bytes]) -> None:
    one_hospital = batch(ours, tenant="chu-a")
    another = batch(theirs, first=len(ours), tenant="chu-b")
    apart = said(parse(one_hospital)) | said(parse(another))
    assert said(parse(pl.concat([one_hospital, another]))) == apart
    assert said(parse(pl.concat([another, one_hospital]))) == apart


def test_a_neighbour_does_not_change_a_log_source() -> None:
    channel = {"Channel": "Microsoft-Windows-Sysmon/Operational", "SourceName": "Microsoft-Windows-Sysmon"}
    lines = [json.dumps({"EventID": event_id, **channel}).encode() for event_id in (True, 1.0, 1, "1")]
    found = said(parse(batch(lines)))
    categories = [found[f"t:0:0:{row}"][0].category for row in range(4)]
    assert categories == [None, "process_creation", "process_creation", "process_creation"]


def test_of_two_spellings_the_first_of_the_event_counts() -> None:
    lines = [b'{"image":"X","a":1}', b'{"Image":"A","image":"B"}', b'{"Image":null,"image":"C"}']
    found = said(parse(batch(lines)))
    assert [found[f"t:0:0:{row}"][1]["image"] for row in range(3)] == ["X", "A", "C"]


device_lines = st.lists(
    st.sampled_from([(header + case.line).encode() for case in ALL for header in case.headers]), min_size=1, max_size=8
)


@settings(max_examples=100, deadline=None)
@given(device_lines, device_lines)
def test_no_line_of_a_device_depends_on_its_neighbours(ours: list[bytes], theirs: list[bytes]) -> None:
    one_hospital = batch(ours, tenant="chu-a")
    another = batch(theirs, first=len(ours), tenant="chu-b")
    apart = said(parse(one_hospital)) | said(parse(another))
    assert said(parse(pl.concat([one_hospital, another]))) == apart


MAY_ALSO = {
    "squid.access": {"web.access"},  # `combined`, and Squid's end
    "stormshield.sns": {"key_value"},
    "fortigate.syslog": {"key_value"},
}
"""Format -> later ones that recognise some of its lines too."""
ANY_LINE = {"linux.syslog", "cisco.syslog"}


def recognised(line: bytes) -> set[str]:
    raw = batch([line])
    lines = split_lines(decode_lines(raw["line"], {}), raw["received"])
    found = {form.name for form in FORMATS if lines.select(form.recognise.fill_null(value=False)).item()}
    assert found == {form.name for form in FORMATS if form.recognised(lines).item()}  # hints never mislead
    return found


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.line[:40])
def test_a_line_is_recognised_by_its_format_alone(case: Case) -> None:
    form = case.dataset.replace("fortigate.cef", "cef")
    for header in case.headers:
        others = recognised((header + case.line).encode()) - ANY_LINE
        assert others - MAY_ALSO.get(form, set()) == {form}


@pytest.mark.parametrize("line", SEEDS, ids=lambda line: repr(line)[:40])
def test_no_device_claims_a_line_of_another_kind(line: bytes) -> None:
    assert not recognised(line) & {case.dataset for case in ALL}


@pytest.mark.parametrize("form", [*DEVICES, PAIRS], ids=lambda form: form.name)
def test_a_pinned_format_rejects_what_it_does_not_know(form: Format) -> None:
    texts = [*SEEDS, *((case.headers[0] + case.line).encode() for case in ALL), b"", b"1,2,3,4", b"|"]
    raw = batch(texts)
    lines = split_lines(decode_lines(raw["line"], {}), raw["received"])
    known = set(lines.filter(form.recognised(lines))["row"])
    assert 0 < len(known) < len(texts) - len(SEEDS)
    parsed = form.parse(lines)
    read = [row for piece in parsed.pieces for row in piece.rows]
    assert sorted([*read, *parsed.rejects]) == list(range(len(texts)))
    assert set(read) == known
