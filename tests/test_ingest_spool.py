"""The spool on real files: cut, damaged, killed, locked and full; what was promised comes out, once, in order."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.bus import Message
from ingest.spool import Spool, SpoolError, SpoolInUseError, SpoolSettings
from ingest.spool_frames import HEAD_SIZE, decode_record, encode_record, scan
from ingest.spool_position import PositionFile

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SALT = 0x5EED5EED


def message(number: int, size: int = 10) -> Message:
    value = (b"%d:" % number).ljust(size, b"x")
    return Message("tocsin.raw", f"kermor/192.0.2.{number}", value, {"batch": f"run:{number}"})


def spool_in(folder: Path, max_bytes: int = 1 << 20, segment_bytes: int = 4096) -> Spool:
    return Spool(SpoolSettings(folder, max_bytes, segment_bytes), clock=lambda: NOON)


@contextmanager
def opened(folder: Path, max_bytes: int = 1 << 20, segment_bytes: int = 4096) -> Iterator[Spool]:
    spool = spool_in(folder, max_bytes, segment_bytes)
    spool.open()
    try:
        yield spool
    finally:
        spool.close()


def drained(spool: Spool, records: int = 3) -> list[Message]:
    messages: list[Message] = []
    while waiting := spool.head(records, 1 << 20):
        messages += [item.message for item in waiting]
        spool.advance(waiting[-1].number + 1)
    assert spool.empty
    return messages


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spool"))


# -- frames --------------------------------------------------------------------------------------------------------


def test_a_frame_is_what_the_module_says() -> None:
    sent = Message("t", "k", b"value", {"h": "v"})
    data = encode_record(7, 1_795_435_200_000_000, sent, 0)
    body = b'\0\0\0\x13["t","k",{"h":"v"}]value'
    head = b"TSP1" + (7).to_bytes(8) + (1_795_435_200_000_000).to_bytes(8)
    head += len(body).to_bytes(4) + zlib.crc32(body).to_bytes(4)
    assert data == head + zlib.crc32(head).to_bytes(4) + body
    (frame,) = scan(data, 0).frames
    assert (frame.number, frame.when, frame.start, frame.end) == (7, 1_795_435_200_000_000, 0, len(data))
    assert decode_record(data, frame) == sent


@settings(deadline=None)
@given(
    parts=st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.integers(0, 9).map(lambda number: encode_record(number, 0, message(number), SALT)),
            st.tuples(st.integers(0, 9), st.integers(0, 70)).map(
                lambda cut: encode_record(cut[0], 0, message(cut[0]), SALT)[: cut[1]]
            ),
        ),
        max_size=8,
    )
)
def test_every_byte_is_in_a_frame_or_damaged_or_torn(parts: list[bytes]) -> None:
    data = b"".join(parts)
    found = scan(data, SALT)
    stretches = sorted([(frame.start, frame.end) for frame in found.frames] + found.damaged)
    assert [start for start, _ in stretches] == [0, *(end for _, end in stretches)][: len(stretches)]
    assert (stretches[-1][1] if stretches else 0) == found.end <= len(data)
    for frame in found.frames:
        assert decode_record(data, frame) == message(frame.number)


def test_what_looks_like_a_frame_inside_a_damaged_value_is_not_read() -> None:
    forged = encode_record(1, 0, Message("tocsin.raw", "another-hospital/x", b"made up"), 0)
    data = bytearray(encode_record(0, 0, Message("tocsin.raw", "k", b"log " + forged + b" log"), SALT))
    data[5] ^= 1  # in the head: the length cannot be trusted, so frames are searched for from here on
    whole = encode_record(2, 0, message(2), SALT)
    found = scan(bytes(data) + whole, SALT)
    assert [frame.number for frame in found.frames] == [2]
    assert found.damaged == [(0, len(data))]


# -- a spool that is used as it should be --------------------------------------------------------------------------


def test_messages_come_out_in_order_and_files_go(tmp_path: Path) -> None:
    sent = [message(number, 700) for number in range(50)]
    with opened(tmp_path) as spool:
        for at in range(0, 50, 5):
            assert spool.append(sent[at : at + 5]) == at
        stats = spool.stats()
        assert (stats.records, stats.oldest, stats.bytes) == (
            50,
            NOON,
            sum(f.stat().st_size for f in segments(tmp_path)),
        )
        assert len(segments(tmp_path)) == 5  # two appends each
        first = spool.head(4, 1 << 20)
        assert [item.message for item in first] == sent[:4] == [item.message for item in spool.head(4, 1 << 20)]
        assert len(spool.head(50, 1500)) == 1  # two of these are more than 1,500 bytes
        spool.advance(10)
        assert len(segments(tmp_path)) == 4
        assert drained(spool) == sent[10:]
        stats = spool.stats()
        assert (stats.records, stats.bytes, stats.oldest, stats.replayed, stats.damaged) == (0, 0, None, 50, 0)
        assert segments(tmp_path) == []
        assert spool.append([message(99)]) == 50
        assert drained(spool) == [message(99)]


actions = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 4)),
        st.tuples(st.just("publish"), st.integers(1, 5)),
        st.tuples(st.just("killed"), st.just(0)),
        st.tuples(st.just("killed before advance"), st.integers(1, 5)),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=60)
@given(actions=actions, segment_bytes=st.integers(100, 1000))
def test_whatever_happens_everything_comes_out_in_order(actions: list[tuple[str, int]], segment_bytes: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="tocsin-spool-"))
    sent: list[Message] = []
    published: list[Message] = []
    spool = spool_in(folder, segment_bytes=segment_bytes)
    spool.open()
    for action, number in actions:
        if action == "append":
            more = [message(len(sent) + at, 50 + 30 * at) for at in range(number)]
            spool.append(more)
            sent += more
            continue
        waiting = spool.head(number, 1 << 20) if number else []
        assert [item.message for item in waiting] == sent[len(published) :][: len(waiting)]
        if action == "publish" and waiting:
            spool.advance(waiting[-1].number + 1)
            published += [item.message for item in waiting]
        elif action != "publish":
            spool.close()  # writes nothing: the files are as a killed process leaves them
            spool = spool_in(folder, segment_bytes=segment_bytes)
            spool.open()
        assert spool.stats().records == len(sent) - len(published)
        assert spool.empty == (len(sent) == len(published))
    assert published + drained(spool) == sent
    spool.close()
    shutil.rmtree(folder)


# -- cut and damaged -----------------------------------------------------------------------------------------------


def test_a_spool_cut_at_any_byte_gives_the_records_before_the_cut(tmp_path: Path) -> None:
    with opened(tmp_path / "whole") as spool:
        for number in range(3):
            spool.append([message(number)])
    (segment,) = segments(tmp_path / "whole")
    data = segment.read_bytes()
    ends = [frame.end for frame in scan(data, int(segment.stem[-8:], 16)).frames]
    assert len(ends) == 3
    for cut in range(len(data) + 1):
        folder = tmp_path / "cut"
        folder.mkdir()
        (folder / segment.name).write_bytes(data[:cut])
        whole = [number for number, end in enumerate(ends) if end <= cut]
        with opened(folder) as spool:
            assert spool.stats().records == len(whole), cut
            spool.append([message(9)])
            assert drained(spool) == [message(number) for number in [*whole, 9]], cut
            assert spool.stats().damaged == 0, cut
        assert not (folder / "damaged").exists()
        shutil.rmtree(folder)


def test_zeros_that_a_power_cut_left_at_the_end_are_no_damage(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.append([message(0)])
    (segment,) = segments(tmp_path)
    with segment.open("ab") as file:
        file.write(bytes(5000))
    with opened(tmp_path) as spool:
        assert drained(spool) == [message(0)]
        assert spool.stats().damaged == 0


def test_a_damaged_byte_costs_one_record_which_is_kept_aside(tmp_path: Path) -> None:
    with opened(tmp_path / "whole") as spool:
        spool.append([message(number) for number in range(4)])
    (segment,) = segments(tmp_path / "whole")
    data = segment.read_bytes()
    frames = scan(data, int(segment.stem[-8:], 16)).frames
    for at in range(frames[-1].start):  # damage in the last frame may look like its end being missing
        folder = tmp_path / "damaged"
        folder.mkdir()
        (folder / segment.name).write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        (hit,) = (number for number, frame in enumerate(frames) if frame.start <= at < frame.end)
        with opened(folder) as spool:
            assert drained(spool) == [message(number) for number in range(4) if number != hit], at
            assert spool.stats().damaged == 1
        (kept,) = (folder / "damaged").iterdir()
        assert kept.read_bytes()[at - frames[hit].start] == data[at] ^ 0xFF
        assert len(kept.read_bytes()) == frames[hit].end - frames[hit].start
        shutil.rmtree(folder)


def test_a_damaged_length_of_the_last_record_loses_no_other(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.append([message(0), message(1)])
    (segment,) = segments(tmp_path)
    data = bytearray(segment.read_bytes())
    data[len(data) // 2 + HEAD_SIZE - 1] ^= 0xFF  # the seal of the second head
    segment.write_bytes(data)
    with opened(tmp_path) as spool:
        assert drained(spool) == [message(0)]
        assert spool.stats().damaged == 1
        spool.append([message(2)])
        assert drained(spool) == [message(2)]


def test_a_file_that_cannot_be_read_is_kept_aside_and_the_next_ones_come_out(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=50) as spool:
        for number in range(4):
            spool.append([message(number)])
        bad = segments(tmp_path)[1]
        bad.unlink()
        bad.mkdir()  # reading it fails, also for root
        assert drained(spool) == [message(0), message(2), message(3)]
        assert spool.stats().damaged == 1
        assert (tmp_path / "damaged" / bad.name).is_dir()


def test_a_lost_position_publishes_again_and_loses_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.append([message(number) for number in range(5)])
        spool.advance(3)
    (tmp_path / "position").unlink()
    with opened(tmp_path) as spool:
        assert drained(spool) == [message(number) for number in range(5)]


def test_the_position_survives_a_write_cut_at_any_byte(tmp_path: Path) -> None:
    path = tmp_path / "position"
    for number in range(1, 6):
        before = path.read_bytes() if path.exists() else b""
        file = PositionFile(path)
        assert file.load() == number - 1
        file.store(number)
        file.close()
        after = path.read_bytes()
        start = next(at for at in range(len(after)) if before[at : at + 1] != after[at : at + 1])
        for cut in range(start, len(after)):
            torn = tmp_path / "torn"
            torn.write_bytes(after[:cut] + before[cut:])
            assert PositionFile(torn).load() in (number - 1, number)


# -- no room -------------------------------------------------------------------------------------------------------


def test_a_full_spool_takes_nothing_of_what_does_not_fit(tmp_path: Path) -> None:
    seconds = iter([10.0, 10.0, 12.0, 15.0, 15.0])
    spool = Spool(SpoolSettings(tmp_path, 1000, 4096), clock=lambda: NOON, seconds=lambda: next(seconds))
    spool.open()
    spool.append([message(0, 300), message(1, 300)])
    before = spool.stats().bytes
    with pytest.raises(SpoolError, match=rf"full: {before} of 1000 bytes are taken, and \d+ more are wanted"):
        spool.append([message(2, 300), message(3, 300)])
    assert (spool.stats().bytes, spool.stats().full_seconds) == (before, 2.0)
    assert drained(spool) == [message(0, 300), message(1, 300)]
    spool.append([message(4)])
    assert spool.stats().full_seconds == 5.0
    assert drained(spool) == [message(4)]
    spool.close()


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """The kernel refuses to write on, in the middle of a write, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("already", [0, 1])
def test_a_disk_that_takes_half_a_record_has_taken_none(tmp_path: Path, already: int) -> None:
    kept = [message(number, 100) for number in range(already)]
    with opened(tmp_path) as spool:
        if kept:
            spool.append(kept)
        for _ in range(3):
            with files_no_larger_than(1000), pytest.raises(SpoolError, match="File too large"):
                spool.append([message(5, 400), message(6, 1500)])
        assert len(segments(tmp_path)) == already
        assert drained(spool) == kept
        spool.append([message(7)])
        assert drained(spool) == [message(7)]
        assert spool.stats().damaged == 0


