from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.adapters import AdapterError, adapter_formats, adapter_of, read_adapters
from ingest.formats.adapter import AdapterDefinition, split_row
from ingest.hospital import ExpectedSource, Hospital, Hospitals
from ingest.logsource import LogSource
from ingest.parse import parse
from ingest.readings import Readings
from raw_lines import Row, batch

CSV = """
name = "dpi-acces"
kind = "csv"
delimiter = ";"
header = true
columns = ["date", "heure", "agent", "poste", "ip", "ipp", "acte"]

[fields]
agent = "user.name"
ip = "source.ip"
acte = "action"

[time]
columns = ["date", "heure"]
format = "%d/%m/%Y %H:%M:%S"
zone = "Europe/Paris"

[logsource]
product = "dpi"
category = "audit"

[envelope]
host = ["poste"]

[patients]
columns = ["ipp"]
"""
JSON = """
name = "dpi-json"
kind = "json"

[fields]
"agent.login" = "agent"
quand = "when"

[time]
columns = ["quand"]
zone = "Europe/Paris"

[logsource]
product = "dpi"
service = "acces"

[envelope]
user = ["agent"]
source_ip = ["poste.ip"]

[patients]
columns = ["patient.ipp", "patient.nom"]
"""
HEADER = "date;heure;agent;poste;ip;ipp;acte"
ROW = '28/02/2026;11:00:05;a.morvan;PC-URG-3;192.0.2.8;8001;"lecture; compte rendu"'


def readings(text: str) -> Readings:
    definition = adapter_of(text, "x.toml")
    source = ExpectedSource("dpi", address="192.0.2.1", format=definition.dataset)
    hospital = Hospital("chu-a", "CHU A", time_zone="Indian/Reunion", sources=(source,))
    return Readings(Hospitals.of([hospital]), adapter_formats([definition]))


def rows(text: str, *lines: str) -> list[tuple[LogSource, Row]]:
    """What is made of each line, in their order."""
    found = {
        str(row["event.id"]): (frame.logsource, {name: value for name, value in row.items() if value is not None})
        for frame in parse(batch([line.encode() for line in lines]), readings(text))
        for row in frame.events.rows(named=True)
    }
    return [found[f"t:0:0:{place}"] for place in range(len(lines))]


@pytest.mark.parametrize(
    "header", ["", "<13>Feb 28 11:00:06 srv-dpi dpi: ", "<13>1 2026-02-28T10:00:06Z srv dpi - - - "]
)
def test_a_row_of_csv(header: str) -> None:
    ((logsource, row),) = rows(CSV, header + ROW)
    assert logsource == LogSource("dpi", "audit")
    said = {
        "event.dataset": "adapter.dpi-acces",
        "user.name": "a.morvan",
        "host.name": "PC-URG-3",
        "poste": "PC-URG-3",
        "source.ip": "192.0.2.8",
        "ipp": "8001",
        "action": "lecture; compte rendu",
        "@timestamp": datetime(2026, 2, 28, 10, 0, 5, tzinfo=UTC),
    }
    assert said.items() <= row.items()
    assert "error.message" not in row


def test_rows_that_do_not_fit_are_kept_and_remarked() -> None:
    few, many, quotes, late, title, empty = rows(
        CSV,
        "28/02/2026;11:00:05;a.morvan",
        ROW + ";plus;encore",
        ROW.replace('rendu"', "rendu"),
        ROW.replace("28/02/2026", "2026-02-28"),
        "\ufeff" + HEADER.upper(),
        "",
    )
    assert few[1]["error.message"] == "3 columns where 7 were defined"
    assert (few[1]["user.name"], "action" in few[1]) == ("a.morvan", False)
    assert many[1]["error.message"] == "9 columns where 7 were defined"
    assert (many[1]["column8"], many[1]["column9"], many[1]["action"]) == ("plus", "encore", "lecture; compte rendu")
    assert quotes[1]["error.message"] == "broken quotes: cut at every delimiter; 8 columns where 7 were defined"
    assert (quotes[1]["action"], quotes[1]["column8"]) == ("lecture", "compte rendu")
    assert late[1]["error.message"] == "event time not understood: 2026-02-28 11:00:05"
    assert late[1]["user.name"] == "a.morvan"
    assert title[1]["error.message"] == "a row of column names, no event"
    assert "user.name" not in title[1]
    assert "1 columns where 7" in str(empty[1]["error.message"])
    assert {source for source, _ in (few, many, quotes, late, title, empty)} == {LogSource("dpi", "audit")}


