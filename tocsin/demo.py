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
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Final

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from console.pulse import HospitalPulse
from ingest.visible import visible
from tocsin.exercise import PlayReport, Scenario, StageResult, TimedLine, play, render, stages_found
from tocsin.exercise_command import SEED, scenario_named
from tocsin.exercise_scenario import ExerciseError
from tocsin.languages import counted, gettext, in_language
from tocsin.processes import Running, running
from tocsin.settings import Settings
from tocsin.settings_sections import ListenerSection
from tocsin.tally import Flow

FOLDER: Final = Path(".demo")
ANSWER_SECONDS: Final = 60.0
DEMO_LATENESS: Final = timedelta(seconds=1)  # the lines come over one connection, in the order of their times
PLAIN_WIDTH: Final = 150  # columns where there is no terminal to ask
LIVE_RATE: Final = 120.0
"""Lines a second with the console open: slow enough to watch the alerts come in."""

STYLES: Final = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan", "informational": "dim"}


class DemoError(ExerciseError):
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
        screen.print(Text(gettext("1/4  Loading rules and starting Tocsin in {folder}").format(folder=folder)))
        with running(_demo_settings(settings, scenario, folder, headless=headless)) as here:
            host, port = here.listeners["demo"]
            screen.print(Text("     " + _places(here, f"{host}:{port}")))
            if not headless:
                invitation = gettext("Open {console} now: the alerts come in live.").format(console=here.console_url)
                screen.print(Text(f"     {invitation}", style="bold"))
            screen.print(Text(_about(scenario, len(lines))))
            report = _play(screen, lines, host, port, rate=None if headless else LIVE_RATE)
            screen.print(Text(gettext("3/4  Waiting until every line is searched")))
            _await_answers(here, report.lines)
            _await_correlations(here)
            screen.print(Text(gettext("4/4  What the analysts see")))
            code = _report(screen, here, scenario, report)
            if not headless:
                _serve(screen, here)
    return code


def _places(here: Running, syslog: str) -> str:
    return counted(
        "{n} rules; syslog on {syslog}; console on {console}",
        len(here.plan.rules) if here.plan else 0,
        syslog=syslog,
        console=here.console_url,
    )


def _about(scenario: Scenario, lines: int) -> str:
    title = in_language(scenario.title)
    return counted("2/4  Playing “{title}”: {n} lines from {hospital}", lines, title=title, hospital=scenario.hospital)


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
            "correlate": settings.correlate.model_copy(
                update={"lateness_seconds": DEMO_LATENESS.total_seconds(), "idle_seconds": 0.2}
            ),
            "console": console,
        }
    )


def _play(screen: Console, lines: list[TimedLine], host: str, port: int, *, rate: float | None) -> PlayReport:
    columns = (TextColumn("     {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen) as progress:
        task = progress.add_task(gettext("lines sent"), total=len(lines))
        return play(lines, host, port, rate=rate, progress=lambda sent: progress.update(task, completed=sent))


def _await_answers(here: Running, sent: int) -> None:
    """Wait until all that was sent has been read, and every match has become a stored alert."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while not _answered(here, sent):
        if here.crew.stop.is_set():
            raise DemoError(gettext("a stage died; see the log above"))
        if time.monotonic() > deadline:
            late = gettext("after {seconds} s only {received} of {sent} lines were searched")
            raise DemoError(late.format(seconds=f"{ANSWER_SECONDS:.0f}", received=here.tally.received, sent=sent))
        time.sleep(0.05)


def _await_correlations(here: Running) -> None:
    """Wait until the last lines have been correlated: an event that could still come late holds them for a while."""
    correlations = here.rules.current.correlations.rules if here.rules is not None else ()
    until = datetime.now(UTC) + DEMO_LATENESS
    deadline = time.monotonic() + ANSWER_SECONDS
    while correlations and not here.crew.stop.is_set() and time.monotonic() < deadline:
        settled, tally = here.tally.settled, here.tally
        if settled is not None and settled > until and tally.passed(Flow.STORED) >= tally.passed(Flow.ALERTS):
            return
        time.sleep(0.05)


def _answered(here: Running, sent: int) -> bool:
    tally = here.tally
    plain = tally.passed(Flow.STORED) - tally.passed(Flow.CORRELATIONS)
    answered = plain + tally.passed(Flow.SILENCED) + tally.passed(Flow.QUARANTINED)
    return tally.received >= sent and answered >= tally.passed(Flow.MATCHES)


def _report(screen: Console, here: Running, scenario: Scenario, report: PlayReport) -> int:
    alerts = read_alerts(here.console_url or "")
    screen.print(_alert_table(alerts))
    stages = stages_found(scenario, [(str(alert["rule_id"]), str(alert["rule_title"])) for alert in alerts])
    screen.print(_stage_table(stages))
    (hospital,) = here.tally.hospitals
    screen.print(Text(_sums(hospital, report.lines, len(alerts))))
    whole = hospital.received == report.lines
    if lost := here.tally.passed(Flow.QUARANTINED) + here.tally.passed(Flow.UNMATCHED):
        whole = False
        screen.print(Text(counted("{n} could not be read: see the log.", lost), style="bold red"))
    found = whole and all(stage.detected for stage in stages if stage.required)
    screen.print(
        Text(gettext("The attack was found.") if found else gettext("The attack was NOT found."), style="bold")
    )
    return 0 if found else 1


def _sums(hospital: HospitalPulse, sent: int, alerts: int) -> str:
    """What became of the lines."""
    return gettext("{sent}, {received} = {understood} + {unknown}; {marked}; {alerts}.").format(
        sent=counted("{n} lines sent", sent),
        received=counted("{n} received", hospital.received),
        understood=counted("{n} understood", hospital.understood),
        unknown=counted("{n} not understood", hospital.unknown),
        marked=counted("{n} kept with a remark", hospital.marked),
        alerts=counted("{n} alerts", alerts),
    )


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
    table = Table(title=gettext("Alerts"), title_justify="left", expand=True)
    table.add_column(gettext("level"), no_wrap=True)
    table.add_column(gettext("time (UTC)"), no_wrap=True)
    for name, ratio in (
        (gettext("rule"), 4),
        (gettext("host"), 2),
        (gettext("user"), 2),
        (gettext("source"), 2),
    ):
        table.add_column(name, ratio=ratio)
    for alert in alerts:
        level = str(alert["level"])
        moment = str(alert["timestamp"])[:19].replace("T", " ")
        cells = [visible(str(alert[key] or "")) for key in ("rule_title", "host", "user", "source_ip")]
        table.add_row(Text(gettext(level), style=STYLES[level]), moment, *(Text(cell) for cell in cells))
    return table


def _stage_table(stages: list[StageResult]) -> Table:
    table = Table(title=gettext("Stages of the attack"), title_justify="left", expand=True)
    table.add_column(gettext("stage"), ratio=3)
    table.add_column(gettext("found"), no_wrap=True)
    table.add_column(gettext("by"), ratio=5)
    for stage in stages:
        mark = Text(gettext("yes"), style="green") if stage.detected else Text(gettext("no"), style="bold red")
        table.add_row(Text(in_language(stage.stage.name)), mark, Text(", ".join(stage.found_titles)))
    return table


def _serve(screen: Console, here: Running) -> None:
    served = gettext("The console is at {console} until you press Ctrl-C.").format(console=here.console_url)
    screen.print(Text(f"\n{served}", style="bold"))
    try:
        here.crew.stop.wait()
    except KeyboardInterrupt:
        screen.print(Text("\n" + gettext("Stopping.")))


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
