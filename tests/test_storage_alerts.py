from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.bus import Partition
from storage.alert import Alert, Level, Status, alert_id
from storage.alert_database import read_ahead
from storage.alert_queue import OPEN_STATUSES, AlertFilter, AlertRow, clause_of
from storage.alerts import LONGEST_PAGE, AlertStore
from storage.errors import AlertNotFound, CursorError, DecisionConflict, StoreError

REPOSITORY = Path(__file__).resolve().parent.parent
ALERTS = Partition("tocsin.alerts", 0)
NOON = datetime(2026, 8, 27, 12, tzinfo=UTC)
EVERYTHING = AlertFilter()


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


def alert(number: int, level: Level = Level.HIGH, **changed: object) -> Alert:
    made = Alert(
        id=alert_id("rule", "chu-brest", str(number)),
        rule_id="rule",
        rule_title=f"Rule {number}",
        level=level,
        tenant="chu-brest",
        timestamp=NOON + timedelta(minutes=number),
        received=NOON + timedelta(minutes=number, seconds=1),
        logsource="windows/process_creation/sysmon",
        host=f"PC-{number}",
        user="alice",
        source_ip="10.0.0.1",
        event_ids=(f"tocsin.raw:0:{number}:0",),
        matched={"Image": "x.exe"},
        event={"Image": "x.exe", "User": "alice"},
        original=f"raw line {number}",
        tags=("attack.t1105",),
    )
    return replace(made, **changed)  # type: ignore[arg-type]  # keyword arguments of Alert


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "alerts.duckdb"


@pytest.fixture
def store(path: Path) -> Iterator[AlertStore]:
    with AlertStore(path, Clock()) as opened:
        yield opened


def numbers(rows: list[AlertRow]) -> list[int]:
    return [int(row.alert.rule_title.removeprefix("Rule ")) for row in rows]


def test_alerts_come_back_as_they_went_in(store: AlertStore) -> None:
    written = alert(1, host=None, user=None, event_ids=(), tags=(), matched={}, original="nul\0 \U0001f514 \t\x1b[31m")
    assert store.record([written, alert(2)], {ALERTS: 7}) == 2
    assert store.get(written.id) == AlertRow(written, Status.NEW, None, None, 1)
    assert store.get("no such id") is None
    assert store.position(ALERTS) == 7
    assert store.position(Partition("tocsin.alerts", 1)) is None


def test_known_alerts_are_left_out_and_the_position_moves_on(store: AlertStore) -> None:
    assert store.record([alert(1), alert(2), alert(1)], {ALERTS: 2}) == 2
    assert store.record([alert(2, rule_title="changed"), alert(3)], {ALERTS: 4}) == 1
    assert store.record([], {ALERTS: 5}) == 0
    assert store.counts(EVERYTHING).total == 3
    row = store.get(alert(2).id)
    assert row is not None
    assert row.alert.rule_title == "Rule 2"
    assert store.position(ALERTS) == 5


def test_lone_surrogates_and_times_without_zone_are_stored(store: AlertStore) -> None:
    hostile = alert(1, host="pc\udc80", original="\ud800", event={"\udcff": "\udcff"}, timestamp=datetime(1601, 1, 1))  # noqa: DTZ001
    store.record([hostile], {})
    row = store.get(hostile.id)
    assert row is not None
    assert (row.alert.host, row.alert.original) == ("pc\\udc80", "\\ud800")
    assert row.alert.timestamp == datetime(1601, 1, 1, tzinfo=UTC)
    assert store.queue(AlertFilter(host="PC\udc80")).total == 1
    assert store.decide(hostile.id, Status.CLOSED, "\udc80", "a\udc80").note == "\\udc80"
    assert store.verify_journal() is None


# Decisions


def test_an_alert_stands_where_its_latest_decision_put_it(store: AlertStore) -> None:
    store.record([alert(1)], {})
    first = store.decide(alert(1).id, Status.IN_PROGRESS, "looking", "alice")
    second = store.decide(alert(1).id, Status.FALSE_POSITIVE, "a backup", "bob")
    assert store.journal(alert(1).id) == [first, second]
    assert first.at < second.at
    row = store.get(alert(1).id)
    assert row is not None
    assert (row.status, row.decision, row.decision_seq) == (Status.FALSE_POSITIVE, second, 2)


def test_a_decision_on_an_unknown_alert_is_refused(store: AlertStore) -> None:
    with pytest.raises(AlertNotFound, match="no-such-id"):
        store.decide("no-such-id", Status.CLOSED, "", "alice")
    assert store.journal_head()[0] == 0


