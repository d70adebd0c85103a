"""`make demo`: the whole of Tocsin on one machine, under a small attack.

Nothing here is staged: the scenario's lines go over a real TCP connection to the collector, through the bus, the rules
and the alert store, and the result is read back from the console's API, as an analyst's browser would. Every run has a
folder of its own, so a run that was killed leaves nothing in the way of the next.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ingest.visible import visible
from tocsin.exercise import PlayReport, Scenario, StageResult, TimedLine, play, render, stages_found
from tocsin.exercise_command import SEED, scenario_named
from tocsin.processes import Running, running
from tocsin.settings import ListenerSection, Settings
from tocsin.tally import Flow

FOLDER: Final = Path(".demo")
ANSWER_SECONDS: Final = 60.0
PLAIN_WIDTH: Final = 150  # columns where there is no terminal to ask
LIVE_RATE: Final = 120.0
"""Lines a second with the console open: slow enough to watch the alerts come in."""

STYLES: Final = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan", "informational": "dim"}


class DemoError(Exception):
    """The demo cannot go on; the message says why in one line."""


def run_demo(settings: Settings, scenario_name: str, *, headless: bool) -> int:
    """Play a scenario through the whole of Tocsin and report what was found.

    Returns:
        Exit code: 0 if every line arrived and every required stage of the attack was found, else 1. With the console,
        it is served until interrupted.

    Raises:
        ExerciseError: There is no such scenario.
        DemoError: The pipe stood still.
    """
    _end_in_order()
    screen = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    scenario = scenario_named(settings.rules, scenario_name)
    lines = list(render(scenario, start=datetime.now(UTC) - scenario.duration, seed=SEED))
    with _fresh_folder() as folder:
        screen.print(Text(f"1/4  Loading rules and starting Tocsin in {folder}"))
        with running(_demo_settings(settings, scenario, folder, headless=headless)) as here:
            host, port = here.listeners["demo"]
            screen.print(
                Text(f"     {here.rules_running} rules; syslog on {host}:{port}; console on {here.console_url}")
            )
            if not headless:
                screen.print(Text(f"     Open {here.console_url} now: the alerts come in live.", style="bold"))
            screen.print(Text(f"2/4  Playing “{scenario.title}”: {len(lines)} lines from {scenario.hospital}"))
            report = _play(screen, lines, host, port, rate=None if headless else LIVE_RATE)
            screen.print("3/4  Waiting until every line is searched")
            _await_answers(here, report.lines)
            screen.print("4/4  What the analysts see")
            code = _report(screen, here, scenario, report)
            if not headless:
                _serve(screen, here)
    return code


@contextmanager
def _fresh_folder() -> Iterator[Path]:
    """A new folder, locked while in use and removed at the end; what killed runs left behind is removed first."""
    FOLDER.mkdir(exist_ok=True)
    with ExitStack() as held:
        with (FOLDER / "lock").open("a") as door:
            fcntl.flock(door, fcntl.LOCK_EX)  # one run at a time tidies up and moves in
            for old in FOLDER.glob("run-*"):
                if not _in_use(old):
                    shutil.rmtree(old, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(prefix="run-", dir=FOLDER))
            lock = held.enter_context((folder / "lock").open("a"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        held.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


def _in_use(folder: Path) -> bool:
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _demo_settings(settings: Settings, scenario: Scenario, folder: Path, *, headless: bool) -> Settings:
    listener = ListenerSection(name="demo", hospital=scenario.hospital, port=0)
    console = settings.console.model_copy(update={"port": 0}) if headless else settings.console
    return settings.model_copy(
        update={
            "data_dir": folder,
            "bus": settings.bus.model_copy(update={"kind": "embedded", "path": None}),
            "lake": settings.lake.model_copy(update={"path": None}),
            "alerts": settings.alerts.model_copy(update={"path": None}),
            "collect": settings.collect.model_copy(update={"listeners": (listener,)}),
            "detect": settings.detect.model_copy(update={"flush_seconds": 1.0}),
            "console": console,
        }
    )


def _play(screen: Console, lines: list[TimedLine], host: str, port: int, *, rate: float | None) -> PlayReport:
    columns = (TextColumn("     {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen) as progress:
        task = progress.add_task("lines sent", total=len(lines))
        return play(lines, host, port, rate=rate, progress=lambda sent: progress.update(task, completed=sent))


def _await_answers(here: Running, sent: int) -> None:
    """Wait until all that was sent has been read, and every match has become a stored alert."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while not _answered(here, sent):
        if here.crew.stop.is_set():
            raise DemoError("a stage died; see the log above")
        if time.monotonic() > deadline:
            raise DemoError(f"after {ANSWER_SECONDS:.0f} s only {here.tally.received} of {sent} lines were searched")
        time.sleep(0.05)


