"""The events that engines are measured on, as plain NDJSON files in a scratch folder that git ignores.

A lane is one file that every engine reads, the same bytes for all. Those of the shared data are small generated files,
repeated; `otrf` is every JSON line of the OTRF archives; `process_creation` is made of these, no command line twice,
since an average over a corpus flatters an engine that remembers values. All are deterministic.
"""

from __future__ import annotations

import functools
import gzip
import os
import random
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import orjson

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get("TOCSIN_SHARED_DATA", str(REPOSITORY.parent / "shared" / "data")))
SCRATCH = REPOSITORY / ".build" / "benchmarks"
SIGMAHQ: Final = SHARED_DATA / "sigmahq" / "rules"
CORRELATION_RULES: Final = SHARED_DATA / "lanes" / "correlation_rules.yml"

DISTINCT_EVENTS: Final = 20_710
STARTED: Final = datetime(2026, 7, 28, 11, tzinfo=UTC)

Event = dict[str, object]


@dataclass(frozen=True, slots=True)
class Lane:
    """A file of events, and what RSigma must be told about them.

    Attributes:
        name: As in the report.
        path: One JSON object a line.
        events: Number of lines.
        rules: The rules that are run over it.
        rsigma: Its options on this lane, the fastest it has that lose no match.
        about: What the events are, in a sentence.
    """

    name: str
    path: Path
    events: int
    rules: Path
    rsigma: tuple[str, ...]
    about: str


ROUTED: Final = ("--logsource-routing",)
SYSMON_ROUTED: Final = ("-p", "sysmon", "--logsource-routing", "--event-logsource", "product=windows")
PROCESS_ROUTED: Final = ("--logsource-routing", "--event-logsource", "product=windows,category=process_creation")
SUPPRESSED: Final = ("--suppress", "5m", "--no-detections")