def test_a_folder_that_cannot_be_had_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    spool = spool_in(tmp_path / "file" / "spool")
    with pytest.raises(SpoolError, match="cannot be opened: Not a directory"):
        spool.open()
    with pytest.raises(SpoolError, match="Not a directory"):
        spool.append([message(0)])
    (tmp_path / "file").unlink()
    spool.append([message(1)])
    assert drained(spool) == [message(1)]
    spool.close()


# -- other processes -----------------------------------------------------------------------------------------------


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    with opened(tmp_path) as spool, pytest.raises(SpoolInUseError, match=r"spool .*: another process uses it"):
        spool_in(tmp_path).open()
    with opened(tmp_path):
        pass
    assert spool.empty


WRITER = """
import sys
from pathlib import Path
from ingest.bus import Message
from ingest.spool import Spool, SpoolSettings

spool = Spool(SpoolSettings(Path(sys.argv[1]), 1 << 30, 20_000))
spool.open()
number = int(sys.argv[2])
while True:
    spool.append([Message("t", "k", b"%d" % (number + at), {}) for at in range(3)])
    number += 3
    print(number, flush=True)
    if number % 7 == 0 and (waiting := spool.head(2, 1 << 20)):
        spool.advance(waiting[-1].number + 1)
        print(f"-{waiting[-1].message.value.decode()}", flush=True)
"""


