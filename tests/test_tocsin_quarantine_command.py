"""What lies in quarantine, shown to whoever operates a region: attackers wrote it."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ingest.bus import TOPIC_QUARANTINE, TOPICS, Message, Record
from ingest.bus_embedded import EmbeddedBus
from tocsin.quarantine_command import quarantine
from tocsin.settings import SettingsError
from tocsin.stages import quarantined

LONG = b"\x00\xff" + b"x" * 5_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    records = [
        Record("tocsin.raw", 2, 7, "kermor/192.0.2.1", b"evil\x1b[31m", {}),
        Record("tocsin.raw", 2, 8, "kermor/192.0.2.1", LONG, {}),
        Record("tocsin.raw", 2, 8, "kermor/192.0.2.1", LONG, {}),
    ]
    with closing(EmbeddedBus(tmp_path / "bus.sqlite")) as bus:
        bus.ensure_topics(TOPICS)
        bus.publish([quarantined(record, "not a frame: \x1b]0;") for record in records])
        bus.publish([Message(TOPIC_QUARANTINE, "k", b"of another program")])
    return tmp_path


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(quarantine, [*arguments, "--set", f"data_dir={folder}"], catch_exceptions=False)


def test_each_record_says_where_it_lay_and_why_it_is_here(folder: Path) -> None:
    result = run(folder, "list")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 5
    assert "0:0" in lines[1]
    assert "tocsin.raw:2:7" in lines[1]
    assert "kermor/192.0.2.1" in lines[1]
    assert "not a frame: " in lines[1]
    assert "5,002" in lines[2]
    assert "?:?:?" in lines[4]
    assert "\x1b" not in result.output
    assert "1 of these stand" in result.stderr
    assert len(run(folder, "list", "--limit", "2").stdout.splitlines()) == 3


def test_as_json_it_is_a_record_a_line(folder: Path) -> None:
    result = run(folder, "list", "--json")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert found[1] == {
        "place": "0:1",
        "origin": "tocsin.raw:2:8",
        "key": "kermor/192.0.2.1",
        "bytes": 5_002,
        "reason": "not a frame: \x1b]0;",
    }
    assert "\x1b" not in result.stdout


def test_one_record_is_shown_escaped_and_written_as_it_is(folder: Path) -> None:
    result = run(folder, "show", "0:0")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1] == r"evil\x1b[31m"
    cut = run(folder, "show", "0:1")
    assert cut.stdout.splitlines()[1].startswith(r"\x00\xff")
    assert "2,000 of 5,002 bytes" in cut.stderr
    assert run(folder, "show", "0:1", "--to", str(folder / "bytes")).exit_code == 0
    assert (folder / "bytes").read_bytes() == LONG


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "0:99"], "0:99: no such record"),
        (["show", "7:0"], "7:0: no such record"),
        (["show", "0:0", "--to", "{folder}/no/where"], "No such file"),
    ],
)
def test_what_cannot_be_shown_is_said(folder: Path, arguments: list[str], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        run(folder, *(one.format(folder=folder) for one in arguments))


def test_a_place_is_a_partition_and_an_offset(folder: Path) -> None:
    result = run(folder, "show", "x")
    assert result.exit_code == 2
    assert "x is no place in quarantine, such as 0:17" in result.stderr


def test_without_any_it_says_so(tmp_path: Path) -> None:
    with closing(EmbeddedBus(tmp_path / "bus.sqlite")) as bus:
        bus.ensure_topics(TOPICS)
    result = run(tmp_path, "list")
    assert (result.exit_code, result.stdout) == (0, "nothing is in quarantine\n")
