"""The embedded bus alone: several processes on one file, sudden death, leases, files that are not a bus, retention."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.bus import BusError, Message, Partition, Record, Subscription
from ingest.bus_embedded import MAX_VALUE_BYTES, EmbeddedBus
from ingest.bus_embedded_file import SCHEMA_VERSION
from ingest.bus_embedded_retention import MARK_SECONDS, STEPS_BEHIND
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

REALLY_FULL = """
import sys
from pathlib import Path
from ingest.bus import BusError, Message, Partition
from ingest.bus_embedded import EmbeddedBus
folder = Path(sys.argv[1])
bus = EmbeddedBus(folder / "bus.sqlite")
bus.ensure_topics(["t"])
bus.publish([Message("t", "k", b"before")])
member = bus.subscribe("g", ["t"])
with (folder / "ballast").open("wb", buffering=0) as ballast:
    try:
        while True:
            ballast.write(bytes(4096))
    except OSError:
        pass
for act in (
    lambda: bus.publish([Message("t", "k", bytes(2_000_000))]),
    lambda: [member.commit({Partition("t", 0): 1}) for _ in range(100)],
    lambda: bus.publish([Message("t", "k", bytes(2_000_000))]),
):
    try:
        act()
    except BusError as error:
        print(error)
(folder / "ballast").unlink()
bus.publish([Message("t", "k", b"after")])
member.commit({Partition("t", 0): 1})
print([record.value for record in bus.read(Partition("t", 0), 0, 9)], bus.committed("g", ["t"])[Partition("t", 0)])
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


DAY = 86_400.0


@dataclass
class Clock:
    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def old_bus(path: Path, clock: Clock) -> Iterator[EmbeddedBus]:
    """A bus on which five records lie for each of ten days, numbered through; now is the tenth day."""
    bus = EmbeddedBus(path, clock)
    bus.ensure_topics([TOPIC])
    for day in range(10):
        bus.publish([Message(TOPIC, "k", b"%d" % (day * 5 + number)) for number in range(5)])
        clock.now += DAY
    yield bus
    bus.close()


def left(bus: EmbeddedBus) -> list[int]:
    return [int(record.value) for record in bus.read(Partition(TOPIC, 0), 0, 1000)]


def test_what_is_old_and_read_goes(old_bus: EmbeddedBus, clock: Clock) -> None:
    member = old_bus.subscribe("g", [TOPIC])
    member.commit({Partition(TOPIC, 0): 50})
    [done] = old_bus.retain({TOPIC: 3.5}, {TOPIC: ["g"]})
    assert (done.before, done.held) == (35, 0)
    assert left(old_bus) == list(range(35, 50))
    assert old_bus.publish([Message(TOPIC, "k", b"50")])[0].offset == 50
    clock.now += 100 * DAY
    old_bus.retain({TOPIC: 3.5}, {TOPIC: ["g"]})
    assert left(old_bus) == [50]  # not read yet
    member.commit({Partition(TOPIC, 0): 51})
    old_bus.retain({TOPIC: 3.5}, {TOPIC: ["g"]})
    assert left(old_bus) == []
    old_bus.publish([Message(TOPIC, "k", b"51")])
    member.commit({Partition(TOPIC, 0): 52})
    old_bus.retain({TOPIC: 3.5}, {TOPIC: ["g"]})
    assert left(old_bus) == [51]


@pytest.mark.parametrize("begun", [True, False])
def test_what_a_group_has_not_read_stays(old_bus: EmbeddedBus, *, begun: bool) -> None:
    if begun:
        old_bus.subscribe("slow", [TOPIC]).commit({Partition(TOPIC, 0): 12})
    old_bus.subscribe("g", [TOPIC]).commit({Partition(TOPIC, 0): 50})
    [done] = old_bus.retain({TOPIC: 3.5}, {TOPIC: ["g", "slow"]})
    assert done.held_by == "slow"
    assert (done.before, done.held) == ((12, 23) if begun else (0, 35))
    assert left(old_bus) == list(range(done.before, 50))


def test_a_topic_without_days_or_that_is_not_there_is_left_alone(old_bus: EmbeddedBus) -> None:
    assert old_bus.retain({"elsewhere": 1.0}, {}) == []
    assert len(left(old_bus)) == 50


