from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.bus import TOPIC_RAW, TOPIC_SOURCES, Record
from ingest.collector_report import ChannelCount, CollectorReport, ListenerCount, ReportDecodeError, decode_report
from ingest.envelope import EVENT_ID, TENANT
from ingest.ipc import decode_frame
from ingest.parse import parse
from ingest.rawbatch import BATCH_LINES, RawLine, decode_record, encode_lines
from ingest.source_counts import (
    COUNTS_SCHEMA,
    OTHER,
    SOURCES_A_RECORD,
    count_messages,
    count_quarantined,
    count_sources,
)

NOON = datetime(2026, 3, 9, 12, 0, 30, tzinfo=UTC)
SSHD = "<38>1 {time} {host} sshd 12 - - Failed password for root from 192.0.2.7 port 22 ssh2"


def record(lines: list[RawLine], offset: int = 0, partition: int = 0, **headers: str) -> Record:
    return Record(TOPIC_RAW, partition, offset, "chu-brest/192.0.2.1", encode_lines(lines), headers)


def line(text: str, received: datetime = NOON, tenant: str = "chu-brest", peer: str = "192.0.2.1") -> RawLine:
    return RawLine(text.encode(), received, tenant, peer)


def sshd(host: str, late: timedelta = timedelta(), received: datetime = NOON) -> RawLine:
    return line(SSHD.format(time=(received - late).isoformat().replace("+00:00", "Z"), host=host), received)


def counted(*records: Record, again: tuple[str, ...] = ()) -> pl.DataFrame:
    frames = parse(pl.concat([decode_record(found) for found in records]))
    return count_sources(frames, again)


def test_what_a_record_says_of_its_sources() -> None:
    lines = [
        sshd("srv-1", timedelta(seconds=2)),
        sshd("srv-1", timedelta(seconds=4)),
        sshd("srv-1", timedelta(seconds=90), NOON + timedelta(minutes=5)),
        sshd("srv-2"),
        line("\x01 nobody understands this"),
    ]
    rows = {(row["host"], row["family"]): row for row in counted(record(lines, 7, 3)).to_dicts()}
    assert set(rows) == {("srv-1", "linux"), ("srv-2", "linux"), ("", "unknown")}
    first = rows["srv-1", "linux"]
    assert (first["partition"], first["offset"], first["tenant"], first["address"]) == (3, 7, "chu-brest", "192.0.2.1")
    assert (first["lines"], first["understood"], first["again"]) == (3, 3, 0)
    assert first["hour"] == datetime(2026, 3, 9, 12, tzinfo=UTC)
    assert first["minutes"] == 0b100001
    assert first["skew"] == 4.0  # the median
    assert first["dated"] == 3
    assert first["first_event"] == NOON - timedelta(seconds=4)
    assert first["last_received"] == NOON + timedelta(minutes=5)
    unknown = rows["", "unknown"]
    assert (unknown["lines"], unknown["understood"], unknown["marked"]) == (1, 0, 1)
    assert (unknown["dated"], unknown["skew"]) == (0, None)  # it bears no time: ours is not held against it
    assert sum(row["bytes"] for row in rows.values()) == sum(len(item.line) for item in lines)


def test_hours_are_those_of_receipt_whatever_the_lines_say() -> None:
    old = sshd("srv-1", timedelta(days=200))
    row = counted(record([old])).row(0, named=True)
    assert row["hour"] == datetime(2026, 3, 9, 12, tzinfo=UTC)
    assert row["last_event"] == NOON - timedelta(days=200)


def test_lines_sent_again_are_counted_by_their_ids() -> None:
    row = counted(record([sshd("a"), sshd("a"), sshd("a")]), again=("tocsin.raw:0:0:1",)).row(0, named=True)
    assert (row["lines"], row["again"]) == (3, 1)


def test_a_sender_of_many_hosts_makes_no_more_rows_than_allowed() -> None:
    rows = counted(record([sshd(f"h{number}") for number in range(SOURCES_A_RECORD + 100)]))
    assert rows.height == SOURCES_A_RECORD + 1
    other = rows.filter(pl.col("host") == OTHER).row(0, named=True)
    assert (other["family"], other["lines"]) == (OTHER, 100)
    assert rows["lines"].sum() == SOURCES_A_RECORD + 100