def test_a_row_of_column_names_is_data_where_none_is_expected() -> None:
    ((_, row),) = rows(CSV.replace("header = true", ""), HEADER)
    assert row["user.name"] == "agent"


def test_an_object_of_json() -> None:
    event = {"quand": "2026-02-28T11:00:05", "agent": {"login": "a.morvan"}, "poste": {"ip": "192.0.2.8"}, "n": [1]}
    zoned = event | {"quand": "2026-02-28T11:00:05+04:00"}
    one, other, cut, none = rows(JSON, json.dumps(event), json.dumps(zoned), json.dumps(event)[:60], "[1]")
    assert one[0] == LogSource("dpi", None, "acces")
    said = {"event.dataset": "adapter.dpi-json", "agent": "a.morvan", "user.name": "a.morvan", "source.ip": "192.0.2.8"}
    assert said.items() <= one[1].items()
    assert one[1]["@timestamp"] == datetime(2026, 2, 28, 10, 0, 5, tzinfo=UTC)
    assert other[1]["@timestamp"] == datetime(2026, 2, 28, 7, 0, 5, tzinfo=UTC)
    assert "cut JSON" in str(cut[1]["error.message"])
    assert none[0].unknown


@pytest.mark.parametrize(
    ("zone", "clock", "utc"),
    [
        ('zone = "Europe/Paris"', "01/07/2026 11:00:00", datetime(2026, 7, 1, 9, 0, tzinfo=UTC)),
        ('zone = "Indian/Reunion"', "01/02/2026 11:00:00", datetime(2026, 2, 1, 7, 0, tzinfo=UTC)),
        ("", "01/02/2026 11:00:00", datetime(2026, 2, 1, 7, 0, tzinfo=UTC)),  # the hospital's, Réunion
        ('zone = "Europe/Paris"', "25/10/2026 02:30:00", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),  # comes twice
        ('zone = "Europe/Paris"', "29/03/2026 02:30:00", datetime(2026, 3, 29, 1, 30, tzinfo=UTC)),  # does not exist
    ],
)
def test_time_zones(zone: str, clock: str, utc: datetime) -> None:
    text = CSV.replace('zone = "Europe/Paris"', zone)
    day, hour = clock.split(" ")
    line = ROW.replace("28/02/2026;11:00:05", f"{day};{hour}")
    (frame,) = parse(batch([line.encode()], received=datetime(2027, 1, 1, tzinfo=UTC)), readings(text))
    assert frame.events["@timestamp"].to_list() == [utc]


def test_a_time_with_its_zone_in_the_format() -> None:
    text = CSV.replace("%H:%M:%S", "%H:%M:%S%z")
    ((_, row),) = rows(text, ROW.replace("11:00:05", "11:00:05-0500"))
    assert row["@timestamp"] == datetime(2026, 2, 28, 16, 0, 5, tzinfo=UTC)


def test_where_patients_are() -> None:
    definition = adapter_of(CSV, "x")
    assert (definition.patients, definition.patient_places) == (("ipp",), (5,))
    assert adapter_of(JSON, "x").patients == ("patient.ipp", "patient.nom")


