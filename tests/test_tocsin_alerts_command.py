from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner, Result

from ingest.bus import TOPIC_ALERTS, TOPICS, Message, Partition
from ingest.bus_embedded import EmbeddedBus
from storage.alert import Alert, Level, Status, alert_id
from storage.alert_backup import backups_in
from storage.alert_codec import encode_alert
from storage.alert_queue import AlertFilter
from storage.alerts import AlertStore
from storage.errors import StoreError
from tocsin.alert_keeper import FIRST, RETRY, AlertKeeper
from tocsin.alert_requests import Request, What, ask, requests_folder
from tocsin.alerts_command import alerts
from tocsin.stages import StoreStage
from tocsin.tally import Tally

NOON = datetime(2026, 8, 27, 12, tzinfo=UTC)


def alert(number: int) -> Alert:
    return Alert(
        id=alert_id("rule", "CH", str(number)),
        rule_id="rule",
        rule_title=f"Rule {number}",
        level=Level.HIGH,
        tenant="CH",
        timestamp=NOON,
        received=NOON,
        logsource="a/b/c",
    )


@pytest.fixture
def told(tmp_path: Path) -> Mapping[str, str]:
    return {"TOCSIN_DATA_DIR": str(tmp_path), "TOCSIN_ALERTS__MEMORY_LIMIT": "256MB", "TOCSIN_BUS__PARTITIONS": "2"}


@pytest.fixture
def tocsin(told: Mapping[str, str]) -> Callable[..., Result]:
    runner = CliRunner(env=dict(told))
    return lambda *words: runner.invoke(alerts, list(words))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "alerts.duckdb"


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[EmbeddedBus]:
    with closing(EmbeddedBus(tmp_path / "bus.sqlite")) as opened:
        opened.ensure_topics(TOPICS)
        yield opened


def publish(bus: EmbeddedBus, *numbers: int) -> None:
    bus.publish([Message(TOPIC_ALERTS, "CH", encode_alert(alert(number))) for number in numbers])


def drain(bus: EmbeddedBus, store: AlertStore) -> None:
    with closing(StoreStage(bus, store, Tally())) as stage:
        while stage.step(0.0):
            pass


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


def keeper_of(
    store: AlertStore, folder: Path, clock: Clock, failures: list[str | None], hours: float = 24
) -> AlertKeeper:
    return AlertKeeper(store, folder, timedelta(hours=hours), 2, failures.append, clock)


def test_backups_are_made_by_the_clock(path: Path, tmp_path: Path) -> None:
    clock, failures, folder = Clock(), list[str | None](), tmp_path / "backups"
    with AlertStore(path, clock) as store:
        store.record([alert(1)], {})
        keeper = keeper_of(store, folder, clock, failures)
        keeper.step()
        assert backups_in(folder) == []
        clock.now += FIRST
        for expected in (1, 1):
            keeper.step()
            assert len(backups_in(folder)) == expected
        for expected in (2, 2):  # two are kept
            clock.now += timedelta(hours=24)
            again = keeper_of(store, folder, clock, failures)  # a process started anew knows when the last one was
            again.step()
            assert len(backups_in(folder)) == expected
        assert failures == [None] * 3
        clock.now += timedelta(hours=23)
        keeper_of(store, folder, clock, failures).step()
        assert len(failures) == 3


def test_a_backup_that_fails_is_said_and_tried_again(path: Path, tmp_path: Path) -> None:
    clock, failures, folder = Clock(), list[str | None](), tmp_path / "backups"
    folder.write_text("in the way")
    with AlertStore(path, clock) as store:
        keeper = keeper_of(store, folder, clock, failures)
        clock.now += FIRST
        keeper.step()
        keeper.step()
        assert len(failures) == 1
        assert "cannot back up" in str(failures[0])
        folder.unlink()
        clock.now += RETRY
        keeper.step()
        assert failures[1:] == [None]
        assert len(backups_in(folder)) == 1


@pytest.fixture
def held(path: Path, tmp_path: Path) -> Iterator[AlertStore]:
    """A store that a process holds: here another one, since a process may open its own file twice."""
    with AlertStore(path) as store:
        store.record([alert(1), alert(2)], {Partition(TOPIC_ALERTS, 0): 2})
        store.decide(alert(1).id, Status.CLOSED, "why", "alice")
        stop = threading.Event()
        keeper = AlertKeeper(store, tmp_path / "backups", None, 2, lambda _: None)
        thread = threading.Thread(target=keeper.run, args=[stop])
        thread.start()
        yield store
        stop.set()
        thread.join()


def run_elsewhere(told: Mapping[str, str], *words: str) -> tuple[int, str, str]:
    import subprocess
    import sys

    command = [sys.executable, "-m", "tocsin", "alerts", *words]
    ended = subprocess.run(
        command, env={**os.environ, **told}, capture_output=True, text=True, check=False, timeout=50,
        cwd=Path(__file__).resolve().parent.parent,
    )  # fmt: skip
    return ended.returncode, ended.stdout, ended.stderr


def test_a_running_console_is_asked(held: AlertStore, told: Mapping[str, str], tmp_path: Path) -> None:
    code, said, _ = run_elsewhere(told, "backup")
    assert code == 0
    (made,) = backups_in(tmp_path / "backups")
    assert str(made) in said
    assert held.journal_head()[1] in said
    assert run_elsewhere(told, "verify")[:2] == (0, "nothing is wrong\n")
    assert run_elsewhere(told, "export", str(tmp_path / "out"))[0] == 0
    assert (tmp_path / "out" / "decisions.parquet").exists()
    assert list(requests_folder(held.path).iterdir()) == []
    code, _, said = run_elsewhere(told, "restore", "newest", "--force")
    assert (code, f"process {os.getpid()}" in said) == (2, True)
    with held.database.transaction("break") as connection:
        connection.execute("UPDATE decisions SET note = 'x'")
    code, said, _ = run_elsewhere(told, "verify")
    assert (code, "entry 1" in said) == (1, True)