def test_a_clock_that_was_ahead_keeps_nothing_for_years(path: Path, clock: Clock) -> None:
    with closing(EmbeddedBus(path, clock)) as bus:
        bus.ensure_topics([TOPIC])
        clock.now += 3650 * DAY
        bus.publish([Message(TOPIC, "k", b"0")])
        clock.now -= 3650 * DAY
        bus.publish([Message(TOPIC, "k", b"1")])
        bus.retain({TOPIC: 2.0}, {})
        assert left(bus) == [0, 1]
        clock.now += 3 * DAY
        bus.retain({TOPIC: 2.0}, {})
        assert left(bus) == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.tuples(st.floats(-2000, 5000), st.integers(1, 4)), min_size=1, max_size=30),
    days=st.floats(0.001, 0.2),
)
def test_nothing_goes_before_its_time_and_all_goes_then(
    tmp_path: Path, steps: list[tuple[float, int]], days: float
) -> None:
    clock = Clock()
    with closing(EmbeddedBus(tmp_path / f"{uuid.uuid4().hex}.sqlite", clock)) as bus:
        bus.ensure_topics([TOPIC])
        old: set[int] = set()  # by the clock as it stood at any time
        highest = clock.now
        published: list[float] = []
        for step, count in steps:
            clock.now += step
            published += [clock.now] * count
            bus.publish([Message(TOPIC, "k", b"%d" % (len(published) - count + n)) for n in range(count)])
            highest = max(highest, clock.now)
            bus.retain({TOPIC: days}, {})
            old |= {number for number, at in enumerate(published) if clock.now - at >= days * DAY}
            assert set(range(len(published))) - old <= set(left(bus))
        clock.now = highest + days * DAY + 2 * MARK_SECONDS + STEPS_BEHIND
        bus.retain({TOPIC: days}, {})
        assert left(bus) == []


def test_space_is_used_again(path: Path, clock: Clock) -> None:
    with closing(EmbeddedBus(path, clock)) as bus:
        bus.ensure_topics([TOPIC])
        sizes = []
        for _ in range(12):
            bus.publish([Message(TOPIC, "k", bytes(1_000_000))] * 4)
            clock.now += DAY
            bus.retain({TOPIC: 2.0}, {})
            sizes.append(path.stat().st_size)
        assert len(left_offsets(bus)) <= 12
        assert sizes[-1] <= sizes[4] < 20_000_000


def left_offsets(bus: EmbeddedBus) -> list[int]:
    return [record.offset for record in bus.read(Partition(TOPIC, 0), 0, 1000)]


def test_a_file_of_version_1_is_taken_over_and_counts_as_published_now(path: Path, clock: Clock) -> None:
    with closing(EmbeddedBus(path)) as bus:
        bus.ensure_topics([TOPIC])
        bus.publish([Message(TOPIC, "k", b"%d" % number) for number in range(7)])
    with closing(sqlite3.connect(path)) as file:
        file.execute("DROP TABLE marks")
        file.execute("PRAGMA user_version = 1")
    clock.now = time.time()
    with closing(EmbeddedBus(path, clock)) as bus:
        assert left(bus) == list(range(7))
        clock.now += DAY
        bus.retain({TOPIC: 2.0}, {})
        assert len(left(bus)) == 7
        assert bus.publish([Message(TOPIC, "k", b"7")])[0].offset == 7
        clock.now += 1.5 * DAY
        bus.retain({TOPIC: 2.0}, {})
        assert left(bus) == [7]
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


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


def test_a_disk_that_is_full_is_named_and_got_over(tmp_path: Path, require: Callable[[bool, str], None]) -> None:
    """A real one: a file system in memory, in a mount namespace of its own."""
    alone = ["unshare", "-rm"]
    allowed = shutil.which("unshare") and subprocess.run([*alone, "true"], check=False).returncode == 0
    require(bool(allowed), "unshare is missing, or may not be used here")
    script = 'mount -t tmpfs -o size=4m none "$1" && exec "$2" -c "$3" "$1"'
    command = [*alone, "sh", "-c", script, "sh", str(tmp_path), sys.executable, REALLY_FULL]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    *errors, offsets = said.stdout.splitlines()
    path = tmp_path / "bus.sqlite"
    full = "the disk is full; it goes on by itself when there is room"
    assert errors == [f"embedded bus {path}: {what}: {full}" for what in ("publish", "commit positions", "publish")]
    assert offsets == "[b'before', b'after'] 1"


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