FAULTS = [
    ("name", 'name = "dpi-acces"', 'name = "DPI acces"', "name: 'DPI acces' is not lower-case"),
    ("no name", 'name = "dpi-acces"', "", "name: missing"),
    ("kind", 'kind = "csv"', 'kind = "xml"', "kind: 'xml' is neither csv nor json"),
    ("columns of json", 'kind = "csv"', 'kind = "json"', "columns: unknown key"),
    ("no columns", 'columns = ["date", "heure", "agent", "poste", "ip", "ipp", "acte"]', "", "columns: missing"),
    ("twice", '"agent", "poste"', '"agent", "AGENT"', "columns: 'AGENT' stands twice"),
    ("delimiter", 'delimiter = ";"', 'delimiter = ";;"', "delimiter: ';;' is not one character"),
    ("quote", 'delimiter = ";"', 'delimiter = ";"\nquote = ";"', "quote: the same as the delimiter"),
    ("header", "header = true", 'header = "yes"', "header: true or false is wanted"),
    ("unknown key", "header = true", "headers = true", "headers: unknown key"),
    ("unknown key in a table", 'host = ["poste"]', 'hots = ["poste"]', "envelope.hots: unknown key"),
    ("no such column", 'agent = "user.name"', 'agnet = "user.name"', "fields: 'agnet' is none of the columns"),
    (
        "an envelope name",
        'acte = "action"',
        'acte = "event.id"',
        "fields: 'acte': 'event.id' is written by the pipeline",
    ),
    ("two of one name", 'acte = "action"', 'acte = "Poste"', "fields.acte: 'Poste' is also the field of 'poste'"),
    ("format", "%d/%m/%Y %H:%M:%S", "%d/%m/%Y", "has no day (%d) or no time of day"),
    ("broken format", "%H:%M:%S", "%H:%M:%", "ends within a directive"),
    ("zone", "Europe/Paris", "Europe/Brest", "time.zone: 'Europe/Brest' is no time zone"),
    ("no time columns", 'columns = ["date", "heure"]', "", "time.columns: missing"),
    ("product", 'product = "dpi"', 'product = "D P I"', "logsource.product: 'D P I' is no part of a log source"),
    ("no product", 'product = "dpi"', "", "logsource.product: missing"),
    ("envelope", 'host = ["poste"]', 'host = ["ward"]', "envelope.host: no column becomes 'ward'"),
    ("patients", 'columns = ["ipp"]', 'columns = ["ins"]', "patients.columns: 'ins' is none of the columns"),
    ("TOML", "header = true", "header = ", "Invalid value"),
]


@pytest.mark.parametrize(("good", "bad", "reason"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_faults_name_file_key_and_reason(good: str, bad: str, reason: str) -> None:
    assert good in CSV
    with pytest.raises(AdapterError) as caught:
        adapter_of(CSV.replace(good, bad), "dpi.toml")
    assert any(fault.startswith("dpi.toml: ") and reason in fault for fault in caught.value.faults), caught.value.faults


def test_a_folder_is_read_whole_and_all_faults_are_told(tmp_path: Path) -> None:
    assert read_adapters(tmp_path / "none") == ()
    (tmp_path / "a.toml").write_text(CSV, encoding="utf-8")
    (tmp_path / "b.toml").write_text(JSON, encoding="utf-8")
    assert [adapter.name for adapter in read_adapters(tmp_path)] == ["dpi-acces", "dpi-json"]
    (tmp_path / "c.toml").write_text(CSV, encoding="utf-8")
    (tmp_path / "d.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "e.toml").write_text('kind = "xml"', encoding="utf-8")
    with pytest.raises(AdapterError) as caught:
        read_adapters(tmp_path)
    told = "\n".join(caught.value.faults)
    assert "c.toml: name: 'dpi-acces' is also that of" in told
    assert all(name in told for name in ("d.toml", "e.toml: kind", "e.toml: name: missing"))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=6), min_size=2, max_size=6))
def test_what_csv_writes_is_read_back(cells: list[str]) -> None:
    written = io.StringIO()
    csv.writer(written, delimiter=";", quoting=csv.QUOTE_ALL, lineterminator="").writerow(cells)
    assert split_row(written.getvalue(), ";", '"') == (cells, True)


anything = st.one_of(st.text(max_size=40), st.sampled_from([ROW, HEADER, '";', '"' * 3, ";" * 200, "{}", '{"a":1}']))


@settings(max_examples=100, deadline=None)
@given(st.lists(anything, min_size=1, max_size=4), st.sampled_from([CSV, JSON]))
def test_any_row_comes_out_once(texts: list[str], definition: str) -> None:
    raw = batch([text.encode("utf-8", "surrogatepass") for text in texts])
    ids = [name for frame in parse(raw, readings(definition)) for name in frame.events["event.id"].to_list()]
    assert sorted(ids) == sorted(raw["event.id"].to_list())


def test_every_cut() -> None:
    lines = [ROW[:end] for end in range(len(ROW))]
    assert all(isinstance(row["event.dataset"], str) for _, row in rows(CSV, *lines))


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60), st.integers(0, len(CSV)))
def test_any_definition_is_read_or_refused(text: str, place: int) -> None:
    try:
        found = adapter_of(CSV[:place] + text + CSV[place:], "x")
    except AdapterError as error:
        assert error.faults  # noqa: PT017 (either is right)
    else:
        assert isinstance(found, AdapterDefinition)