def test_two_analysts_do_not_overwrite_each_other(store: AlertStore) -> None:
    store.record([alert(1)], {})
    store.decide(alert(1).id, Status.IN_PROGRESS, "", "alice", expected=Status.NEW, expected_seq=0)
    with pytest.raises(DecisionConflict, match="in_progress"):
        store.decide(alert(1).id, Status.CLOSED, "", "bob", expected=Status.NEW)
    with pytest.raises(DecisionConflict):
        store.decide(alert(1).id, Status.CLOSED, "", "bob", expected_seq=0)
    store.decide(alert(1).id, Status.CLOSED, "", "bob", expected_seq=1)
    assert [decision.author for decision in store.journal(alert(1).id)] == ["alice", "bob"]


@pytest.mark.parametrize(
    ("tampering", "seq", "reason"),
    [
        ("UPDATE decisions SET note = 'nothing to see' WHERE seq = 2", 2, "changed"),
        ("UPDATE decisions SET status = 'closed' WHERE seq = 1", 1, "changed"),
        ("UPDATE decisions SET decided = decided + INTERVAL 1 MICROSECOND WHERE seq = 3", 3, "changed"),
        ("UPDATE decisions SET author = 'mallory' WHERE seq = 4", 4, "changed"),
        ("DELETE FROM decisions WHERE seq = 2", 3, "entry 2 is missing"),
        ("INSERT INTO decisions SELECT * FROM decisions WHERE seq = 3", 3, "twice"),
        ("UPDATE decisions SET previous = repeat('f', 64) WHERE seq = 2", 2, "does not follow"),
    ],
)
def test_a_journal_that_was_tampered_with_says_where(path: Path, tampering: str, seq: int, reason: str) -> None:
    with AlertStore(path) as store:
        store.record([alert(1), alert(2)], {})
        for status in (Status.IN_PROGRESS, Status.TRUE_POSITIVE):
            for number in (1, 2):
                store.decide(alert(number).id, status, "note", "alice")
        assert store.verify_journal() is None
    with duckdb.connect(str(path)) as connection:
        connection.execute(tampering)
    with AlertStore(path) as store:
        broken = store.verify_journal()
    assert broken is not None
    assert broken.seq == seq
    assert reason in broken.reason


def test_a_journal_cut_short_has_another_head(path: Path) -> None:
    with AlertStore(path) as store:
        store.record([alert(1)], {})
        store.decide(alert(1).id, Status.CLOSED, "", "alice")
        noted = store.journal_head()
    with duckdb.connect(str(path)) as connection:
        connection.execute("DELETE FROM decisions")
    with AlertStore(path) as store:
        assert store.journal_head() != noted


def test_the_state_can_be_derived_anew(path: Path) -> None:
    with AlertStore(path) as store:
        store.record([alert(number) for number in range(6)], {})
        for number in (1, 3, 3):
            store.decide(alert(number).id, random.choice(list(Status)), "", "alice")  # noqa: S311
        before = store.queue(EVERYTHING), store.counts(EVERYTHING)
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE state SET status = 4, decision = NULL, tenant = 'x', rank = 0")
    with AlertStore(path) as store:
        assert (store.queue(EVERYTHING), store.counts(EVERYTHING)) != before
        store.rebuild_state()
        assert (store.queue(EVERYTHING), store.counts(EVERYTHING)) == before


# The queue


def test_the_queue_is_worst_first_then_newest(store: AlertStore) -> None:
    levels = [Level.LOW, Level.CRITICAL, Level.MEDIUM, Level.CRITICAL, Level.INFORMATIONAL, Level.HIGH]
    store.record([alert(number, level) for number, level in enumerate(levels)], {})
    assert numbers(store.queue(EVERYTHING).items) == [3, 1, 5, 2, 0, 4]


