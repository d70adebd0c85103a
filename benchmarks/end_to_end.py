"""From syslog over TCP to lake and alerts, with a real Kafka: how many lines a second, how late an alert, at what cost.

    python -m benchmarks.end_to_end [--lines 400000] [--workers 1] [--loads 0.1 0.5 1.0] [--seconds 60]
    python -m benchmarks.end_to_end --suite

Hospitals send over one TCP connection each, RFC 5424 lines, octet-counted (`benchmarks.region_lines` says which). Every
process is one of its own, as the units run them: collect, detect (one or more), correlate, console, and one broker; all
share the cores with the senders. Rules: all of SigmaHQ's and the product's own.

1. As fast as it is taken, after a first round that is not counted: from the first line sent until all are in the lake
   and all alerts of them in the store.
2. At a share of that rate: how long from sending a line that a plain rule matches until the console's API has it, asked
   ten times a second. At the whole rate the queue may grow; how long it took to empty afterwards is said.
3. What the lake takes for it, before and after compaction, against the bytes that were sent.

CPU seconds are those of each process (user and system, /proc). A line counts as in the lake when the group that reads
`tocsin.raw` has committed it, and the rows of the lake are counted at the end against the lines sent.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import socket
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from benchmarks.region import MARK_RULE, Region, await_drained
from benchmarks.region_lines import line_pool
from ingest.bus import Bus
from storage.lake import Lake
from storage.lake_compact import compact
from tocsin.settings_sections import LakeSection
from tocsin.text_table import table_lines

POOL: Final = 200_000
"""Lines made beforehand; when they are through, they are sent again."""
BLOCK: Final = 200
"""Lines of one write to a connection."""
FIGURES: Final = Path(__file__).parent / "figures" / "end_to_end.json"
MARKS_A_SECOND: Final = 4
FILE_BYTES: Final = LakeSection().file_bytes


@dataclass
class Latency:
    """Seconds from sending a line to its alert in the console's API, at some load."""

    share: float
    rate: float
    marks: int
    seen: int
    p50: float
    p99: float
    longest: float
    last_tenth: float  # median of the last tenth of the marks: higher than p50 if the queue grew
    emptied_after: float  # from the last line sent until all was through


@dataclass
class Result:
    """What a run gave; times in seconds."""

    workers: int
    lines: int
    raw_bytes: int
    wall: float = 0.0
    rate: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    sent: int = 0
    rows: int = 0
    alerts: int = 0
    sent_bytes: int = 0
    lake_files: int = 0
    lake_bytes: int = 0
    lake_files_compacted: int = 0
    lake_bytes_compacted: int = 0
    latency: list[Latency] = field(default_factory=list)


class Senders:
    """Lines over all connections in turn, at most so many a second (0: as fast as they are taken)."""

    def __init__(self, ports: Sequence[int], lines: Sequence[bytes]) -> None:
        self.sent = 0
        self.bytes = 0
        self._ports = ports
        self._lines = lines

    def start(self, total: int, rate: float = 0.0) -> tuple[threading.Thread, threading.Event]:
        """Begin; setting the event ends it early."""
        stop = threading.Event()
        thread = threading.Thread(target=self._work, args=(total, rate, stop), daemon=True)
        thread.start()
        return thread, stop

    def _work(self, total: int, rate: float, stop: threading.Event) -> None:
        with contextlib.ExitStack() as opened:
            channels = [opened.enter_context(socket.create_connection(("127.0.0.1", port))) for port in self._ports]
            begun, done, turn = time.monotonic(), 0, 0
            block = min(BLOCK, max(1, int(rate / 20))) if rate else BLOCK
            while done < total and not stop.is_set():
                first = self.sent % len(self._lines)
                part = self._lines[first : first + min(block, total - done)]
                content = b"".join(part)
                channels[turn % len(channels)].sendall(content)
                done += len(part)
                turn += 1
                self.sent += len(part)
                self.bytes += len(content)
                if rate:
                    time.sleep(max(0.0, begun + done / rate - time.monotonic()))
            for channel in channels:
                channel.shutdown(socket.SHUT_WR)
                while channel.recv(1024):
                    pass