def test_a_process_that_takes_no_requests_is_not_waited_for(path: Path) -> None:
    requests_folder(path).mkdir()
    with pytest.raises(StoreError, match="takes no requests"):
        ask(path, Request(What.VERIFY), take_seconds=0.2)
    assert list(requests_folder(path).iterdir()) == []
    requests_folder(path).rmdir()
    with pytest.raises(StoreError, match="cannot be asked"):
        ask(path, Request(What.VERIFY))


def test_what_is_no_request_is_answered_with_an_error(path: Path, tmp_path: Path) -> None:
    with AlertStore(path) as store:
        keeper = keeper_of(store, tmp_path / "backups", Clock(), [])
        keeper.step()
        (requests_folder(path) / "x.ask").write_text('{"what": "rm"}')
        keeper.step()
        assert b"not a request" in (requests_folder(path) / "x.answer").read_bytes()


def test_back_up_and_restore_without_a_console(
    tocsin: Callable[..., Result], path: Path, tmp_path: Path, bus: EmbeddedBus
) -> None:
    assert "there is no alert store" in str(tocsin("backup").exception)
    publish(bus, 1, 2, 3)
    with AlertStore(path) as store:
        drain(bus, store)
        store.decide(alert(2).id, Status.CLOSED, "why", "alice")
    assert tocsin("backup").exit_code == 0
    (made,) = backups_in(tmp_path / "backups")
    assert tocsin("verify", "--backup", made.name).exit_code == 0
    publish(bus, 4, 2)
    with AlertStore(path) as store:
        drain(bus, store)
        expected = store.queue(AlertFilter()).items
    path.write_bytes(b"torn")
    assert "--force" in str(tocsin("restore", "newest").exception)
    restored = tocsin("restore", "newest", "--force")
    assert restored.exit_code == 0, restored.exception
    assert "3 alerts, 1 decisions" in restored.stdout
    with AlertStore(path) as store:
        drain(bus, store)  # what came since
        assert store.queue(AlertFilter()).items == expected
        assert store.verify() == []
    assert tocsin("verify").exit_code == 0


def changed(path: Path, statement: str) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute(statement)


def begun(bus: EmbeddedBus, path: Path) -> None:
    """Six alerts on the bus and in the store, one of them decided on."""
    publish(bus, *range(6))
    with AlertStore(path) as store:
        drain(bus, store)
        store.decide(alert(2).id, Status.CLOSED, "why", "alice")


def standing(path: Path) -> dict[str, Status]:
    with AlertStore(path) as store:
        assert store.verify() == []
        return {row.alert.rule_title: row.status for row in store.queue(AlertFilter()).items}


WHOLE = {f"Rule {number}": Status.NEW for number in range(6)} | {"Rule 2": Status.CLOSED}


def test_rebuilt_from_the_store_itself_and_the_bus(
    tocsin: Callable[..., Result], path: Path, bus: EmbeddedBus, tmp_path: Path
) -> None:
    begun(bus, path)
    changed(path, "DELETE FROM alerts WHERE n IN (1, 5)")  # rows that somebody lost
    ended = tocsin("rebuild")
    assert ended.exit_code == 0, ended.output
    assert "2 alerts more came from the bus" in ended.stdout
    assert standing(path) == WHOLE
    assert not [found for found in tmp_path.iterdir() if found.name.startswith(".")]


def test_rebuilt_from_the_newest_backup_that_is_whole(
    tocsin: Callable[..., Result], path: Path, bus: EmbeddedBus, tmp_path: Path
) -> None:
    begun(bus, path)
    for _ in range(2):
        assert tocsin("backup").exit_code == 0
    newest, older = backups_in(tmp_path / "backups")
    (newest / "decisions.parquet").write_bytes(b"torn")
    publish(bus, 5, 1)
    path.write_bytes(b"torn")
    ended = tocsin("rebuild")
    assert ended.exit_code == 0, ended.output
    assert "the present store cannot be used" in ended.stderr
    assert newest.name in ended.stderr
    assert older.name in ended.stdout
    assert standing(path) == WHOLE


def test_rebuilt_from_an_export(tocsin: Callable[..., Result], path: Path, bus: EmbeddedBus, tmp_path: Path) -> None:
    begun(bus, path)
    assert tocsin("export", str(tmp_path / "out")).exit_code == 0
    publish(bus, 0)
    path.unlink()
    assert tocsin("rebuild", "--from", str(tmp_path / "out")).exit_code == 0
    assert standing(path) == WHOLE
    assert tocsin("import", str(tmp_path / "out"), "--to", str(tmp_path / "other.duckdb")).exit_code == 0
    assert standing(tmp_path / "other.duckdb") == WHOLE


def test_decisions_are_not_given_up_unasked(tocsin: Callable[..., Result], path: Path, bus: EmbeddedBus) -> None:
    begun(bus, path)
    changed(path, "UPDATE decisions SET author = 'mallory'")
    ended = tocsin("rebuild")
    assert "--without-decisions" in str(ended.exception)
    assert "entry 1" in ended.stderr
    assert tocsin("verify").exit_code == 1
    assert tocsin("rebuild", "--without-decisions").exit_code == 0
    assert standing(path) == dict.fromkeys(WHOLE, Status.NEW)