def test_each_filter_narrows_the_queue(store: AlertStore) -> None:
    store.record(
        [
            alert(0, Level.LOW, tenant="ch-quimper", user="BOB"),
            alert(1, Level.CRITICAL, rule_id="other", rule_title="Rule 1"),
            alert(2, host="SRV_%1", original="50% of C:\\Temp"),
            alert(3, host=None, user=None, original="CaSe É"),
        ],
        {},
    )
    store.decide(alert(3).id, Status.CLOSED, "", "alice")
    cases: list[tuple[AlertFilter, list[int]]] = [
        (EVERYTHING, [1, 3, 2, 0]),
        (AlertFilter(tenants=["ch-quimper"]), [0]),
        (AlertFilter(tenants=[]), []),
        (AlertFilter(levels=[Level.LOW, Level.CRITICAL]), [1, 0]),
        (AlertFilter(statuses=OPEN_STATUSES), [1, 2, 0]),
        (AlertFilter(statuses={Status.CLOSED}), [3]),
        (AlertFilter(rule_id="other"), [1]),
        (AlertFilter(host="srv_%1"), [2]),
        (AlertFilter(host="SRV_x1"), []),
        (AlertFilter(text="%"), [2]),
        (AlertFilter(text="_"), [2]),
        (AlertFilter(text="rule 1"), [1]),
        (AlertFilter(text="bob"), [0]),
        (AlertFilter(text="pc-"), [1, 0]),
        (AlertFilter(text="case é"), [3]),
        (AlertFilter(text="c:\\temp"), [2]),
        (AlertFilter(text="' OR 1=1 --"), []),
        (AlertFilter(text=""), [1, 3, 2, 0]),
        (AlertFilter(since=NOON + timedelta(minutes=2)), [3, 2]),
        (AlertFilter(until=NOON + timedelta(minutes=2)), [1, 0]),
        (AlertFilter(text="raw", statuses=OPEN_STATUSES, levels=[Level.LOW]), [0]),
    ]
    for asked, expected in cases:
        page = store.queue(asked)
        assert (asked, numbers(page.items)) == (asked, expected)
        assert page.total == store.counts(asked).total == len(expected)


def test_counts_say_what_kind(store: AlertStore) -> None:
    store.record([alert(0, Level.LOW), alert(1, tenant="ch-quimper"), alert(2)], {})
    store.decide(alert(1).id, Status.CLOSED, "", "alice")
    counts = store.counts(EVERYTHING)
    assert counts.total == 3
    assert counts.by_level == {Level.HIGH: 2, Level.LOW: 1}
    assert counts.by_status == {Status.NEW: 2, Status.CLOSED: 1}
    assert counts.by_tenant == {"chu-brest": 2, "ch-quimper": 1}
    assert store.tenants() == ["ch-quimper", "chu-brest"]


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("record"), st.integers(0, 20), st.integers(1, 6)),
        st.tuples(st.just("decide"), st.integers(0, 25), st.integers(0, 4)),
        st.tuples(st.just("fail"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("ask"), st.integers(0, 2), st.just(0)),
    ),
    max_size=15,
)


@settings(max_examples=25, deadline=None)
@given(OPERATIONS)
def test_counts_kept_in_memory_are_those_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, int, int]]
) -> None:
    with AlertStore(tmp_path_factory.mktemp("counts") / "alerts.duckdb") as store:
        for step, (what, number, more) in enumerate(operations):
            if what == "record":
                made = [
                    alert(n, list(Level)[n % 5], tenant=f"CH-{n % 3}", host=f"PC-{n % 2}")
                    for n in range(number, number + more)
                ]
                store.record(made, {ALERTS: step})
            elif what == "decide":
                with suppress(AlertNotFound):
                    store.decide(alert(number).id, list(Status)[more], "", "alice")
            elif what == "fail":
                with suppress(StoreError):
                    store.record([alert(number + 100)], {ALERTS: 2**70})
            for asked in (EVERYTHING, AlertFilter(host="pc-1"), AlertFilter(statuses=OPEN_STATUSES, tenants=["CH-1"])):
                clause = clause_of(asked)
                held = int(str(store.database.select(f"SELECT count(*) {clause.sql}", clause.parameters)[0][0]))
                counts = store.counts(asked)
                assert counts.total == held == store.queue(asked).total
                assert sum(counts.by_level.values()) == sum(counts.by_tenant.values()) == counts.total
                assert 0 not in [*counts.by_level.values(), *counts.by_status.values(), *counts.by_tenant.values()]
        assert store.verify() == []


