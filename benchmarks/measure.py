"""What a command costs: CPU seconds, wall seconds and peak memory, on one core.

CPU seconds (user + system) are what the rates are made of: a machine shared with others stretches the wall clock, and
much less the CPU's. The best of several runs is the figure least disturbed; the median says how far to trust it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SMALLEST = 0.02
"""Seconds below which a difference of two measurements says nothing."""

LAUNCHER = Path(__file__).with_name("launch.py")
CORE = "0"
ONE_THREAD = {"POLARS_MAX_THREADS": "1", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}


class MeasureError(Exception):
    """A command under measurement failed; the message has its last lines."""


@dataclass(frozen=True, slots=True)
class Usage:
    """One run of a command.

    Attributes:
        user: CPU seconds in the program.
        system: CPU seconds in the kernel for it.
        wall: Seconds by the clock.
        peak_rss_kb: The most memory it held, in KiB.
        exit_code: How it ended.
        stderr: What it wrote there.
    """

    user: float
    system: float
    wall: float
    peak_rss_kb: int
    exit_code: int
    stderr: str

    @property
    def cpu(self) -> float:
        """CPU seconds, user and system."""
        return self.user + self.system


@dataclass(frozen=True, slots=True)
class Runs:
    """Several runs of the same command."""

    command: tuple[str, ...]
    usages: tuple[Usage, ...]

    @property
    def best(self) -> Usage:
        """The run with the least CPU."""
        return min(self.usages, key=lambda usage: usage.cpu)

    @property
    def median_cpu(self) -> float:
        """CPU seconds of the run in the middle."""
        return statistics.median(usage.cpu for usage in self.usages)

    @property
    def median_wall(self) -> float:
        """Seconds by the clock of the run in the middle."""
        return statistics.median(usage.wall for usage in self.usages)

    @property
    def peak_mb(self) -> float:
        """The most memory any run held, in MB."""
        return max(usage.peak_rss_kb for usage in self.usages) / 1024


def rate(events: int, seconds: float) -> float | None:
    """Events a second; None where the time is too short to say."""
    return events / seconds if seconds >= SMALLEST else None


def pinned(command: Sequence[str]) -> list[str]:
    """The command held on one core, where `taskset` is there to do it."""
    return ["taskset", "-c", CORE, *command] if shutil.which("taskset") else list(command)


def run_once(
    command: Sequence[str],
    *,
    output: Path | None = None,
    repeat_stdin: tuple[Path, int] | None = None,
    environment: Mapping[str, str] | None = None,
    expected: Sequence[int] = (0,),
) -> Usage:
    """Run a command on one core.

    Args:
        command: What to run.
        output: Where its stdout goes; nowhere by default.
        repeat_stdin: A file, and how often `cat` sends it to the command's stdin.
        environment: Variables over those of this process.
        expected: Exit codes that are no failure.

    Raises:
        MeasureError: It ended with another code.
    """
    with contextlib.ExitStack() as open_files:
        folder = Path(open_files.enter_context(tempfile.TemporaryDirectory(prefix="tocsin-measure-")))
        out = open_files.enter_context((output or Path(os.devnull)).open("wb"))
        errors = open_files.enter_context((folder / "stderr").open("wb"))
        stdin = open_files.enter_context(_stdin(repeat_stdin))
        subprocess.run(
            [sys.executable, "-I", "-S", str(LAUNCHER), str(folder / "usage"), *pinned(command)],
            stdin=stdin,
            stdout=out,
            stderr=errors,
            env={**os.environ, **ONE_THREAD, **(environment or {})},
            check=True,
        )
        stderr = (folder / "stderr").read_text(errors="replace")
        usage = Usage(**json.loads((folder / "usage").read_text()), stderr=stderr)
    if usage.exit_code not in expected:
        raise MeasureError(f"{' '.join(command)} ended with {usage.exit_code}: {stderr[-1000:]}")
    return usage


@contextlib.contextmanager
def _stdin(repeat: tuple[Path, int] | None) -> Iterator[int]:
    """What a command reads: nothing, or one file over and over, sent from a process that is not measured."""
    if repeat is None:
        yield subprocess.DEVNULL
        return
    path, times = repeat
    with subprocess.Popen(["cat", *[str(path)] * times], stdout=subprocess.PIPE) as cat:
        if cat.stdout is None:
            raise MeasureError("no pipe from cat")
        yield cat.stdout.fileno()
        cat.stdout.close()
        cat.terminate()


def run_many(
    command: Sequence[str],
    times: int,
    *,
    environment: Mapping[str, str] | None = None,
    expected: Sequence[int] = (0,),
) -> Runs:
    """The same command several times, its output thrown away."""
    usages = tuple(run_once(command, environment=environment, expected=expected) for _ in range(times))
    return Runs(tuple(pinned(command)), usages)