def test_a_host_cannot_pass_for_the_others() -> None:
    row = counted(record([sshd("*")])).row(0, named=True)
    assert (row["host"], row["family"]) == ("*", "linux")


def test_an_endless_host_name_is_cut() -> None:
    row = counted(record([sshd("h" * 5000)])).row(0, named=True)
    assert len(row["host"]) <= 255


HOSTS = st.sampled_from(["a", "b", "c", "c" * 300, "", "*", "é"])
RECORDS = st.lists(st.lists(HOSTS, min_size=1, max_size=12), min_size=1, max_size=6)


@settings(deadline=None, max_examples=40)
@given(RECORDS, st.integers(0, 5))
def test_counts_depend_on_the_record_alone_and_hold_every_line(hosts: list[list[str]], cut: int) -> None:
    """Whatever else is read together with it, a record counts the same: what is read twice is then counted once."""
    records = [record([sshd(host) for host in part], offset) for offset, part in enumerate(hosts)]
    whole = counted(*records)
    assert whole["lines"].sum() == sum(map(len, hosts))
    parts = [part for part in (records[:cut], records[cut:]) if part]
    assert pl.concat([counted(*part) for part in parts]).equals(whole)


def test_a_record_that_cannot_be_read_tells_whose_it_was_and_its_lines() -> None:
    broken = [
        Record(TOPIC_RAW, 1, 5, "chu-brest/192.0.2.9", b"rubbish", {BATCH_LINES: "4000"}),
        Record(TOPIC_RAW, 1, 6, "chu-brest/192.0.2.9", b"rubbish"),
        Record(TOPIC_RAW, 1, 7, "chu-brest/192.0.2.9", b"rubbish", {BATCH_LINES: "٣٣"}),
        Record(TOPIC_RAW, 1, 8, "chu-brest/192.0.2.9", b"rubbish", {BATCH_LINES: "9" * 40}),
    ]
    rows = count_quarantined(broken, NOON)
    assert rows["tenant"].unique().to_list() == ["chu-brest"]
    assert rows["address"].unique().to_list() == ["192.0.2.9"]
    assert rows["lines"].sum() == 0
    assert rows["quarantined"].to_list() == [4000, 0, 0, 0]


def test_messages_keep_records_whole_and_partitions_in_order() -> None:
    counts = [counted(record([sshd(f"h{n:03}") for n in range(400)], offset, offset % 2)) for offset in range(60)]
    messages = count_messages(counts)
    assert len(messages) > 2
    assert {message.topic for message in messages} == {TOPIC_SOURCES}
    seen: dict[str, list[int]] = {}
    for message in messages:
        frame = decode_frame(message.value, COUNTS_SCHEMA)
        offsets = frame["offset"].unique(maintain_order=True).to_list()
        assert all(frame.filter(pl.col("offset") == offset).height == 400 for offset in offsets)
        seen.setdefault(message.key, []).extend(offsets)
    assert seen == {f"tocsin.raw/{partition}": list(range(partition, 60, 2)) for partition in (0, 1)}


def test_nothing_read_is_nothing_said() -> None:
    assert count_messages([]) == []
    assert count_messages([count_sources([]), count_quarantined([], NOON)]) == []


def test_event_ids_and_tenants_of_the_envelope_are_those_that_are_read() -> None:
    frame = parse(decode_record(record([sshd("a")], 9, 2)))[0].events
    assert (frame.item(0, EVENT_ID), frame.item(0, TENANT)) == ("tocsin.raw:2:9:0", "chu-brest")


def test_a_report_comes_back_as_it_was() -> None:
    report = CollectorReport(
        run="r1",
        at=NOON,
        final=True,
        channels=(ChannelCount("", "chu-brest", "192.0.2.1", 5, 100, 4),),
        listeners=(ListenerCount("udp", "", 1, 2, {"unknown certificate": 3}),),
        spool_bytes=7,
        spool_oldest=NOON,
        waiting_bytes=9,
    )
    assert decode_report(report.message().value) == report


@given(
    st.binary(max_size=60) | st.text(max_size=40).map(str.encode) | st.just(b'{"run":"a","at":"2026-01-01T00:00:00"}')
)
def test_a_report_that_is_none_is_refused_with_a_reason(value: bytes) -> None:
    try:
        decode_report(value)
    except ReportDecodeError as error:
        assert "report" in str(error)  # noqa: PT017 - arbitrary bytes: no other error may come
    else:
        raise AssertionError