def test_text_is_sought_in_the_newest_alerts_and_the_page_says_so(path: Path) -> None:
    with AlertStore(path, searched=3) as store:
        store.record([alert(number) for number in range(10)], {})
        page = store.queue(AlertFilter(text="rule"))
        assert (numbers(page.items), page.total, page.searched) == ([9, 8, 7], 3, 3)
        assert store.counts(AlertFilter(text="rule")).total == 3
        # of the time that is asked for: older ones are found by asking for older ones
        older = AlertFilter(text="rule", until=NOON + timedelta(minutes=5))
        assert numbers(store.queue(older).items) == [4, 3, 2]
        few = AlertFilter(text="rule", since=NOON + timedelta(minutes=7))
        assert (numbers(store.queue(few).items), store.queue(few).searched) == ([9, 8, 7], None)
        first = store.queue(AlertFilter(text="rule"), 2)
        second = store.queue(AlertFilter(text="rule"), 2, first.next_cursor)
        assert (numbers(first.items), numbers(second.items), second.next_cursor) == ([9, 8], [7], None)
        assert store.queue(AlertFilter(text="rule", since=NOON + timedelta(days=9))).searched is None
        assert store.queue(EVERYTHING).searched is None


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(Level)), st.integers(0, 2)), max_size=12), st.integers(1, 4))
def test_pages_show_every_alert_once_though_others_arrive(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[tuple[Level, int]], limit: int
) -> None:
    alerts = [
        alert(number, level, timestamp=NOON + timedelta(microseconds=tick))
        for number, (level, tick) in enumerate(kinds)
    ]
    with AlertStore(tmp_path_factory.mktemp("pages") / "alerts.duckdb") as store:
        store.record(alerts, {})
        seen: list[int] = []
        cursor: str | None = None
        while True:
            page = store.queue(AlertFilter(text="rule "), limit, cursor)
            seen += numbers(page.items)
            cursor = page.next_cursor
            if cursor is None:
                break
            store.record([alert(1000 + len(seen), Level.CRITICAL, timestamp=NOON + timedelta(days=1))], {})
    worst_first = sorted(range(len(alerts)), key=lambda n: (-alerts[n].level.rank, -kinds[n][1], -n))
    assert seen == worst_first


@pytest.mark.parametrize(
    "cursor", ["", "?", "é", "e30", "WzEsMl0", "WzksMSwxXQ", "WzEsMSwiYSJd", "W3RydWUsMSwxXQ", "x" * 9999]
)
def test_a_cursor_of_another_make_is_refused(store: AlertStore, cursor: str) -> None:
    with pytest.raises(CursorError, match="not a page cursor"):
        store.queue(EVERYTHING, cursor=cursor)


@given(st.text(max_size=30))
@settings(max_examples=50, deadline=None)
def test_any_text_is_a_cursor_or_an_error(text: str) -> None:
    with suppress(CursorError):
        assert clause_of(EVERYTHING, text).parameters


@pytest.mark.parametrize("limit", [0, -1, LONGEST_PAGE + 1])
def test_a_page_has_a_size(store: AlertStore, limit: int) -> None:
    with pytest.raises(ValueError, match="a page has"):
        store.queue(EVERYTHING, limit)


def test_the_marker_changes_with_every_change_and_only_then(store: AlertStore) -> None:
    marks = [store.marker]
    store.record([alert(1)], {ALERTS: 1})
    marks.append(store.marker)
    store.decide(alert(1).id, Status.CLOSED, "", "alice")
    marks.append(store.marker)
    assert len(set(marks)) == 3
    store.record([alert(1)], {ALERTS: 2})
    store.queue(EVERYTHING)
    assert store.marker == marks[-1]


def test_the_marker_does_not_count_what_was_rolled_back(store: AlertStore) -> None:
    store.record([alert(1)], {})
    before = store.marker
    with pytest.raises(StoreError):
        store.record([alert(2)], {ALERTS: 2**70})
    assert store.marker == before
    assert store.record([alert(2)], {ALERTS: 2}) == 1
    assert store.marker != before
    assert numbers(store.queue(EVERYTHING).items) == [2, 1]


def test_the_marker_is_never_ahead_of_what_a_reader_sees(store: AlertStore) -> None:
    def look() -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        while not found or found[-1][1] < 100:
            promised = int(store.marker.split(".")[0])
            found.append((promised, store.counts(EVERYTHING).total))
        return found

    with ThreadPoolExecutor(1) as pool:
        looks = pool.submit(look)
        for number in range(100):
            store.record([alert(number)], {ALERTS: number + 1})
    assert [(promised, seen) for promised, seen in looks.result() if promised > seen] == []


def test_export_is_read_by_other_tools(store: AlertStore, tmp_path: Path) -> None:
    store.record([alert(1), alert(2)], {})
    store.decide(alert(2).id, Status.CLOSED, "done", "alice")
    alerts, decisions = store.export_parquet(tmp_path / "out")
    assert pl.read_parquet(alerts).select("rule_title", "status").rows() == [("Rule 1", "new"), ("Rule 2", "closed")]
    assert pl.read_parquet(decisions)["note"].to_list() == ["done"]
    assert sorted(found.name for found in (tmp_path / "out").iterdir()) == ["alerts.parquet", "decisions.parquet"]
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot export"):
        store.export_parquet(tmp_path / "file")


