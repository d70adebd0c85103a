"""RSigma (Rust), the engine to compare with: installing it, its command line, and what it found.

`rsigma engine eval` reads NDJSON and prints a line a match, on one thread. It reads the log source of an event from its
fields `product`, `category` and `service` when asked to (`--logsource-routing`), and skips rules that contradict it; an
event that does not say meets every rule. That is both its fastest mode and the nearest to Sigma's meaning. Its other
accelerator, `--bloom-prefilter`, gained nothing on the generated lanes here; the cross-rule automaton is not in a plain
build.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import orjson

from benchmarks.compare import Match
from benchmarks.lanes import Lane

VERSION: Final = "0.23.0"  # the newest that the Rust of a current Debian or Ubuntu still compiles

DONE: Final = re.compile(r"Processed (\d+) events, (\d+)(?: detection matches, (\d+) correlation)? matches")


class RSigmaError(Exception):
    """RSigma is not here and cannot be had; the message says why."""


def install(*, compiling: bool = True) -> Path:
    """The program, compiled by cargo into the cache the first time (some minutes).

    Args:
        compiling: Whether it may be compiled now; else it must be there.

    Raises:
        RSigmaError: It is not there and may not be made, there is no cargo, or cargo could not.
    """
    cache = Path(os.environ.get("TOCSIN_CACHE") or "~/.cache/tocsin").expanduser()
    root = cache / f"rsigma-{VERSION}"
    program = root / "bin" / "rsigma"
    if program.is_file():
        return program
    if not compiling:
        raise RSigmaError(f"RSigma {VERSION} is not in {root}, and its rows are left out")
    cargo = shutil.which("cargo")
    if cargo is None:
        raise RSigmaError(
            "cargo is not installed, so RSigma cannot be: its rows are left out (Debian: apt install cargo)"
        )
    print(f"Compiling RSigma {VERSION} into {root}: some minutes, once.", flush=True)
    command = [cargo, "install", "rsigma", "--version", VERSION, "--locked", "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not program.is_file():
        raise RSigmaError(f"cargo could not install RSigma {VERSION}:\n{done.stderr[-2000:]}")
    return program


def command(program: Path, lane: Lane, events: Path | None, *, include_event: bool = False) -> list[str]:
    """RSigma over events: of a file, or of stdin."""
    line = [str(program), "engine", "eval", "-r", str(lane.rules)]
    line += ["-e", f"@{events}"] if events else []
    line += ["--input-format", "json", *lane.rsigma]
    return [*line, "--include-event"] if include_event else line


def matches_told(stderr: str) -> int:
    """How many matches its last line counts: of rules, and of correlations."""
    told = DONE.search(stderr)
    if told is None:
        raise RSigmaError(f"no count in what RSigma wrote: {stderr[-500:]}")
    return int(told[2]) + int(told[3] or 0)


def _canonical(event: object) -> bytes:
    return orjson.dumps(event, option=orjson.OPT_SORT_KEYS)


def read_matches(output: Path, events: Path) -> Iterator[Match]:
    """(rule id, number of the line) of what it printed with `--include-event`.

    It says which event matched only by repeating it. Detection has no memory, so every line with the same content has
    the same matches, and a match stands for all of them.

    Raises:
        RSigmaError: It repeated an event that the file does not have.
    """
    found: dict[bytes, set[str]] = defaultdict(set)
    for match in _read(output):
        if "event" in match:
            found[_canonical(match["event"])].add(str(match["rule_id"]))
    left = set(found)
    with events.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            content = _canonical(orjson.loads(line))
            left.discard(content)
            for rule in found.get(content, ()):
                yield Match(rule, number)
    if left:
        raise RSigmaError(f"{len(left)} events of its output are not in {events}: {min(left)[:300]!r}")


def _read(output: Path) -> Iterator[dict[str, object]]:
    with output.open("rb") as lines:
        for line in lines:
            yield orjson.loads(line)


def rule_counts(output: Path) -> dict[str, int]:
    """Rule id -> lines, correlations and rules alike."""
    return _counted(str(match["rule_id"]) for match in _read(output))


def _counted(rules: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for rule in rules:
        counts[rule] += 1
    return dict(counts)