def test_a_writer_killed_again_and_again_keeps_what_it_promised(tmp_path: Path) -> None:
    begun = 0
    for turn in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(begun)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        written = [writer.stdout.readline() for _ in range(20 + 37 * turn)]
        writer.send_signal(signal.SIGKILL)
        written += writer.stdout.readlines()
        writer.wait()
        writer.stdout.close()
        with opened(tmp_path) as spool:
            numbers = [int(item.value) for item in drained(spool, 1000)]
        said = [int(line) for line in written if not line.startswith("-")]
        passed = [-int(line) for line in written if line.startswith("-")]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert numbers[-1] + 1 >= said[-1]  # what append promised, and perhaps what it was about to promise
        assert passed[-1] < numbers[0] <= passed[-1] + 3 if passed else numbers[0] in (begun, begun + 2)
        begun = numbers[-1] + 1


def test_the_age_of_what_waits_is_that_of_the_first(tmp_path: Path) -> None:
    now = NOON
    spool = Spool(SpoolSettings(tmp_path, 1 << 20), clock=lambda: now)
    spool.append([message(0)])
    now += timedelta(seconds=5)
    spool.append([message(1)])
    assert spool.stats().oldest == NOON
    spool.head(1, 1)
    spool.advance(1)
    spool.head(1, 1)
    assert spool.stats().oldest == now
    spool.close()
