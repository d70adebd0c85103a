"""Whatever bytes come in: an event, a marked line or a counted refusal; never an exception or a hang, nothing twice.

The short run is part of the suite; the long one is `make soak` (TOCSIN_FUZZ_INPUTS lines, ten million by default).
"""

from __future__ import annotations

import os
import resource
import time
from itertools import islice

import pytest

from fuzzing import cuts, hostile_lines
from ingest.envelope import DATASET, ENVELOPE, EVENT_ID, ORIGINAL, REMARK, TIMESTAMP
from ingest.framing import Framer
from ingest.hospital import ExpectedSource, Hospital, Hospitals
from ingest.parse import parse
from ingest.readings import Readings
from raw_lines import OF_EVERY_FORMAT, batch

BATCH = 5_000
SLOWEST = 60.0
"""CPU seconds for a batch: some hundred times what it takes. A hang is no matter of percents."""
READINGS = Readings(
    Hospitals.of([Hospital("chu-a", "CHU A", sources=(ExpectedSource("x", host="h", time_zone="Indian/Reunion"),))])
)


def check_batch(seed: int) -> int:
    """Parse a batch of hostile lines; every one of them must come out once, whole. Returns how many were understood."""
    lines = hostile_lines(seed, BATCH, OF_EVERY_FORMAT)
    started = time.process_time()
    frames = parse(batch(lines), READINGS if seed % 2 else None)
    took = time.process_time() - started
    assert took < SLOWEST, f"seed {seed}: {took:.0f} s for {BATCH} lines"
    ids: list[str] = []
    understood = 0
    for frame in frames:
        events = frame.events
        assert list(events.columns[: len(ENVELOPE)]) == list(ENVELOPE), f"seed {seed}"
        assert events[TIMESTAMP].null_count() == 0, f"seed {seed}"
        unknown = events.filter(events[DATASET] == "unknown")
        assert unknown[REMARK].null_count() == 0, f"seed {seed}: a line that was not understood is not marked"
        understood += events.height - unknown.height
        ids += events[EVENT_ID].to_list()
        for identity, text in islice(events.select(EVENT_ID, ORIGINAL).iter_rows(), 50):
            line = lines[int(identity.rpartition(":")[2])]
            assert text.encode("utf-8" if _is_utf8(line) else "iso-8859-1") == line, f"seed {seed}: {identity}"
    assert sorted(ids) == sorted(f"t:0:0:{row}" for row in range(BATCH)), f"seed {seed}: a line is missing or twice"
    return understood


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def check_framing(seed: int) -> None:
    """One stream, cut otherwise: the same frames, marks and counts; and never more held than the limit."""
    lines = hostile_lines(seed, 60, OF_EVERY_FORMAT)
    counted = seed % 3 == 0
    stream = b"".join(b"%d %b" % (len(line), line) if counted else line + b"\n" for line in lines)
    if seed % 5 == 0:  # a count that lies, and one without end
        stream += b"99999999999 <13>x" if seed % 2 else b"7 <13>x\n"
    whole, parts = Framer(4096), Framer(4096)
    expected = [*whole.receive(stream), *whole.close()]
    found = [frame for piece in cuts(seed, stream, 40) for frame in parts.receive(piece)] + parts.close()
    assert found == expected, f"seed {seed}"
    assert parts.counts == whole.counts, f"seed {seed}"


def test_hostile_lines_each_come_out_once() -> None:
    understood = sum(check_batch(seed) for seed in range(4))
    assert understood > BATCH // 4  # else the seeds would not reach the formats at all


def test_a_hostile_stream_gives_the_same_frames_however_it_is_cut() -> None:
    for seed in range(60):
        check_framing(seed)


@pytest.mark.soak
def test_ten_million_hostile_inputs() -> None:
    inputs = int(os.environ.get("TOCSIN_FUZZ_INPUTS", "10000000"))
    first = int(os.environ.get("TOCSIN_FUZZ_SEED", "1000"))
    understood, started, peak = 0, time.monotonic(), 0
    for number in range(max(1, inputs // BATCH)):
        understood += check_batch(first + number)
        check_framing(first + number)
        if number == 20:  # everything that is made once has been made
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak if peak else 0
    seconds = time.monotonic() - started
    print(f"\n{inputs} lines, {understood} understood, {seconds:.0f} s, memory grew by {grown} kB")
    assert grown < 512 * 1024, "memory grows with the number of lines"