class Watch:
    """When the console's API first showed each mark."""

    def __init__(self, console: int) -> None:
        self.seen: dict[str, float] = {}
        self._url = f"http://127.0.0.1:{console}/api/alerts?rule_id={MARK_RULE}&limit=200"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._ended.wait(0.1):
            with contextlib.suppress(TimeoutError), urllib.request.urlopen(self._url, timeout=30) as answer:  # noqa: S310
                items = json.load(answer)["items"]
                now = time.monotonic()
                for item in items:
                    self.seen.setdefault(str(item["host"]), now)

    def end(self) -> None:
        """Ask no more."""
        self._ended.set()
        self._thread.join()


def latency(region: Region, bus: Bus, senders: Senders, share: float, rate: float, seconds: float) -> Latency:
    """Marks sent beside a load of `rate` lines a second, from when it has run for a while."""
    before = min(15.0, seconds / 4)
    load, stop = senders.start(int(rate * (before + seconds) * 2), rate)
    time.sleep(before)
    watch = Watch(region.console)
    sent: dict[str, float] = {}
    with socket.create_connection(("127.0.0.1", region.ports[0])) as channel:
        begun = time.monotonic()
        for number in range(int(seconds * MARKS_A_SECOND)):
            name = f"mark{int(share * 100)}-{number}"
            now = time.time()
            moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
            text = f"<134>1 {moment} {name} app - - - benchmark mark of tocsin {name}".encode()
            sent[name] = time.monotonic()
            channel.sendall(b"%d %b" % (len(text), text))
            senders.bytes += len(text)
            time.sleep(max(0.0, begun + (number + 1) / MARKS_A_SECOND - time.monotonic()))
        channel.shutdown(socket.SHUT_WR)
    stop.set()
    load.join()
    ended = time.monotonic()
    emptied = await_drained(bus)
    time.sleep(1)  # the last answer
    watch.end()
    took = [watch.seen[name] - moment for name, moment in sent.items() if name in watch.seen]
    cuts = statistics.quantiles(took, n=100, method="inclusive")
    late = statistics.median(took[-max(1, len(took) // 10) :])
    return Latency(share, rate, len(sent), len(took), cuts[49], cuts[98], max(took), late, max(0.0, emptied - ended))


def lake_files(folder: Path) -> tuple[int, int]:
    """Number and bytes of the Parquet files that the lake's tables name now."""
    sizes = [
        int(size)
        for snapshot in Lake(folder).snapshots()
        for size in snapshot.delta.get_add_actions(flatten=True)["size_bytes"].to_pylist()
    ]
    return len(sizes), sum(sizes)


def run(workers: int, lines: int, loads: Sequence[float], seconds: float, options: argparse.Namespace) -> Result:
    """One region, measured."""
    folder = Path(tempfile.mkdtemp(prefix="tocsin-end-", dir=options.folder))
    region = Region(folder, workers)
    pool = line_pool(min(lines, POOL), region.rules, options.alerting)
    senders = Senders(region.ports, pool)
    result = Result(workers, lines, 0)
    try:
        bus = region.start()
        senders.start(max(2000, lines // 20))[0].join()
        await_drained(bus)
        before, begun, sent = region.cpu(), time.monotonic(), senders.bytes
        senders.start(lines)[0].join()
        result.wall = await_drained(bus) - begun
        after = region.cpu()
        result.raw_bytes = senders.bytes - sent
        result.rate = lines / result.wall
        result.cpu = {name: round(after[name] - before[name], 2) for name in after}
        say(result)
        for share in loads:
            result.latency.append(latency(region, bus, senders, share, result.rate * share, seconds))
            print(result.latency[-1], flush=True)
        result.memory = region.memory()
        with urllib.request.urlopen(f"http://127.0.0.1:{region.console}/api/alerts?limit=1", timeout=60) as answer:
            result.alerts = json.load(answer)["total"]
        bus.close()
    finally:
        region.stop()
    result.sent = senders.sent + sum(found.marks for found in result.latency)
    result.sent_bytes = senders.bytes
    measure_lake(region, result)
    if not options.keep:
        shutil.rmtree(folder)
    return result


def measure_lake(region: Region, result: Result) -> None:
    """Rows, and bytes before and after compaction."""
    folder = region.folder / "data" / "lake"
    result.lake_files, result.lake_bytes = lake_files(folder)
    lake = Lake(folder)
    for table in lake.snapshots():  # as of tomorrow, when no more files come into these days
        compact(lake.place, table.path, file_bytes=FILE_BYTES, now=lambda: datetime.now(UTC) + timedelta(days=1))
    result.lake_files_compacted, result.lake_bytes_compacted = lake_files(folder)
    result.rows = lake.count()


def say(result: Result) -> None:
    """The first figures, at once."""
    print(f"{result.lines:,} lines in {result.wall:.1f} s: {result.rate:,.0f} lines/s with {result.workers} workers")
    print(f"  CPU seconds {result.cpu}", flush=True)


def told(results: Sequence[Result]) -> list[str]:
    """The tables for people."""
    heads = ["workers", "lines/s", "MB/s", "CPU us/line", "detect", "correlate", "console", "collect", "broker"]
    rows: list[list[str]] = []
    for one in results:
        spent = {name: 1e6 * cpu / one.lines for name, cpu in one.cpu.items()}
        detect = sum(cpu for name, cpu in spent.items() if name.startswith("detect"))
        total = sum(cpu for name, cpu in spent.items() if name != "senders")
        parts = (total, detect, *(spent.get(name, 0.0) for name in heads[5:]))
        rate = [f"{one.rate:,.0f}", f"{one.raw_bytes / one.wall / 1e6:.1f}"]
        rows.append([str(one.workers), *rate, *(f"{part:.0f}" for part in parts)])
    lines = [*table_lines(heads, rows, numbers=range(len(heads))), ""]
    heads = ["workers", "load", "lines/s", "p50 s", "p99 s", "longest s", "last tenth s", "emptied after s", "seen"]
    rows = [
        [
            *(str(one.workers), f"{found.share:.0%}", f"{found.rate:,.0f}", f"{found.p50:.2f}", f"{found.p99:.2f}"),
            *(f"{found.longest:.2f}", f"{found.last_tenth:.2f}", f"{found.emptied_after:.1f}"),
            f"{found.seen}/{found.marks}",
        ]
        for one in results
        for found in one.latency
    ]
    lines += [*table_lines(heads, rows, numbers=range(len(heads))), ""]
    heads = ["workers", "sent", "in the lake", "alerts", "raw B/line", "lake B/line", "compacted", "files", "compacted"]
    rows = [
        [
            *(str(one.workers), f"{one.sent:,}", f"{one.rows:,}", f"{one.alerts:,}"),
            *(f"{size / one.sent:.0f}" for size in (one.sent_bytes, one.lake_bytes, one.lake_bytes_compacted)),
            *(str(one.lake_files), str(one.lake_files_compacted)),
        ]
        for one in results
    ]
    return [*lines, *table_lines(heads, rows, numbers=range(len(heads)))]


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", action="store_true", help="loads with 1 worker; then 1, 2 and 4 without")
    parser.add_argument("--lines", type=int, default=400_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--loads", type=float, nargs="*", default=[0.1, 0.5, 1.0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--alerting", type=float, default=0.001, help="share of the lines that some rule matches")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--output", type=Path, default=None, help=f"JSON; with --suite {FIGURES.name} by default")
    parser.add_argument("--keep", action="store_true")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure, print, and keep."""
    options = options_of()
    runs = [(options.workers, options.lines, options.loads)]
    if options.suite:
        runs = [(1, options.lines, options.loads), *((workers, options.lines // 2, []) for workers in (1, 2, 4))]
    results = [run(*asked, options.seconds, options) for asked in runs]
    about = {"cores": os.cpu_count(), "python": platform.python_version(), "alerting": options.alerting}
    text = json.dumps({**about, "runs": [asdict(result) for result in results]}, indent=1)
    print(text)
    print("\n".join(told(results)))
    output = options.output or (FIGURES if options.suite else None)
    if output is not None:
        output.write_text(text + "\n")


if __name__ == "__main__":
    main()
