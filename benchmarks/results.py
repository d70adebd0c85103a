"""Results: a JSON file each, with when and on what machine; the report is made of whatever files are there."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import orjson

from benchmarks import rsigma
from benchmarks.lanes import REPOSITORY, SHARED_DATA

Json = dict[str, object]

PACKAGES: Final = ("tocsin", "polars", "orjson", "pysigma")


def machine() -> dict[str, str]:
    """The machine, and what ran on it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "CPU": f"{_cpu_model()}, {os.cpu_count()} cores",
        "Memory": f"{memory:.0f} GB",
        "Kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "Revision": _revision(),
        "RSigma": rsigma.VERSION,
    }


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _revision() -> str:
    """The commit, with a `+` where files differ from it."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    return f"{commit}+" if commit and _git("status", "--porcelain", "--untracked-files=no") else commit or "unknown"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def shown(command: Sequence[str]) -> str:
    """A command as a reader would type it in the checkout: no path of this machine."""
    return " ".join(_shown_part(part) for part in command)


def _shown_part(part: str) -> str:
    mark, path = ("@", part[1:]) if part.startswith("@") else ("", part)
    for folder, name in ((REPOSITORY, ""), (SHARED_DATA, "../shared/data/")):
        if Path(path).is_relative_to(folder):
            return f"{mark}{name}{Path(path).relative_to(folder)}"
    return f"{mark}{Path(path).name}" if Path(path).is_absolute() else part


def save(folder: Path, name: str, kind: str, data: Mapping[str, object]) -> None:
    """Write one result."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    result: Json = {"name": name, "kind": kind, "date": now, "machine": machine(), "data": dict(data)}
    (folder / f"{kind}-{name}.json").write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")


def load(folder: Path) -> list[Json]:
    """All results of a folder."""
    return [orjson.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))]
