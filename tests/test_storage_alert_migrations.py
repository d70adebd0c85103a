from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from ingest.bus import Partition
from storage import migrations
from storage.alert import Level, Status
from storage.alert_queue import OPEN_STATUSES, AlertFilter
from storage.alerts import AlertStore
from storage.errors import StoreError
from storage.journal import GENESIS, entry_hash
from storage.migrations import MIGRATIONS, migrate
from storage.source_store import SourceStore

NOON = datetime(2026, 8, 27, 12, tzinfo=UTC)
NEWEST = len(MIGRATIONS)

ALERTS_1 = """INSERT INTO alerts
    (n, id, rule_id, rule_title, level, tenant, timestamp, received, logsource, host, event_ids, matched, event,
    original, tags) VALUES
    (1, 'a1', 'r1', 'Ä', 'low', 'CH', '2026-08-27 10:00:00+00', '2026-08-27 10:00:01+00', 'a/b/c', 'PC-É', ['e'],
    '{}', '{}', 'line', []),
    (2, 'a2', 'r2', 'B', 'critical', 'CH', '2026-08-27 11:00:00+00', '2026-08-27 11:00:01+00', 'a/b/c', NULL, [],
    '{"x":null}', '{"x":"y"}', 'line 2', ['attack.t1'])"""
SOURCES_3 = """INSERT INTO sources VALUES (1, 'CH', '192.0.2.1', 'pc', 'linux', 5, 5, 0, 0, 99,
    '2026-08-27 10:00:00+00', '2026-08-27 10:00:00+00', NULL, NULL, NULL)"""


def fill(connection: duckdb.DuckDBPyConnection, version: int) -> None:
    """Rows as a Tocsin of that version wrote them: two alerts, one of them decided on twice."""
    connection.execute(ALERTS_1)
    connection.execute("INSERT INTO positions VALUES ('tocsin.alerts', 0, 7)")
    previous = GENESIS
    for seq, status in ((1, "in_progress"), (2, "false_positive")):
        digest = entry_hash(previous, seq, "a2", NOON, "alice", status, "why")
        row = [seq, "a2", NOON, "alice", status, "why", previous, digest]
        connection.execute("INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        previous = digest
    if version >= 2:
        evidence = '[{"event_id":"e","timestamp":"2026-08-27T10:00:00+00:00","rule_title":"t","host":null,"user":null,'
        connection.execute("UPDATE alerts SET evidence = ? WHERE n = 1", [evidence + '"source_ip":null,"matched":{}}]'])
    if version >= 3:
        connection.execute(SOURCES_3)
    states = ("'new'", "'false_positive'") if version < 4 else ("0", "3")
    host = "'PC-É'" if version < 4 else "'pc-é'"
    connection.execute(
        "INSERT INTO state SELECT n, tenant, CASE level WHEN 'low' THEN 1 ELSE 4 END, timestamp, rule_id, "  # noqa: S608
        f"CASE n WHEN 1 THEN {host} END, CASE n WHEN 1 THEN {states[0]} ELSE {states[1]} END, "
        "CASE n WHEN 2 THEN 2 END FROM alerts"
    )


def old_store(path: Path, version: int) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        migrate(connection, NOON, version)
        fill(connection, version)


@pytest.mark.parametrize("version", range(1, NEWEST + 1))
def test_a_store_of_every_older_version_keeps_all_it_has(tmp_path: Path, version: int) -> None:
    path = tmp_path / "alerts.duckdb"
    old_store(path, version)
    with AlertStore(path) as store:
        assert store.verify() == []
        assert store.database.number("SELECT max(version) FROM migrations") == NEWEST
        rows = store.queue(AlertFilter()).items
        assert [(row.alert.id, row.status, row.decision_seq) for row in rows] == [
            ("a2", Status.FALSE_POSITIVE, 2),
            ("a1", Status.NEW, None),
        ]
        assert [row.alert.id for row in store.queue(AlertFilter(host="pc-É")).items] == ["a1"]
        assert [row.alert.id for row in store.queue(AlertFilter(statuses=OPEN_STATUSES)).items] == ["a1"]
        assert len(rows[1].alert.evidence) == (1 if version >= 2 else 0)
        assert store.counts(AlertFilter()).by_level == {Level.LOW: 1, Level.CRITICAL: 1}
        assert store.position(Partition("tocsin.alerts", 0)) == 7
        assert len(SourceStore(store.database).rows(NOON)) == (1 if version >= 3 else 0)
        store.decide("a1", Status.CLOSED, "", "bob", expected_seq=0)
        assert store.verify() == []


def test_a_failed_step_leaves_the_version_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "alerts.duckdb"
    old_store(path, NEWEST - 1)
    broken = (*MIGRATIONS[:-1], (*MIGRATIONS[-1], "INSERT INTO no_such_table VALUES (1)"))
    monkeypatch.setattr(migrations, "MIGRATIONS", broken)
    with pytest.raises(StoreError, match="no_such_table") as refused:
        AlertStore(path)
    assert "\n" not in str(refused.value)
    with duckdb.connect(str(path)) as connection:
        assert connection.execute("SELECT max(version) FROM migrations").fetchall() == [(NEWEST - 1,)]
        assert connection.execute("SELECT status FROM state ORDER BY n").fetchall() == [("new",), ("false_positive",)]
    monkeypatch.undo()
    with AlertStore(path) as store:
        assert store.verify() == []


def test_an_upgrade_killed_at_any_moment_begins_again(tmp_path: Path) -> None:
    path = tmp_path / "alerts.duckdb"
    old_store(path, 1)
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "INSERT INTO alerts SELECT range, range::VARCHAR, rule_id, rule_title, level, tenant, timestamp, received, "
            'logsource, host, "user", source_ip, destination_ip, event_ids, matched, event, original, tags '
            "FROM alerts, range(3, 60003) WHERE n = 1"
        )
        connection.execute(
            "INSERT INTO state SELECT n, tenant, 1, timestamp, rule_id, host, 'new', NULL FROM alerts WHERE n > 2"
        )
    script = (
        "import sys; from pathlib import Path; from storage.alerts import AlertStore; print('go', flush=True); "
        "AlertStore(Path(sys.argv[1]))"
    )
    for delay in (0.01, 0.05, 0.1, 0.15, 0.2, 0.3):
        command = [sys.executable, "-c", script, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).resolve().parent.parent) as upgrade:
            assert upgrade.stdout is not None
            assert upgrade.stdout.readline()
            time.sleep(delay)
            os.kill(upgrade.pid, signal.SIGKILL)
    with AlertStore(path) as store:
        assert store.verify() == []
        assert store.counts(AlertFilter()).total == 60_002
        assert store.queue(AlertFilter(), limit=1).items[0].decision_seq == 2


@pytest.mark.parametrize("read_only", [False, True])
def test_a_store_of_a_newer_version_is_refused_and_stays_as_it_is(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "alerts.duckdb"
    AlertStore(path).close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("INSERT INTO migrations VALUES (99, now())")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="version 99"):
        SourceStore.read_only(path).__enter__() if read_only else AlertStore(path)
    assert path.read_bytes() == before
