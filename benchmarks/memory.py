"""The most memory each process takes, in the worst cases that its bounds allow: `python -m benchmarks.memory`.

Real processes on the embedded bus; the figure is VmHWM of /proc/PID/status, the most that was ever resident.

    detect, usual     lines of 200 bytes, a backlog of them
    detect, large     a backlog of records of several lines of 4 MiB each, the largest that a listener lets through
    detect, dense     a backlog of records of 16 MiB that take some kilobytes on the bus: lines that are all alike
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ingest.bus import TOPIC_RAW, TOPICS, Message
from ingest.bus_embedded import EmbeddedBus
from ingest.rawbatch import RawLine, encode_lines

REPOSITORY: Final = Path(__file__).resolve().parent.parent
FIGURES: Final = Path(__file__).parent / "figures" / "memory.json"
MIB: Final = 1024 * 1024
HEAD: Final = b"<86>1 2026-11-23T10:00:00Z bastion sshd 7 - - "


def batch(lines: list[bytes]) -> Message:
    """A bus record of lines."""
    now = datetime.now(UTC)
    return Message(TOPIC_RAW, "CH A", encode_lines([RawLine(line, now, "CH A", "192.0.2.1") for line in lines]))


def usual() -> Iterator[Message]:
    """Batches as collect makes them under load."""
    for _ in range(128):
        yield batch([HEAD + os.urandom(70).hex().encode() for _ in range(4000)])


def large() -> Iterator[Message]:
    """Batches of the largest lines: JSON, of which every field becomes a column."""
    for _ in range(64):
        yield batch([HEAD + b'{"a":"' + os.urandom(2 * MIB - 100).hex().encode() + b'"}'])


def dense() -> Iterator[Message]:
    """Batches that compress to nearly nothing."""
    for _ in range(64):
        yield batch([HEAD + b"the same again and again " * 6] * (16 * MIB // 200))


CASES: Final = {"detect, usual": usual, "detect, large": large, "detect, dense": dense}


def settings(folder: Path, rules: Path) -> Path:
    """The defaults, in a folder of their own."""
    path = folder / "tocsin.toml"
    path.write_text(f'data_dir = "{folder}/data"\nrules = ["{rules}"]\nrules_cache = "{folder.parent}/rules-cache"\n')
    return path


def peak(process: subprocess.Popen[bytes]) -> int:
    """The most memory of a process, in MiB."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) // 1024


def measure_detect(folder: Path, rules: Path, case: str) -> dict[str, object]:
    """Fill the bus, let detect read all of it, and see what it took."""
    folder.mkdir()
    config = settings(folder, rules)
    bus = EmbeddedBus(folder / "data" / "bus.sqlite")
    bus.ensure_topics(TOPICS)
    size = 0
    for message in CASES[case]():
        bus.publish([message])
        size += len(message.value)
    [end] = bus.ends([TOPIC_RAW]).values()
    command = [sys.executable, "-m", "tocsin", "detect", "--config", str(config)]
    with subprocess.Popen(command, cwd=REPOSITORY) as process:
        begun = time.monotonic()
        try:
            while end not in bus.committed("tocsin-detect", [TOPIC_RAW]).values() and process.poll() is None:
                time.sleep(0.2)
            found = {"peak_mib": peak(process), "seconds": round(time.monotonic() - begun, 1)}
        finally:
            process.terminate()
            begun = time.monotonic()
            process.wait()
    bus.close()
    return {"case": case, "bus_mib": size // MIB, **found, "end_seconds": round(time.monotonic() - begun, 1)}


def main() -> None:
    """Measure all cases, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=[*CASES])
    parser.add_argument("--rules", type=Path, default=REPOSITORY / "rules")
    parser.add_argument("--write", action="store_true", help="write the figures beside the others")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        rows = []
        for number, case in enumerate(chosen.cases):
            rows.append(measure_detect(Path(folder, str(number)), chosen.rules.resolve(), case))
            print(json.dumps(rows[-1]), flush=True)
    if chosen.write:
        FIGURES.write_text(json.dumps({"rules": chosen.rules.name, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