def _write(path: Path, lines: Callable[[], Iterator[bytes]], stamp: str) -> int:
    """Write the lines, once: the number of them is kept beside the file, with what the file was made from."""
    count = path.with_suffix(".count")
    if path.is_file() and count.is_file():
        made_from, _, number = count.read_text().rpartition("\n")
        if made_from == stamp:
            return int(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with path.open("wb") as out:
        for line in lines():
            out.write(line + b"\n")
            written += 1
    count.write_text(f"{stamp}\n{written}")
    return written


def _lane_lines(name: str) -> list[bytes]:
    return gzip.decompress((SHARED_DATA / "lanes" / f"{name}.ndjson.gz").read_bytes()).splitlines()


def _repeated(lines: list[bytes], times: int) -> Iterator[bytes]:
    for _ in range(times):
        yield from lines


def generated(name: str, about: str, times: int, limit: int | None) -> Lane:
    """A generated lane of the shared data, repeated."""
    path = SCRATCH / f"{name}-x{times}-{limit or 'all'}.ndjson"
    events = _write(path, lambda: _repeated(_lane_lines(name)[:limit], times), f"x{times} {limit}")
    return Lane(name, path, events, SIGMAHQ, ROUTED, about)


def correlation(name: str, about: str, times: int, limit: int | None, *, timed: bool) -> Lane:
    """The correlation lane: as it is, without a time, or with an event every 50 ms in `@timestamp`."""
    path = SCRATCH / f"{name}-x{times}-{limit or 'all'}.ndjson"

    def lines() -> Iterator[bytes]:
        for row, line in enumerate(_repeated(_lane_lines("correlation")[:limit], times)):
            if timed:
                time = (STARTED + timedelta(milliseconds=50 * row)).isoformat(timespec="milliseconds")
                yield orjson.dumps({"@timestamp": time.replace("+00:00", "Z"), **orjson.loads(line)})
            else:
                yield line

    return Lane(name, path, _write(path, lines, f"x{times} {limit}"), CORRELATION_RULES, SUPPRESSED, about)


def otrf_lines() -> Iterator[bytes]:
    """Every JSON object that stands on a line of its own in the OTRF archives, in the order of their names."""
    for path in sorted((SHARED_DATA / "otrf").rglob("*")):
        for member in _members(path):
            for line in member.splitlines():
                if line.startswith(b"{") and _is_object(line):
                    yield line


def _members(path: Path) -> Iterator[bytes]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield archive.read(name)
    elif path.name.endswith(".tar.gz"):
        with tarfile.open(path) as archive:
            for info in archive:
                content = archive.extractfile(info)
                if content is not None:
                    yield content.read()


def _is_object(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def otrf(name: str, about: str, times: int, limit: int | None) -> Lane:
    """All OTRF archives, once: the number of repeats does not matter here."""
    del times
    path = SCRATCH / f"otrf-{limit or 'all'}.ndjson"

    def lines() -> Iterator[bytes]:
        for row, line in enumerate(otrf_lines()):
            if limit is not None and row >= limit:
                return
            yield line

    return Lane(name, path, _write(path, lines, str(limit)), SIGMAHQ, SYSMON_ROUTED, about)


def distinct_processes(name: str, about: str, times: int, limit: int | None) -> Lane:
    """Sysmon process creations whose command lines, parents' command lines, ids and hashes are all different."""
    count = limit or DISTINCT_EVENTS * times
    path = SCRATCH / f"{name}-{count}.ndjson"
    events = _write(path, lambda: _distinct(count), str(count))
    return Lane(name, path, events, SIGMAHQ, PROCESS_ROUTED, about)


def _distinct(count: int) -> Iterator[bytes]:
    """`count` process creations: a real child under a real parent, drawn anew each time, with words of their own."""
    draw = random.Random(20_710)  # noqa: S311 -- the same events every time is the point
    seeds = list(_process_creations())
    for _ in range(count):
        event, parent = dict(draw.choice(seeds)), draw.choice(seeds)
        for key in ("ParentImage", "ParentCommandLine", "ParentUser"):
            if key in parent:
                event[key] = parent[key]
        for key in ("CommandLine", "ParentCommandLine", "CurrentDirectory"):
            event[key] = _with_word(str(event.get(key, "")), draw)
        for key in ("ProcessGuid", "ParentProcessGuid", "LogonGuid"):
            event[key] = f"{{{draw.getrandbits(128):032x}}}"
        event["ProcessId"], event["ParentProcessId"] = str(draw.randrange(65536)), str(draw.randrange(65536))
        event["Hashes"] = f"SHA1={draw.getrandbits(160):040X},SHA256={draw.getrandbits(256):064X}"
        told = [f"{key}: {value}" for key, value in event.items() if key not in _NOT_TOLD]
        yield orjson.dumps({**event, "Message": "Process Create:\r\n" + "\r\n".join(told)})


_NOT_TOLD: Final = frozenset(
    {
        "Message",
        "@timestamp",
        "SourceName",
        "ProviderGuid",
        "Level",
        "Keywords",
        "Channel",
        "Hostname",
        "EventID",
        "Task",
    }
)
"""Fields of the header: the text of a message does not repeat them."""


@functools.cache
def _process_creations() -> tuple[Event, ...]:
    """The flat Sysmon process creations of OTRF that have a command line and a parent."""
    found: list[Event] = []
    for line in otrf_lines():
        if b"ParentCommandLine" not in line:
            continue
        event: Event = orjson.loads(line)
        needed = ("Image", "CommandLine", "ParentImage", "ParentCommandLine", "Channel")
        if str(event.get("EventID")) == "1" and all(key in event for key in needed):
            found.append(event)
    return tuple(found)


def _with_word(text: str, draw: random.Random) -> str:
    """The text with a word nobody has seen between two of its words, or at its end."""
    words = text.split(" ")
    words.insert(draw.randint(1, len(words)), f"{draw.choice(_WORDS)}{draw.getrandbits(64):016x}")
    return " ".join(words)


_WORDS: Final = ("--session=", "/run:", "-id ", "C:\\ProgramData\\run\\", "{", "job_", "\\\\srv-file01\\d$\\")

Maker = Callable[[str, str, int, int | None], Lane]

LANES: Final[dict[str, tuple[Maker, str]]] = {
    "structured_windows": (
        generated,
        "Sysmon process creations as flat JSON that names its log source, many values alike",
    ),
    "raw_windows": (generated, "Windows Security events as Snare text, whole in `message`"),
    "cisco_syslog": (generated, "Cisco IOS lines, whole in `message`"),
    "sysmon_file_event": (generated, "Sysmon file creations as flat JSON that names its log source"),
    "process_creation": (distinct_processes, "Sysmon process creations, no two command lines alike"),
    "otrf": (otrf, "every JSON line of the OTRF archives: real hosts under attack, large events"),
    "correlation": (functools.partial(correlation, timed=False), "sign-ins without a time: one window for all"),
    "correlation_timed": (functools.partial(correlation, timed=True), "the same, one every 50 ms of event time"),
}
"""Lane -> what makes its file, and what it is."""


def make_lane(name: str, times: int, limit: int | None = None) -> Lane:
    """The lane of that name.

    Args:
        name: A key of `LANES`.
        times: How often a generated lane is repeated.
        limit: Only so many events, before repeating.
    """
    maker, about = LANES[name]
    return maker(name, about, times, limit)
