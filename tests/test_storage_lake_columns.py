from __future__ import annotations

import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.envelope import ENVELOPE
from ingest.logsource import LogSource
from storage.lake_columns import LAKE_COLUMNS, decode_name, encode_name, folder_name, from_lake, to_lake
from storage.lake_rest import REST

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("CommandLine", "CommandLine"),
        ("winlog.event_data.X", "winlog.event_data.X"),
        ("@timestamp", "@timestamp"),
        ("Process Name", "Process%20Name"),
        ("a=b;c", "a%3Db%3Bc"),
        ("100%", "100%25"),
        ("nul\0", "nul%00"),
        ("Système", "Syst%C3%A8me"),
        ("", "%"),
        ("date", "date%"),
        ("Date", "Date%"),
        ("bus.offset", "bus.offset%"),
        ("fields.rest", "fields.rest%"),
    ],
)
def test_a_field_name_becomes_a_column_and_comes_back(name: str, column: str) -> None:
    assert encode_name(name) == column
    assert decode_name(column) == name


@given(NAMES)
def test_every_name_survives_and_breaks_no_reader(name: str) -> None:
    column = encode_name(name)
    assert decode_name(column) == name
    assert re.fullmatch(r"[!-~]+", column)
    assert not set(column) & set(" ,;{}()\n\t=")
    assert column.lower() not in LAKE_COLUMNS


@given(st.lists(NAMES, min_size=2, max_size=2, unique=True))
def test_two_names_never_share_a_column(names: list[str]) -> None:
    assert encode_name(names[0]) != encode_name(names[1])


def test_envelope_columns_keep_their_names() -> None:
    assert [encode_name(name) for name in ENVELOPE] == list(ENVELOPE)


def test_a_field_goes_to_the_spelling_the_table_has() -> None:
    frame = to_lake(pl.DataFrame({"commandline": ["x"], "DATE": ["y"]}), ["CommandLine", "date", "date%"])
    assert frame.to_dict(as_series=False) == {"CommandLine": ["x"], "date%": ["y"]}


def test_fields_that_meet_in_one_column_are_coalesced() -> None:
    frame = to_lake(pl.DataFrame({"Image": ["a", None], "image": [None, "b"]}), [])
    assert frame.to_dict(as_series=False) == {"Image": ["a", "b"]}


def test_fields_without_room_are_packed_and_come_back() -> None:
    events = pl.DataFrame({"a": ["1", None], "b;": ["2", None], "B;": [None, "3"], "c": [None, None]})
    frame = to_lake(events.cast(pl.String), [], room=1)
    assert frame.to_dict(as_series=False) == {"a": ["1", None], REST: ['{"b;":"2"}', '{"b;":"3"}']}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a":1}'])
def test_packed_fields_that_cannot_be_read_are_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"fields\.rest|unexpected|EOF|empty|object"):
        list(from_lake(pl.DataFrame({REST: [text]})))


@pytest.mark.parametrize(
    ("logsource", "folder"),
    [
        (LogSource("windows", "process_creation", "sysmon"), "windows.process_creation.sysmon"),
        (LogSource("windows", None, "powershell-classic"), "windows._.powershell-classic"),
        (LogSource(), "_._._"),
    ],
)
def test_a_log_source_names_its_folder(logsource: LogSource, folder: str) -> None:
    assert folder_name(logsource) == folder


@given(st.lists(st.one_of(st.none(), st.text(max_size=80)), min_size=2, max_size=2, unique=True))
def test_folders_are_safe_and_distinct(parts: list[str | None]) -> None:
    first, second = (folder_name(LogSource(part)) for part in parts)
    assert first != second
    assert re.fullmatch(r"[a-z0-9_-]{1,60}\._\._", first)
