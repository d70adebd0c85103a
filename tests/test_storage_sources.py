from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import polars as pl
import pytest

from ingest.bus import TOPIC_SOURCES, Partition
from ingest.collector_report import ChannelCount, CollectorReport, ListenerCount
from ingest.source_counts import COUNTS_SCHEMA
from storage.alerts import AlertStore
from storage.errors import StoreError
from storage.source import Scope, Silence, SourceName
from storage.source_store import SourceStore

NOON = datetime(2026, 3, 9, 12, tzinfo=UTC)
SOURCES = Partition(TOPIC_SOURCES, 0)


@pytest.fixture
def alerts(tmp_path: Path) -> Iterator[AlertStore]:
    with AlertStore(tmp_path / "alerts.duckdb", clock=lambda: NOON) as opened:
        yield opened


@pytest.fixture
def store(alerts: AlertStore) -> SourceStore:
    return SourceStore(alerts.database)


def counts(*rows: dict[str, object]) -> pl.DataFrame:
    base: dict[str, object] = {
        "partition": 0,
        "offset": 0,
        "run": "a",
        "tenant": "chu-brest",
        "address": "192.0.2.1",
        "host": "srv",
        "family": "linux",
        "hour": NOON,
        "lines": 10,
        "understood": 10,
        "marked": 0,
        "again": 0,
        "quarantined": 0,
        "bytes": 1000,
        "minutes": 1,
        "first_event": NOON,
        "last_event": NOON,
        "last_received": NOON,
        "dated": 10,
        "skew": 1.0,
    }
    return pl.DataFrame([{**base, **row} for row in rows], schema=COUNTS_SCHEMA)


def add(store: SourceStore, *frames: pl.DataFrame, offset: int = 1) -> None:
    store.record(list(frames), [], {SOURCES: offset}, NOON)


def report(
    run: str, lines: int, at: datetime = NOON, *, final: bool = False, durable: int | None = None
) -> CollectorReport:
    channel = ChannelCount("", "chu-brest", "192.0.2.1", lines, lines * 100, lines if durable is None else durable)
    return CollectorReport(run, at, final, (channel,), (ListenerCount("tcp", "chu-brest", 1, 2, {"no": 3}),))


def say(store: SourceStore, *reports: CollectorReport, now: datetime = NOON) -> None:
    store.record([], list(reports), {SOURCES: 1}, now)


