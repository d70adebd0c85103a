"""How a source's lines are read where the registry knows it: time zones, and formats that are pinned."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.envelope import DATASET, EVENT_ID, REMARK, TIMESTAMP, UTC_MICROSECONDS
from ingest.formats.piece import EnvelopeNames, Format, Parsed, Piece
from ingest.formats.times import Clocks, iso_times, localised, rare_times
from ingest.hospital import ExpectedSource, Hospital, Hospitals
from ingest.logsource import LogSource
from ingest.parse import parse
from ingest.readings import AS_THEY_SAY, Reading, Readings
from raw_lines import batch

SUMMER = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
PARIS = "Europe/Paris"


def readings(*sources: ExpectedSource, zone: str = PARIS, formats: dict[str, Format] | None = None) -> Readings:
    return Readings(Hospitals.of([Hospital("chu-a", "CHU A", time_zone=zone, sources=sources)]), formats or {})


def time_of(line: bytes, known: Readings | None, received: datetime = SUMMER, tenant: str = "chu-a") -> datetime:
    (frame,) = parse(batch([line], received=received, tenant=tenant), known)
    value = frame.events[TIMESTAMP][0]
    assert isinstance(value, datetime)
    return value


@pytest.mark.parametrize(
    ("line", "hour"),
    [
        (b"<13>Jul  1 13:30:00 fw app: x", 11),
        (b"<13>2026-07-01T13:30:00 fw app: x", 11),
        (b"<13>Jul  1 13:30:00 CEST fw app: x", 11),
        (b"<13>Jul  1 11:30:00 UTC fw app: x", 11),
        (b"<13>2026-07-01T13:30:00+02:00 fw app: x", 11),
        (b"<13>1 2026-07-01T11:30:00Z fw app - - - x", 11),
        (b'{"EventID":1,"Channel":"Security","EventTime":"2026-07-01 13:30:00"}', 11),
        (b'{"EventID":1,"Channel":"Security","EventTime":"2026-07-01 13:30:00","UtcTime":"2026-07-01 11:30:00"}', 11),
        (b'{"EventID":1,"Channel":"Security","TimeCreated":"2026-07-01T11:30:00Z"}', 11),
        (b'{"a":1,"time":"Wed Jul 01 13:30:00 2026"}', 11),
        (b'{"a":1,"time":"2026/07/01 13:30:00"}', 11),
        (b'{"a":1,"time":1782905400}', 11),
    ],
)
def test_a_time_that_names_no_zone_is_the_hospitals(line: bytes, hour: int) -> None:
    assert time_of(line, readings()) == datetime(2026, 7, 1, hour, 30, tzinfo=UTC)


def test_without_a_registry_it_is_utc_and_so_it_is_for_another_hospital() -> None:
    line = b"<13>Jul  1 11:30:00 fw app: x"
    assert time_of(line, None) == time_of(line, readings(), tenant="chu-b") == SUMMER - timedelta(minutes=30)


def test_a_source_has_a_zone_of_its_own_by_its_address_or_its_host() -> None:
    known = readings(
        ExpectedSource("radiologie", host="PACS1", time_zone="Indian/Reunion"),
        ExpectedSource("relais", address="192.0.2.0/24", time_zone="UTC"),
        ExpectedSource("nowhere"),
    )
    lines = [b"<13>Jul  1 15:30:00 pacs1 app: x", b"<13>Jul  1 11:30:00 other app: x", b"<13>no header"]
    frames = parse(batch(lines, received=SUMMER), known)
    times = {row[EVENT_ID]: row[TIMESTAMP] for frame in frames for row in frame.events.iter_rows(named=True)}
    half_past = datetime(2026, 7, 1, 11, 30, tzinfo=UTC)
    assert times == {"t:0:0:0": half_past, "t:0:0:1": half_past, "t:0:0:2": SUMMER}


def shout(lines: pl.DataFrame) -> Parsed:
    bad = {row: "too quiet" for row, text in lines.select("row", "payload").iter_rows() if not text.isupper()}
    good = lines.filter(~pl.col("row").is_in(list(bad)))
    fields = good.select(pl.col("payload").alias("message"))
    return Parsed(
        [Piece(LogSource("shout"), "shout", good["row"], fields, EnvelopeNames())] if good.height else [], bad
    )


SHOUT = Format("shout", pl.lit(value=False), shout)


def test_a_pinned_format_is_offered_the_lines_first() -> None:
    source = ExpectedSource("haut-parleur", address="192.0.2.1", format="shout")
    lines = [b"<13>Jul  1 11:30:00 h app: HELLO", b"<13>Jul  1 11:30:00 h sshd[1]: quiet", b"HEY"]
    frames = parse(batch(lines, received=SUMMER), readings(source, formats={"shout": SHOUT}))
    datasets = {row[EVENT_ID][-1]: row[DATASET] for frame in frames for row in frame.events.iter_rows(named=True)}
    assert datasets == {"0": "shout", "1": "linux.sshd", "2": "shout"}
    (remark,) = [text for frame in frames for text in frame.events[REMARK] if text and "quiet" in text]
    assert "too quiet" in remark


def test_a_pinned_format_may_be_one_of_the_table() -> None:
    source = ExpectedSource("x", address="192.0.2.1", format="linux.sshd")
    (frame,) = parse(batch([b"<13>Jul  1 11:30:00 h app: Failed password for x"]), readings(source))
    assert frame.events[DATASET].to_list() == ["linux.sshd"]


def test_a_pinned_format_that_does_not_exist_is_said_and_costs_no_line() -> None:
    source = ExpectedSource("x", address="192.0.2.1", format="nonsuch")
    (frame,) = parse(batch([b"<13>Jul  1 11:30:00 h app: x"]), readings(source))
    assert "nonsuch" in frame.events[REMARK][0]


@pytest.mark.parametrize(
    ("peer", "host", "reading"),
    [
        ("10.1.2.3", None, Reading("Indian/Reunion", None)),
        ("10.1.2.3", "FW", Reading(PARIS, "fortigate")),
        ("10.9.2.3", "fw", Reading(PARIS, None)),
        ("unknown", "x", Reading(PARIS, None)),
        ("2001:db8::7", None, Reading("UTC", None)),
    ],
)
def test_the_first_source_that_fits_counts(peer: str, host: str | None, reading: Reading) -> None:
    known = readings(
        ExpectedSource("a", address="10.1.0.0/16", host="fw", format="fortigate"),
        ExpectedSource("b", address="10.1.0.0/16", time_zone="Indian/Reunion"),
        ExpectedSource("c", address="2001:db8::/32", time_zone="UTC"),
    )
    assert known.of("chu-a", peer, host) == reading
    assert known.of("chu-z", peer, host) == AS_THEY_SAY


def paris(*texts: str, received: datetime) -> list[datetime | None]:
    column = pl.Series("t", texts)
    clocks = Clocks(PARIS, pl.Series([received] * len(texts), dtype=UTC_MICROSECONDS))
    return iso_times(column, assume_utc=True, clocks=clocks).to_list()


def test_the_hour_that_comes_twice_is_told_by_the_receipt() -> None:
    first, second = datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert paris("2026-10-25 02:30:00", received=first + timedelta(seconds=1)) == [first]
    assert paris("2026-10-25 02:30:00", received=second + timedelta(seconds=1)) == [second]
    assert paris("2026-10-25 02:30:00+02:00", received=second) == [first]


def test_the_hour_that_does_not_exist_is_that_of_a_clock_not_put_forward() -> None:
    assert paris("2026-03-29 02:30:00", "2026-03-29 01:59:59", "2026-03-29 03:00:00", received=SUMMER) == [
        datetime(2026, 3, 29, 1, 30, tzinfo=UTC),
        datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC),
        datetime(2026, 3, 29, 1, 0, tzinfo=UTC),
    ]


@given(
    st.lists(st.datetimes(datetime(1995, 1, 1), datetime(2035, 1, 1)), max_size=5),  # noqa: DTZ001 - naive on purpose
    st.sampled_from([PARIS, "Indian/Reunion", "America/Cayenne", "Pacific/Noumea", "UTC"]),
)
def test_local_times_agree_with_pythons(naive: list[datetime], zone: str) -> None:
    times = pl.Series("t", [time.replace(tzinfo=UTC) for time in naive], dtype=UTC_MICROSECONDS)
    long_ago = pl.Series([datetime(1990, 1, 1, tzinfo=UTC)] * len(naive), dtype=UTC_MICROSECONDS)
    expected = [time.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) for time in naive]
    assert localised(times, Clocks(zone, long_ago)).to_list() == expected


def test_a_rare_form_keeps_its_place_and_its_nulls() -> None:
    texts = pl.Series("t", ["Wed Jul 01 13:30:00 2026", None, "x", "1782905400", "2026-07-01T11:30:00Z"])
    clocks = Clocks(PARIS, pl.Series([SUMMER] * 5, dtype=UTC_MICROSECONDS))
    half_past = datetime(2026, 7, 1, 11, 30, tzinfo=UTC)
    assert rare_times(texts, clocks).to_list() == [half_past, None, None, half_past, half_past]


@given(
    st.lists(st.sampled_from([b"<13>Jul  1 13:30:00 a app: x", b"<13>x", b"{}", b"\xff", b"<13>Jul 1 1:1:1 b c: d"]))
)
def test_every_row_comes_out_once_however_it_is_read(lines: list[bytes]) -> None:
    known = readings(ExpectedSource("a", host="a", time_zone="UTC"), ExpectedSource("b", host="b", format="shout"))
    frames = parse(batch(lines), known)
    ids = sorted(identity for frame in frames for identity in frame.events[EVENT_ID])
    assert ids == sorted(f"t:0:0:{row}" for row in range(len(lines)))
