"""How the alert store fares with ten million alerts: what a page costs, what intake costs, memory, backup and restore.

    python benchmarks/alert_store.py [--alerts 10000000] [--folder DIR] [--keep] [--out benchmarks/ALERT_STORE.md]

Alerts are made by SQL (a few minutes for ten million): 100 hospitals, 3,500 rules, 20,000 hosts, 30,000 users, a raw
line of some 230 characters, one in ten still open, a decision on one in a hundred. "Cold" is the first answer of a
fresh process after the system's file cache was dropped (where that is allowed); "started" is the first answer of a
process that had some seconds to read the file ahead, as the console does; p50 and p99 are of the answers after it, each
after a write, so that nothing counted before is of use.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from ingest.bus import Partition
from storage.alert import Alert, Level, Status, alert_id
from storage.alert_database import read_ahead
from storage.alert_queue import OPEN_STATUSES, AlertFilter
from storage.alert_restore import restore
from storage.alerts import AlertStore
from storage.journal import GENESIS, entry_hash

STEP = 500_000
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
EVERY = timedelta(seconds=3)
ALERTS = Partition("tocsin.alerts", 0)
RUNS = 20
STARTED = 15.0
"""Seconds that a process has before its first answer counts as that of a started one."""

PAGE = 50

MAKE = r"""
INSERT INTO alerts BY NAME
SELECT n, md5(n::VARCHAR) AS id, 'rule-' || h % 3500 AS rule_id, 'Suspicious thing number ' || h % 3500 AS rule_title,
    CASE WHEN k < 40 THEN 'informational' WHEN k < 65 THEN 'low' WHEN k < 90 THEN 'medium' WHEN k < 99 THEN 'high'
        ELSE 'critical' END AS level,
    'hospital-' || (h // 7) % 100 AS tenant,
    make_timestamptz(({begun} + n * {every} + h % 600000000)::BIGINT) AS timestamp,
    make_timestamptz(({begun} + n * {every} + 600000000)::BIGINT) AS received,
    'windows/process_creation/sysmon' AS logsource, 'PC-' || (h // 11) % 20000 AS host,
    'user-' || (h // 13) % 30000 AS "user", '192.0.2.' || h % 250 AS source_ip, NULL AS destination_ip,
    ['tocsin.raw:0:' || n || ':0'] AS event_ids, '{{"Image":"C:\\Windows\\x' || h % 1000 || '.exe"}}' AS matched,
    '{{"Image":"C:\\Windows\\x' || h % 1000 || '.exe","CommandLine":"x.exe /run ' || md5(h::VARCHAR) || '"}}' AS event,
    '<13>1 2026-08-27T12:00:00Z PC-' || (h // 11) % 20000 || ' Microsoft-Windows-Sysmon 1 - - Process Create: Image: '
        || 'x' || h % 1000 || '.exe CommandLine: x.exe /run ' || md5(h::VARCHAR) || md5((h + 1)::VARCHAR)
        || md5((h + 2)::VARCHAR) AS original,
    ['attack.t1105'] AS tags, '[]' AS evidence
FROM (
    SELECT n, hash(n) % 1000000007 AS h, hash(n + 7) % 100 AS k
    FROM (SELECT range + 1 AS n FROM range({first}, {last}))
)
"""
DECIDE = "SELECT n, id FROM alerts WHERE n > ? AND n <= ? AND n % 100 = 1 ORDER BY n"


def make(path: Path, alerts: int, memory: str) -> None:
    """Fill a new store. Nine in ten alerts are closed by the state alone, as if decided on before the journal began."""
    microseconds = int(EVERY / timedelta(microseconds=1))
    with AlertStore(path, memory_limit=memory) as store:
        previous, seq = GENESIS, 0
        for first in range(0, alerts, STEP):
            last = min(alerts, first + STEP)
            sql = MAKE.format(begun=int(BEGUN.timestamp()) * 10**6, every=microseconds, first=first, last=last)
            with store.database.transaction("fill") as connection:
                connection.execute(sql)
                decided = []
                for _, id_ in connection.execute(DECIDE, [first, last]).fetchall():
                    seq += 1
                    digest = entry_hash(previous, seq, id_, BEGUN, "alice", Status.CLOSED, "known")
                    decided.append((seq, id_, "alice", "closed", "known", previous, digest))
                    previous = digest
                rows = json.dumps(decided)
                connection.execute(
                    "INSERT INTO decisions SELECT (v->>0)::BIGINT, v->>1, make_timestamptz(?::BIGINT), v->>2, v->>3, "
                    "v->>4, v->>5, v->>6 FROM (SELECT unnest(?::JSON[]) AS v)",
                    [int(BEGUN.timestamp()) * 10**6, rows],
                )
        store.rebuild_state()
        with store.database.transaction("close") as connection:
            connection.execute("UPDATE state SET status = 4 WHERE n % 10 != 0")


def questions(newest: datetime) -> dict[str, AlertFilter]:
    """What the console offers to filter by."""
    still = AlertFilter(statuses=OPEN_STATUSES)
    return {
        "open (the first page)": still,
        "all": AlertFilter(),
        "open, critical": replace(still, levels=[Level.CRITICAL]),
        "open, one hospital": replace(still, tenants=["hospital-7"]),
        "one rule, open": replace(still, rule_id="rule-77"),
        "one rule, all": AlertFilter(rule_id="rule-77"),
        "one host, all": AlertFilter(host="pc-77"),
        "open, last 24 hours": replace(still, since=newest - timedelta(days=1)),
        "all, last 30 days": AlertFilter(since=newest - timedelta(days=30)),
        "text, open": replace(still, text="pc-77 "),
        "text, all, found": AlertFilter(text="user-7"),
        "text, all, not found": AlertFilter(text="nothing like it"),
        "text, last 24 hours": AlertFilter(text="pc-77", since=newest - timedelta(days=1)),
    }


def page(store: AlertStore, asked: AlertFilter) -> None:
    """What the console asks for one page: rows, total, the total of all statuses, counts by level, hospitals."""
    store.queue(asked, PAGE)
    store.counts(replace(asked, statuses=None))
    store.counts(replace(asked, levels=None))
    store.tenants()


def timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


def spread(times: Sequence[float]) -> str:
    """The median and the 99th percentile."""
    ordered = sorted(times)
    return f"{ordered[len(ordered) // 2]:.0f} | {ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]:.0f}"


def resident() -> int:
    """MiB of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20


def cooled() -> bool:
    """Drop the system's file cache; whether that was allowed."""
    try:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def fresh(number: int) -> Alert:
    """An alert as it comes off the bus."""
    return Alert(
        id=alert_id("rule-5", "hospital-3", f"{number}"),
        rule_id="rule-5",
        rule_title="Suspicious thing number 5",
        level=Level.HIGH,
        tenant="hospital-3",
        timestamp=datetime.now(UTC),
        received=datetime.now(UTC),
        logsource="windows/process_creation/sysmon",
        host="PC-5",
        original="x" * 230,
    )


def first_answer(path: Path, memory: str, name: str, wait: float) -> None:
    """In a process of its own: what one page costs cold, or after reading ahead, on stdout."""
    asked = questions(BEGUN + EVERY * newest_of(path))[name]
    cooled()
    if wait:
        read_ahead(path, wait)
        time.sleep(wait)
    opening = time.perf_counter()
    with AlertStore(path, memory_limit=memory) as store:
        opened = (time.perf_counter() - opening) * 1000
        sys.stdout.write(json.dumps({"open": opened, "page": timed(lambda: page(store, asked)), "rss": resident()}))


def newest_of(path: Path) -> int:
    """How many alerts a store was made with."""
    return int(path.with_suffix(".count").read_text())


def first(path: Path, memory: str, name: str, wait: float) -> dict[str, float]:
    """What `first_answer` says."""
    command = [sys.executable, __file__, "--first", name, "--wait", str(wait), "--file", str(path), "--memory", memory]
    said: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return said


def report(path: Path, memory: str, made: float) -> list[str]:
    """Measure, and say it in Markdown."""
    alerts = newest_of(path)
    newest = BEGUN + EVERY * alerts
    asked = questions(newest)
    firsts = {name: first(path, memory, name, 0.0) for name in asked}
    started = {name: first(path, memory, name, STARTED) for name in asked}
    size = path.stat().st_size
    dropped = "was" if cooled() else "could not be"
    about = (
        f"{alerts:,} alerts; {size / 1e9:.2f} GB on disk ({size / alerts:.0f} bytes an alert, indexes included); made "
        f"in {made:.0f} s. `alerts.memory_limit` {memory}; {os.cpu_count()} cores, Python {platform.python_version()}; "
        f"the file cache {dropped} dropped for the cold figures."
    )
    opening = (
        f"Opening, cold: {max(said['open'] for said in firsts.values()):.0f} ms at most; "
        f"{firsts['all']['rss']:.0f} MiB resident after the first page."
    )
    lines = [
        "# The alert store with many alerts",
        "",
        "Made by `benchmarks/alert_store.py`, which says what is in it and what is measured.",
        "",
        about,
        "",
        opening,
        "",
        "## A page of 50: rows, total, all-time total, counts by level, hospitals (milliseconds)",
        "",
        "| filter | cold | started | p50 | p99 |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    with AlertStore(path, memory_limit=memory) as store:
        for name, question in asked.items():
            times = []
            for run in range(RUNS):
                store.record([fresh(-run - 1 - hash(name) % 10**9)], {})  # so that nothing counted before is of use
                times.append(timed(partial(page, store, question)))
            lines.append(f"| {name} | {firsts[name]['page']:.0f} | {started[name]['page']:.0f} | {spread(times)} |")
        searched = store.queue(AlertFilter(text="x")).searched
        if searched:
            lines += ["", f"Text is sought in the newest {searched:,} alerts of the time that is asked for."]
        lines += [*_intake(store), *_memory(store)]
    lines += _backup(path, memory)
    return lines


def _intake(store: AlertStore) -> list[str]:
    batches = [[fresh(batch * 64 + number) for number in range(64)] for batch in range(300)]
    begun = time.perf_counter()
    new = [timed(partial(store.record, batch, {ALERTS: place})) for place, batch in enumerate(batches)]
    rate = 300 * 64 / (time.perf_counter() - begun)
    known = [timed(partial(store.record, batch, {ALERTS: 300})) for batch in batches[:50]]
    rows = store.queue(AlertFilter(statuses=OPEN_STATUSES), 200).items
    decide = [timed(partial(store.decide, row.alert.id, Status.CLOSED, "x", "alice")) for row in rows]
    get = [timed(partial(store.get, row.alert.id)) for row in rows]
    return [
        "",
        "## Writing (milliseconds)",
        "",
        "| what | p50 | p99 |",
        "| --- | ---: | ---: |",
        f"| 64 new alerts and their offset, durable ({rate:,.0f} alerts/s) | {spread(new)} |",
        f"| 64 alerts that are known | {spread(known)} |",
        f"| a decision | {spread(decide)} |",
        f"| reading one alert | {spread(get)} |",
    ]


def _memory(store: AlertStore) -> list[str]:
    found = store.database.select(
        "SELECT tag, memory_usage_bytes // 1048576 FROM duckdb_memory() "
        "WHERE memory_usage_bytes > 1048576 ORDER BY 2 DESC"
    )
    parts = ", ".join(f"{tag} {size} MiB" for tag, size in found)
    return ["", f"After all that: {resident()} MiB resident; of DuckDB's: {parts}."]


def _backup(path: Path, memory: str) -> list[str]:
    folder = path.parent / "backups"
    with AlertStore(path, memory_limit=memory) as store:
        verified = timed(store.verify) / 1000
        begun = time.perf_counter()
        backup = store.backup(folder)
        took = time.perf_counter() - begun
        during = resident()
    begun = time.perf_counter()
    restore(backup.folder, path.with_name("restored.duckdb"), memory)
    restored = time.perf_counter() - begun
    said = (
        f"Backup {took:.0f} s, {backup.bytes / 1e9:.2f} GB, {during} MiB resident; restore, with all checks, "
        f"{restored:.0f} s; `tocsin alerts verify` {verified:.0f} s."
    )
    return ["", "## Backup and restore", "", said]


def main() -> None:
    """Make, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alerts", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--keep", action="store_true", help="keep the store that was made")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "ALERT_STORE.md")
    parser.add_argument("--first", help=argparse.SUPPRESS)
    parser.add_argument("--wait", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.first:
        first_answer(chosen.file, chosen.memory, chosen.first, chosen.wait)
        return
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="tocsin-alerts-"))
    try:
        path = folder / "alerts.duckdb"
        path.with_suffix(".count").write_text(str(chosen.alerts))
        made = timed(lambda: None if path.exists() else make(path, chosen.alerts, chosen.memory)) / 1000
        chosen.out.write_text("\n".join(report(path, chosen.memory, made)) + "\n")
    finally:
        if not chosen.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