def _answered(here: Running, sent: int) -> bool:
    tally = here.tally
    return tally.received >= sent and tally.passed(Flow.STORED) >= tally.passed(Flow.MATCHES)


def _report(screen: Console, here: Running, scenario: Scenario, report: PlayReport) -> int:
    alerts = read_alerts(here.console_url or "")
    screen.print(_alert_table(alerts))
    stages = stages_found(scenario, [(str(alert["rule_id"]), str(alert["rule_title"])) for alert in alerts])
    screen.print(_stage_table(stages))
    (hospital,) = here.tally.hospitals
    screen.print(
        Text(
            f"{report.lines} lines sent, {hospital.received} received = {hospital.understood} understood"
            f" + {hospital.unknown} not understood; {hospital.marked} kept with a remark; {len(alerts)} alerts."
        )
    )
    found = all(stage.detected for stage in stages if stage.required) and hospital.received == report.lines
    screen.print(Text("The attack was found." if found else "The attack was NOT found.", style="bold"))
    return 0 if found else 1


def read_alerts(url: str) -> list[dict[str, object]]:
    """All alerts of the console's API, in the queue's order: worst first, then newest."""
    alerts: list[dict[str, object]] = []
    cursor = ""
    while True:
        with urllib.request.urlopen(f"{url}/api/alerts?limit=200{cursor}", timeout=30) as answer:  # noqa: S310 - our own
            page = orjson.loads(answer.read())
        alerts += page["items"]
        if not page["next_cursor"]:
            return alerts
        cursor = f"&cursor={page['next_cursor']}"


def _alert_table(alerts: list[dict[str, object]]) -> Table:
    table = Table(title="Alerts", title_justify="left", expand=True)
    for name, ratio in (("level", 0), ("time (UTC)", 0), ("rule", 4), ("host", 2), ("user", 2), ("source", 2)):
        table.add_column(name, ratio=ratio or None, no_wrap=not ratio)
    for alert in alerts:
        level = str(alert["level"])
        moment = str(alert["timestamp"])[:19].replace("T", " ")
        cells = [visible(str(alert[key] or "")) for key in ("rule_title", "host", "user", "source_ip")]
        table.add_row(Text(level, style=STYLES[level]), moment, *(Text(cell) for cell in cells))
    return table


def _stage_table(stages: list[StageResult]) -> Table:
    table = Table(title="Stages of the attack", title_justify="left", expand=True)
    for name, ratio in (("stage", 3), ("found", 0), ("by", 5)):
        table.add_column(name, ratio=ratio or None, no_wrap=not ratio)
    for stage in stages:
        mark = Text("yes", style="green") if stage.detected else Text("no", style="bold red")
        table.add_row(Text(stage.name), mark, Text(", ".join(stage.found_titles)))
    return table


def _serve(screen: Console, here: Running) -> None:
    screen.print(Text(f"\nThe console is at {here.console_url} until you press Ctrl-C.", style="bold"))
    try:
        here.crew.stop.wait()
    except KeyboardInterrupt:
        screen.print("\nStopping.")


def _end_in_order() -> None:
    """End as Ctrl-C does when told to terminate, and when `make` dies: nobody is then left to press Ctrl-C."""
    parent = os.getppid()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)  # even where a shell started us in the background with SIGINT ignored
    threading.Thread(target=watch, name="parent", daemon=True).start()