# The file


def test_threads_share_a_store(store: AlertStore) -> None:
    store.record([alert(0)], {})

    def work(number: int) -> None:
        store.record([alert(number), alert(number + 1)], {Partition("t", number): number})
        store.decide(alert(0).id, Status.IN_PROGRESS, str(number), "alice")
        store.queue(AlertFilter(text="rule"))
        store.counts(EVERYTHING)
        store.get(alert(number).id)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(1, 41)))
    rows = store.queue(EVERYTHING, LONGEST_PAGE).items
    assert sorted(numbers(rows)) == list(range(42))
    assert len({row.n for row in rows}) == 42
    assert len(store.journal(alert(0).id)) == 40
    assert store.verify_journal() is None


def test_what_was_stored_is_there_after_a_restart(path: Path) -> None:
    for opening in range(1, 4):
        with AlertStore(path) as store:
            store.record([alert(opening)], {ALERTS: opening})
            store.decide(alert(1).id, Status.CLOSED, "", "alice")
    with AlertStore(path) as store:
        assert sorted(row.n for row in store.queue(EVERYTHING).items) == [1, 2, 3]
        assert store.journal_head()[0] == 3
        assert store.position(ALERTS) == 3


WRITER_SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from storage.alerts import AlertStore
from test_storage_alerts import ALERTS, alert
store = AlertStore(Path(sys.argv[1]))
start = store.position(ALERTS) or 0
for batch in range(start, 10_000):
    store.record([alert(number) for number in range(batch * 5, batch * 5 + 5)], {ALERTS: batch + 1})
    print(batch + 1, flush=True)
"""


def start_writer(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER_SCRIPT, str(path)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def test_a_writer_killed_at_any_moment_loses_and_repeats_nothing(path: Path) -> None:
    said = 0
    for delay in (0.0, 0.11, 0.037):
        with start_writer(path) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline()
            time.sleep(delay)
            os.kill(writer.pid, signal.SIGKILL)
            said = max([said, *map(int, writer.stdout.read().split())])
        with AlertStore(path) as store:
            position = store.position(ALERTS)
            assert position is not None
            assert position >= said
            assert store.counts(EVERYTHING).total == position * 5
            assert store.get(alert(position * 5 - 1).id) is not None
            assert store.get(alert(position * 5).id) is None


def test_the_file_is_read_ahead(store: AlertStore, path: Path) -> None:
    store.record([alert(number) for number in range(100)], {})
    store.close()
    assert read_ahead(path, 60.0) == path.stat().st_size
    assert read_ahead(path, 0.0) == 0
    assert read_ahead(path.with_name("none"), 60.0) == 0


def test_a_second_process_is_told_who_holds_the_file(path: Path) -> None:
    with start_writer(path) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline()
        with pytest.raises(StoreError) as refused:
            AlertStore(path)
        writer.kill()
    said = str(refused.value)
    assert str(path) in said
    assert f"process {writer.pid}" in said
    assert "\n" not in said


def test_a_file_that_is_no_store_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "garbage").write_bytes(b"not a database" * 100)
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "garbage", tmp_path / "file" / "alerts.duckdb"):
        with pytest.raises(StoreError, match=str(path)) as refused:
            AlertStore(path)
        assert "\n" not in str(refused.value)


def test_a_store_of_a_newer_version_is_refused(path: Path) -> None:
    AlertStore(path).close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("INSERT INTO migrations VALUES (99, now())")
    with pytest.raises(StoreError, match="version 99"):
        AlertStore(path)


def test_a_failed_write_stores_nothing_and_the_next_one_works(store: AlertStore) -> None:
    with pytest.raises(StoreError, match="cannot record alerts"):
        store.record([alert(1)], {Partition("t", 2**40): 1})  # a partition number that no bus has
    assert store.counts(EVERYTHING).total == 0
    assert store.record([alert(1)], {ALERTS: 1}) == 1
    assert store.counts(EVERYTHING).total == 1


def test_the_database_reaches_no_other_file(store: AlertStore) -> None:
    for statement in ("SELECT * FROM read_csv('/etc/hostname')", "SET enable_external_access = true", "LOAD httpfs"):
        with pytest.raises(StoreError):
            store._database.select(statement)
