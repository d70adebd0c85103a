"""The embedded bus alone: several processes on one file, sudden death, leases, files that are not a bus, retention."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest.bus import BusError, Message, Partition, Record, Subscription
from ingest.bus_embedded import MAX_VALUE_BYTES, EmbeddedBus
from ingest.bus_embedded_file import SCHEMA_VERSION
from ingest.bus_embedded_subscription import MAX_POLL_BYTES

PATIENCE = 30.0
TOPIC = "t"

PUBLISHER = """
import sys
from pathlib import Path
from ingest.bus import Message
from ingest.bus_embedded import EmbeddedBus
bus = EmbeddedBus(Path(sys.argv[1]))
bus.ensure_topics(["t"])
for number in range(int(sys.argv[3])):
    [position] = bus.publish([Message("t", sys.argv[2], b"%d " % number + bytes(2000))])
    print(position.offset, number, flush=True)
"""

MEMBER = """
import sys, time
from pathlib import Path
from ingest.bus_embedded import EmbeddedBus
subscription = EmbeddedBus(Path(sys.argv[1])).subscribe("g", ["t"])
print("joined", flush=True)
time.sleep(600)
"""

FULL_DISK = """
import resource, sys
from pathlib import Path
from ingest.bus import BusError, Message
from ingest.bus_embedded import EmbeddedBus
bus = EmbeddedBus(Path(sys.argv[1]))
bus.ensure_topics(["t"])
bus.publish([Message("t", "k", b"before")])
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
try:
    bus.publish([Message("t", "k", bytes(8_000_000))])
except BusError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(bus.publish([Message("t", "k", b"after")])[0].offset)
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "bus.sqlite"