def test_counts_add_up_by_source_and_hour(store: SourceStore) -> None:
    later = NOON + timedelta(hours=1)
    add(store, counts({"offset": 0}, {"offset": 1, "minutes": 4, "skew": 3.0}, {"offset": 2, "hour": later}))
    add(store, counts({"offset": 3, "hour": later, "last_received": later, "host": "other"}))
    first, second = sorted(store.rows(NOON), key=lambda row: row.name.host, reverse=True)
    assert (first.name.host, first.lines, first.bytes) == ("srv", 30, 3000)
    assert (second.name.host, second.lines) == ("other", 10)
    hour = int(NOON.timestamp() // 3600)
    assert store.hours([first.id], NOON - timedelta(days=1)) == {hour: 0b101, hour + 1: 1}


def test_a_record_counts_once_however_often_its_counts_come(store: SourceStore, alerts: AlertStore) -> None:
    frame = counts({"offset": 0}, {"offset": 1})
    add(store, frame, frame)
    add(store, counts({"offset": 1}, {"offset": 2}), offset=2)
    add(store, counts({"offset": 0, "partition": 1}))
    assert sum(row.lines for row in store.rows(NOON)) == 40
    assert alerts.position(SOURCES) == 1


def test_counts_are_exact_through_crashes_whatever_is_cut_where(store: SourceStore) -> None:
    """Publishers that die after they published and before they committed, and read again in other cuts."""
    random = Random(1)  # noqa: S311 - not for secrets
    committed, truth = 0, 0
    lines = [random.randrange(1, 50) for _ in range(300)]
    while committed < len(lines):
        end = min(len(lines), committed + random.randrange(1, 40))
        frame = counts(*({"offset": at, "lines": lines[at], "host": f"h{at % 5}"} for at in range(committed, end)))
        add(store, frame)
        if random.random() < 0.5:  # it lived to commit
            committed = end
    truth = sum(lines)
    assert sum(row.lines for row in store.rows(NOON)) == truth


def test_a_failed_write_adds_nothing(store: SourceStore, alerts: AlertStore) -> None:
    with pytest.raises(StoreError):
        store.record([counts({})], [], {Partition(TOPIC_SOURCES, 2**40): 1}, NOON)
    assert store.rows(NOON) == []
    assert alerts.position(Partition("tocsin.raw", 0)) is None
    add(store, counts({}))
    assert store.rows(NOON)[0].lines == 10


def test_beyond_the_bound_sources_are_counted_together(alerts: AlertStore) -> None:
    store = SourceStore(alerts.database, limit=3)
    add(store, counts(*({"offset": 0, "host": f"h{number}"} for number in range(6))))
    add(
        store, counts({"offset": 1, "host": "h0"}, {"offset": 1, "host": "late"}, {"offset": 1, "tenant": "ch-morlaix"})
    )
    found = {(row.name.tenant, row.name.address, row.name.host): row.lines for row in store.rows(NOON)}
    assert found == {
        ("chu-brest", "192.0.2.1", "h0"): 20,
        ("chu-brest", "192.0.2.1", "h1"): 10,
        ("chu-brest", "192.0.2.1", "h2"): 10,
        ("chu-brest", "*", "*"): 40,
        ("ch-morlaix", "192.0.2.1", "srv"): 10,
    }


LATER = NOON + timedelta(minutes=6)


def test_the_equation(store: SourceStore) -> None:
    say(store, report("a", 100))
    add(store, counts({"offset": 0, "lines": 60, "again": 2}))
    unread = {"lines": 0, "family": "", "host": "", "quarantined": 25}
    add(store, counts({"offset": 1, **unread}, {"offset": 2, **unread, "quarantined": 0}))
    balance = store.balances(NOON)["chu-brest"]
    assert (balance.received, balance.stored, balance.again, balance.quarantined) == (100, 60, 2, 25)
    assert (balance.outstanding, balance.unsaid, balance.overdue) == (15, 1, 0)
    say(store, report("a", 100, LATER), now=LATER)
    assert store.balances(LATER)["chu-brest"].overdue == 15
    add(store, counts({"offset": 3, "lines": 15}))
    assert store.balances(LATER)["chu-brest"].outstanding == 0


def test_lines_that_came_just_now_are_not_overdue(store: SourceStore) -> None:
    say(store, report("a", 100))
    add(store, counts({"lines": 100}))
    late = NOON + timedelta(minutes=10)
    say(store, report("a", 500, late), now=late)
    balance = store.balances(late)["chu-brest"]
    assert (balance.outstanding, balance.overdue) == (400, 0)
    say(store, report("a", 500, late + timedelta(minutes=6)), now=late + timedelta(minutes=6))
    assert store.balances(late + timedelta(minutes=6))["chu-brest"].overdue == 400


def test_what_a_lost_collector_held_is_cut_off_until_its_disk_is_read(store: SourceStore) -> None:
    say(store, report("a", 100, durable=70))
    add(store, counts({"lines": 70}))
    assert (store.balances(NOON)["chu-brest"].outstanding, store.balances(NOON)["chu-brest"].cut_off) == (30, 0)
    balance = store.balances(LATER)["chu-brest"]
    assert (balance.outstanding, balance.cut_off, balance.missing) == (0, 30, 0)
    add(store, counts({"offset": 1, "lines": 30}))  # the next run found them on its disk: they bear the name of this
    assert store.balances(LATER)["chu-brest"].cut_off == 0


def test_a_surplus_of_one_run_hides_nothing_of_another(store: SourceStore) -> None:
    say(store, report("killed", 100), report("b", 100))
    add(store, counts({"run": "killed", "lines": 130}, {"offset": 1, "run": "b", "lines": 80}))
    audit(store, {0: 2})
    balance = store.balances(LATER)["chu-brest"]
    assert (balance.missing, balance.surplus, balance.cut_off) == (20, 30, 0)
    assert balance.received == balance.stored + balance.missing == 230


def audit(store: SourceStore, ends: dict[int, int], now: datetime = NOON) -> None:
    store.begin_mark(ends, now)
    store.end_mark(now)


def test_what_comes_later_does_not_make_up_for_what_is_missing(store: SourceStore) -> None:
    say(store, report("a", 100))
    store.begin_mark({0: 10}, NOON)
    add(store, counts({"offset": 3, "lines": 60}, {"offset": 4, "lines": 30}))
    assert store.balances(NOON)["chu-brest"].missing == 0, "the rest may still come"
    add(store, counts({"offset": 10, "lines": 500}))  # behind the ends
    assert store.open_mark() == (NOON, {0: 10})
    store.end_mark(NOON)
    assert store.balances(NOON)["chu-brest"].missing == 10
    assert (store.open_mark(), store.read_through()) == (None, NOON)
    audit(store, {0: 11})
    assert store.balances(NOON)["chu-brest"].missing == 10, "what is missing stays missing"


@pytest.mark.parametrize("seed", range(3))
def test_missing_is_what_was_lost_and_never_more(alerts: AlertStore, seed: int) -> None:
    """Runs that live and die at once, batches lost on the bus, partitions read at their own pace, reports that lag."""
    random, store = Random(seed), SourceStore(alerts.database)  # noqa: S311 - not for secrets
    runs = {run: [0, 0] for run in "abc"}  # taken, durable
    bus: dict[int, list[tuple[str, int]]] = {0: [], 1: [], 2: []}
    read = dict.fromkeys(bus, 0)
    lost = dict.fromkeys(runs, 0)
    dead: set[str] = set()
    now = NOON
    for turn in range(200):
        now += timedelta(seconds=1)
        run = random.choice("abc")
        if run not in dead:
            lines = random.randrange(1, 20)
            runs[run][0] += lines
            runs[run][1] += lines
            if random.random() < 0.03:
                lost[run] += lines
            else:
                bus[random.randrange(3)].append((run, lines))
        if turn == 120:
            dead.add("b")
        partition = random.randrange(3)
        new = bus[partition][read[partition] : read[partition] + random.randrange(6)]
        if turn > 170 or random.random() < 0.2:
            new = bus[partition][read[partition] :]
        rows = [
            {"partition": partition, "offset": read[partition] + at, "run": who, "lines": lines}
            for at, (who, lines) in enumerate(new)
        ]
        if rows:
            add(store, counts(*rows))
            read[partition] += len(new)
        if random.random() < 0.3:
            say(store, *(report(who, held[0], now) for who, held in runs.items() if who not in dead), now=now)
            if store.open_mark() is None:
                store.begin_mark({at: len(records) for at, records in bus.items()}, now)
        mark = store.open_mark()
        if mark is not None and all(read[at] >= end for at, end in mark[1].items()):
            store.end_mark(now)
        balance = store.balances(now).get("chu-brest")
        assert balance is None or 0 <= balance.missing <= sum(lost.values())
        assert balance is None or min(balance.outstanding, balance.cut_off) >= 0
    for at, records in bus.items():
        left = [{"partition": at, "offset": n, "run": r, "lines": k} for n, (r, k) in enumerate(records)][read[at] :]
        if left:
            add(store, counts(*left))
    if store.open_mark() is not None:
        store.end_mark(now)
    say(store, *(report(who, held[0], now, final=True) for who, held in runs.items() if who not in dead), now=now)
    audit(store, {at: len(records) for at, records in bus.items()}, now)
    balance = store.balances(now + timedelta(hours=1))["chu-brest"]
    exact = lost["a"] + lost["c"]
    assert exact <= balance.missing <= exact + lost["b"]
    assert balance.outstanding == balance.cut_off == 0
    store.prune(now + timedelta(days=8))
    after = store.balances(now + timedelta(days=8))["chu-brest"]
    assert (after.earlier, after.missing, after.stored) == (balance.missing, 0, balance.stored)


def test_names_that_somebody_invents_make_room_again(alerts: AlertStore) -> None:
    store = SourceStore(alerts.database, limit=100)
    week_ago, yesterday = NOON - timedelta(days=7), NOON - timedelta(days=2)
    real = [{"offset": 0, "host": f"real{n}", "hour": week_ago, "last_received": week_ago} for n in range(10)]
    add(store, counts(*real))
    add(store, counts(*({**row, "offset": 1, "hour": NOON, "last_received": NOON} for row in real)))
    invented = [{"offset": 2, "host": f"x{n}", "hour": yesterday, "last_received": yesterday} for n in range(200)]
    add(store, counts(*invented))
    assert len(store.rows(NOON)) == 101
    assert store.prune(NOON) == 20
    assert store.prune(NOON) == 0
    rows = {row.name.host: row for row in store.rows(NOON)}
    assert len(rows) == 81
    assert all(f"real{n}" in rows for n in range(10))
    assert sum(row.lines for row in rows.values()) == 2200, "no line leaves the sums"
    add(store, counts({"offset": 3, "host": "a new server"}))
    assert "a new server" in {row.name.host for row in store.rows(NOON)}
    assert store.prune(NOON + timedelta(days=61)) == 81
    assert {row.name.host: row.lines for row in store.rows(NOON)} == {"*": 2210}


def test_of_a_run_the_newest_report_stands_and_runs_add_up(store: SourceStore) -> None:
    say(store, report("a", 100, NOON + timedelta(seconds=5)), report("a", 50, NOON))
    say(store, report("a", 100, NOON + timedelta(seconds=5)), report("b", 7))
    assert store.balances(NOON)["chu-brest"].received == 107
    say(
        store, report("a", 110, NOON + timedelta(seconds=9), final=True), report("a", 105, NOON + timedelta(seconds=10))
    )
    assert store.balances(NOON)["chu-brest"].received == 117
    drops = store.drops()["chu-brest"]
    assert (drops.queue, drops.kernel, drops.refused) == (2, 4, {"no": 6})


def test_hearing_begins_anew_after_a_gap(store: SourceStore) -> None:
    for seconds in (0, 5, 10, 200, 205):
        say(store, report("a", 1, NOON + timedelta(seconds=seconds)))
    assert store.hearing() == {"tcp": (NOON + timedelta(seconds=200), NOON + timedelta(seconds=205))}


def test_rates_of_the_last_hour_and_of_such_an_hour(store: SourceStore) -> None:
    week_ago = NOON - timedelta(weeks=1)
    add(store, counts({"offset": 0, "hour": week_ago, "lines": 600, "last_received": week_ago}))
    add(store, counts({"offset": 1, "lines": 120}, {"offset": 2, "hour": NOON - timedelta(hours=1), "lines": 60}))
    row = store.rows(NOON + timedelta(minutes=30))[0]
    assert row.usual == 10.0
    assert row.rate == (120 + 60 / 2) / 60
    assert row.recent == 180


def test_old_hours_and_runs_go_and_sums_stay(store: SourceStore) -> None:
    long_ago = NOON - timedelta(days=70)
    add(store, counts({"hour": long_ago, "last_received": long_ago}))
    say(store, report("a", 100, NOON - timedelta(days=9)), report("b", 10, NOON - timedelta(days=8)), report("c", 1))
    for _ in range(2):
        store.prune(NOON)
    assert [row.run for row in store.collectors()] == ["c"]
    balance = store.balances(NOON)["chu-brest"]
    assert (balance.received, balance.stored, balance.earlier) == (111, 10, 100)
    assert store.drops()["chu-brest"].queue == 3
    row = store.rows(NOON)[0]
    assert (row.name.host, row.lines, store.hours([row.id], long_ago)) == ("*", 10, {})


def test_silences_are_noted_once_and_ended_once(store: SourceStore) -> None:
    silence = Silence("a1", Scope.SOURCE, SourceName("chu-brest", "192.0.2.1", "srv", "linux"), None, NOON)
    assert store.silence(silence)
    assert not store.silence(silence)
    assert store.silences() == [silence]
    store.end("a1", NOON + timedelta(hours=1))
    store.end("a1", NOON + timedelta(hours=2))
    assert store.silences() == []
    assert store.silences(open_only=False)[0].returned == NOON + timedelta(hours=1)


def test_what_is_expected_is_noted_with_its_time(store: SourceStore) -> None:
    store.expect({"chu-brest": ["pare-feu", "ad"]}, NOON)
    store.expect({"chu-brest": ["pare-feu"], "ch-morlaix": ["ad"]}, NOON + timedelta(hours=1))
    assert store.expected_since() == {
        ("chu-brest", "pare-feu"): NOON,
        ("ch-morlaix", "ad"): NOON + timedelta(hours=1),
    }


def test_a_file_that_nobody_holds_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "alerts.duckdb"
    with pytest.raises(StoreError, match="alert store"), SourceStore.read_only(path):
        pass
    assert not path.exists()
    with AlertStore(path) as alerts:
        add(SourceStore(alerts.database), counts({}))
    with SourceStore.read_only(path) as store:
        assert store.rows(NOON)[0].lines == 10
        with pytest.raises(StoreError, match="read-only"):
            store.prune(NOON)
