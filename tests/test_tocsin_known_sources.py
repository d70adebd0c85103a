"""The registry changes while detection runs: what is parsed from then on is read by it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingest.adapters import AdapterError
from ingest.hospital import ExpectedSource, Hospital
from ingest.readings import AS_THEY_SAY, Reading
from ingest.registry import write_hospital
from tocsin.known_sources import KnownSources

ADAPTER = """
name = "dpi"
kind = "csv"
columns = ["date", "agent"]
[logsource]
product = "dpi"
"""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        self.now += 10
        return self.now


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1_000_000))  # a later change, however quick the test


def test_hospitals_and_adapters_are_taken_up_while_it_runs(tmp_path: Path) -> None:
    told: list[str | None] = []
    known = KnownSources(tmp_path, told.append, Clock())
    assert not known()
    source = ExpectedSource("dossier", address="192.0.2.7", format="adapter.dpi")
    write_hospital(tmp_path, Hospital("kermor", "Kermor", time_zone="Indian/Reunion", sources=(source,)))
    assert known().of("kermor", "192.0.2.8", None) == Reading("Indian/Reunion")
    assert known().of("kermor", "192.0.2.7", None) == Reading("Indian/Reunion", "adapter.dpi")
    assert known().of("elsewhere", "192.0.2.7", None) == AS_THEY_SAY
    write(tmp_path / "adapters" / "dpi.toml", ADAPTER)
    assert list(known().formats) == ["adapter.dpi"]
    assert told in ([], [None])


def test_a_broken_change_is_told_and_the_last_good_one_holds(tmp_path: Path) -> None:
    write(tmp_path / "adapters" / "dpi.toml", ADAPTER)
    told: list[str | None] = []
    known = KnownSources(tmp_path, told.append, Clock())
    write(tmp_path / "adapters" / "dpi.toml", ADAPTER + "nonsense = 1\n")
    assert list(known().formats) == ["adapter.dpi"]
    assert told
    assert "dpi.toml" in str(told[-1])
    write(tmp_path / "adapters" / "dpi.toml", ADAPTER.replace('"dpi"', '"autre"', 1))
    assert list(known().formats) == ["adapter.autre"]
    assert told[-1] is None


def test_a_broken_adapter_at_the_start_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "adapters" / "dpi.toml", "name = 3")
    with pytest.raises(AdapterError, match=r"dpi\.toml"):
        KnownSources(tmp_path)