@pytest.fixture
def bus(path: Path) -> Iterator[EmbeddedBus]:
    bus = EmbeddedBus(path)
    bus.ensure_topics([TOPIC])
    yield bus
    bus.close()


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a Python program as a process of its own, killed at the end."""
    processes = []

    def start(program: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, *map(str, arguments)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def read(subscription: Subscription, count: int) -> list[Record]:
    records: list[Record] = []
    deadline = time.monotonic() + PATIENCE
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records came"
        records += subscription.poll(0.5)
    return records


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_two_processes_write_while_a_third_reads(bus: EmbeddedBus, path: Path, start: Start) -> None:
    subscription = bus.subscribe("g", [TOPIC])
    start(PUBLISHER, path, "a", 50)
    start(PUBLISHER, path, "b", 50)
    for number in range(50):
        bus.publish([Message(TOPIC, "c", b"%d " % number)])
    records = read(subscription, 150)
    assert [record.offset for record in records] == list(range(150))
    for key in "abc":
        assert [int(record.value.split()[0]) for record in records if record.key == key] == list(range(50))


def test_another_process_is_seen_soon(bus: EmbeddedBus, path: Path, start: Start) -> None:
    subscription = bus.subscribe("g", [TOPIC])
    process = start(PUBLISHER, path, "a", 1)
    line(process)
    published = time.monotonic()
    assert len(subscription.poll(PATIENCE)) == 1
    assert time.monotonic() - published < 1


def test_a_killed_publisher_loses_nothing_it_was_answered(bus: EmbeddedBus, path: Path, start: Start) -> None:
    process = start(PUBLISHER, path, "a", 1_000_000)
    answered = [line(process) for _ in range(200)]
    process.kill()
    rest, _ = process.communicate()
    answered += rest.splitlines(keepends=True)
    # The last line may have been cut in the writing.
    said = {int(offset): int(number) for offset, number in (text.split() for text in answered if text.endswith("\n"))}
    records = {r.offset: int(r.value.split()[0]) for r in read(bus.subscribe("g", [TOPIC]), len(said))}
    assert said.items() <= records.items()
    bus.publish([Message(TOPIC, "k", b"on it goes")])
    bus.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_a_group_has_one_member_until_its_process_is_gone(bus: EmbeddedBus, path: Path, start: Start) -> None:
    process = start(MEMBER, path)
    assert line(process) == "joined\n"
    with pytest.raises(BusError, match=r"group g has a living member"):
        bus.subscribe("g", [TOPIC])
    other = bus.subscribe("another/group", [TOPIC])
    process.kill()
    process.wait()
    mine = bus.subscribe("g", [TOPIC])
    with pytest.raises(BusError, match=r"group g has a living member"):
        bus.subscribe("g", [TOPIC])
    mine.close()
    bus.subscribe("g", [TOPIC]).close()
    other.close()


def test_a_failed_subscribe_leaves_the_group_free(bus: EmbeddedBus) -> None:
    with pytest.raises(BusError, match="no-such-topic"):
        bus.subscribe("g", ["no-such-topic"])

    def broken(_: Partition) -> int:
        raise KeyError("the store is broken")

    with pytest.raises(KeyError):
        bus.subscribe("g", [TOPIC], broken)
    bus.subscribe("g", [TOPIC]).close()


def test_retention_frees_space_and_keeps_offsets(bus: EmbeddedBus, path: Path) -> None:
    bus.publish([Message(TOPIC, "k", b"%d" % number) for number in range(2500)])
    assert bus.delete_before(TOPIC, 2400) == 2400
    late = bus.subscribe("late", [TOPIC])
    assert late.lag() == 100
    assert [record.offset for record in read(late, 100)] == list(range(2400, 2500))
    assert bus.delete_before(TOPIC, 1_000_000) == 100
    assert bus.delete_before("no-such-topic", 5) == 0
    bus.close()
    again = EmbeddedBus(path)
    assert again.publish([Message(TOPIC, "k", b"")])[0].offset == 2500
    again.close()


def test_a_poll_of_large_values_stops_at_its_byte_limit(bus: EmbeddedBus) -> None:
    size = MAX_POLL_BYTES // 3
    bus.publish([Message(TOPIC, "k", bytes(size))] * 5)
    subscription = bus.subscribe("g", [TOPIC])
    assert len(subscription.poll(PATIENCE)) == 4  # the one that passes the limit is the last
    assert len(subscription.poll(PATIENCE)) == 1


def test_a_busy_topic_does_not_starve_another(bus: EmbeddedBus) -> None:
    bus.ensure_topics(["quiet"])
    bus.publish([Message(TOPIC, "k", b"")] * 50 + [Message("quiet", "k", b"")])
    subscription = bus.subscribe("g", [TOPIC, "quiet"])
    seen = [record.topic for _ in range(3) for record in subscription.poll(PATIENCE, max_records=5)]
    assert "quiet" in seen


def test_one_call_with_a_missing_topic_does_not_fail_its_neighbours(bus: EmbeddedBus) -> None:
    # Both wait for the write lock, so that they share one transaction.
    failures: list[BusError] = []
    offsets: list[int] = []

    def good() -> None:
        offsets.append(bus.publish([Message(TOPIC, "k", b"")])[0].offset)

    def bad() -> None:
        try:
            bus.publish([Message(TOPIC, "k", b""), Message("no-such-topic", "k", b"")])
        except BusError as error:
            failures.append(error)

    threads = [threading.Thread(target=act) for act in (good, bad, good)]
    with bus._write_lock:
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + PATIENCE
        while len(bus._queue) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert sorted(offsets) == [0, 1]
    assert len(failures) == 1
    assert len(read(bus.subscribe("g", [TOPIC]), 2)) == 2


def test_a_full_disk_is_an_error_and_the_log_goes_on_after_it(path: Path, start: Start) -> None:
    output, _ = start(FULL_DISK, path).communicate(timeout=PATIENCE)
    error, offset = output.splitlines()
    assert error.startswith(f"embedded bus {path}: publish: ")
    assert offset == "1"


def test_a_value_over_the_limit_is_refused(bus: EmbeddedBus) -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return MAX_VALUE_BYTES + 1

    with pytest.raises(BusError, match="over the limit"):
        bus.publish([Message(TOPIC, "k", Huge())])


def test_only_the_owner_may_read_the_file(bus: EmbeddedBus, path: Path) -> None:
    bus.publish([Message(TOPIC, "k", b"patient")])
    assert {item.stat().st_mode & 0o077 for item in path.parent.iterdir()} == {0}


def test_files_that_are_not_a_bus_are_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("this is a letter, not a database, and long enough to have a header " * 50)
    foreign = tmp_path / "foreign"
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE other (x)")
    connection.close()
    for path, reason in ((text, "not a database"), (foreign, "another program's"), (tmp_path, "directory")):
        before = path.read_bytes() if path.is_file() else b""
        with pytest.raises(BusError, match=reason) as caught:
            EmbeddedBus(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_file_of_a_newer_version_is_refused(bus: EmbeddedBus, path: Path) -> None:
    bus.close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(BusError, match=f"newer version.*schema {SCHEMA_VERSION + 1}"):
        EmbeddedBus(path)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BusError, match="embedded bus"):
        EmbeddedBus(tmp_path / "file" / "bus.sqlite")


def test_many_processes_may_make_the_file_at_once(path: Path, start: Start) -> None:
    processes = [start(PUBLISHER, path, f"k{number}", 5) for number in range(4)]
    for process in processes:
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
    bus = EmbeddedBus(path)
    assert len(read(bus.subscribe("g", [TOPIC]), 20)) == 20
    bus.close()


def test_closing_the_bus_ends_a_poll(bus: EmbeddedBus) -> None:
    subscription = bus.subscribe("g", [TOPIC])
    timer = threading.Timer(0.2, bus.close)
    timer.start()
    begin = time.monotonic()
    with pytest.raises(BusError, match="closed"):
        subscription.poll(PATIENCE)
    assert time.monotonic() - begin < PATIENCE / 2
    timer.join()
    with pytest.raises(BusError, match="closed"):
        subscription.commit({Partition(TOPIC, 0): 0})


def test_no_descriptor_stays_open(path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the count, as the kernel keeps it

    before = descriptors()
    for _ in range(3):
        bus = EmbeddedBus(path)
        bus.ensure_topics([TOPIC])
        bus.subscribe("g", [TOPIC])
        bus.close()
    assert descriptors() == before
