"""`tocsin status`: what a person is told of processes that are well, fail, or are not there."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tocsin.chores import FOLDER, Chore, note_chore, read_notes
from tocsin.health import serve_health
from tocsin.settings import Settings, load_settings
from tocsin.status_command import status
from tocsin.vitals import Vitals

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    flags = {"data_dir": str(tmp_path / "data"), "health.enabled": "true", "health.port": "0"}
    return load_settings(None, {}, list(flags.items()))


@pytest.fixture
def vitals() -> Vitals:
    found = Vitals("detect", now=lambda: NOW)
    found.began = NOW - timedelta(hours=3)
    found.ready = True
    found.stepped("detect", 4)
    found.lag("detect", 7)
    found.tally.expect(["CH A\x1b[31m"])
    return found


@pytest.fixture
def url(settings: Settings, vitals: Vitals) -> Iterator[str]:
    with serve_health(settings, vitals) as server:
        assert server is not None
        yield server.url


def run(*arguments: str) -> Result:
    return CliRunner().invoke(status, arguments)


def test_a_process_that_is_well(url: str, tmp_path: Path) -> None:
    result = run("--url", url)
    assert result.exit_code == 0, result.output
    first, second, *rest = result.output.splitlines()
    assert first.startswith("tocsin detect ")
    assert first.endswith(url)
    assert second == "all well, running for 3 h"
    page = "\n".join(rest)
    assert "detect  last step 0 s ago, 7 records wait, for 0 s" in page
    assert r"CH A\x1b[31m  no line yet, 0.0 lines/s" in page
    assert "\x1b" not in result.output
    assert [line for line in result.output.splitlines() if len(line) > 100 and str(tmp_path) not in line] == []


def test_what_fails_is_said_first_and_in_the_exit_status(url: str, vitals: Vitals) -> None:
    vitals.failing("detect", "lake: the disk is full")
    result = run("--url", url)
    assert result.exit_code == 1
    assert result.output.splitlines()[1:3] == ["FAILING, running for 3 h", "  ! detect: lake: the disk is full"]


def test_a_chore_that_failed_fails(url: str, settings: Settings) -> None:
    note_chore(settings.data_dir, Chore.BACKUP, ok=False, reason="no room", at=NOW - timedelta(days=3))
    result = run("--url", url)
    assert result.exit_code == 1
    assert "  ! backup: no room" in result.output
    assert "backup: FAILED 3 d ago" in result.output


def test_what_a_chore_waits_for_is_said_and_is_no_failure(url: str, settings: Settings) -> None:
    note_chore(settings.data_dir, Chore.MAINTAIN, ok=True, reason="nothing expires: a clock", at=NOW)
    result = run("--url", url)
    assert result.exit_code == 0
    assert "maintenance of the lake: done 0 s ago; nothing expires: a clock" in result.output


def test_several_processes_and_one_that_is_not_there(url: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        gone = f"http://127.0.0.1:{free.getsockname()[1]}"
    result = run("--url", url, "--url", gone)
    assert result.exit_code == 2
    assert "tocsin detect" in result.output
    assert f"{gone}: nothing answers" in result.output
    told = json.loads(run("--json", "--url", url, "--url", gone).output)
    assert [(one["url"], one["error"] is None) for one in told] == [(url, True), (gone, False)]
    assert told[0]["status"]["role"] == "detect"


def test_without_an_address_the_settings_say_it_and_how_to_turn_it_on() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    result = run("--set", f"health.port={port}")
    assert result.exit_code == 2
    assert f"http://127.0.0.1:{port}: nothing answers" in result.output
    assert "health.enabled" in result.output


def test_something_else_that_answers_is_not_taken_for_a_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        thread = threading.Thread(target=answer)
        thread.start()
        result = run("--url", f"127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert result.exit_code == 2
    assert "no process of this version of Tocsin (200)" in result.output


def test_an_address_that_is_none_is_named() -> None:
    result = run("--url", "ftp://x")
    assert "ftp://x" in str(result.exception)
    assert "Error" in type(result.exception).__name__


def test_a_note_is_replaced_whole_and_remembers_the_last_success(tmp_path: Path) -> None:
    note_chore(tmp_path, Chore.VERIFY, ok=True, at=NOW, figures={"files": 3})
    note_chore(tmp_path, Chore.VERIFY, ok=False, reason="x" * 9000, at=NOW + timedelta(days=1))
    note = read_notes(tmp_path)[Chore.VERIFY]
    assert (note.ok, note.succeeded, len(note.reason)) == (False, NOW, 500)
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["verify.json"]
    (tmp_path / FOLDER / "verify.json").write_text("{")
    assert read_notes(tmp_path) == {}


def test_a_note_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    note_chore(tmp_path, Chore.BACKUP, ok=True)
    assert read_notes(tmp_path) == {}
