"""Rules change while they run: what is new takes the place of the old at once, and what is broken does not."""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from structlog.testing import capture_logs

import tocsin.rule_watch
from detections.correlation_set import CorrelationSet
from detections.rule import RuleError
from detections.rule_cache import RuleCache
from tocsin.process_commands import reload_on_signal
from tocsin.processes import Running, running
from tocsin.rule_loading import user_cache
from tocsin.rule_set import RuleSet, RuleSource
from tocsin.rule_texts import rule_texts
from tocsin.rule_watch import NoRuleError, RenewedStage, RuleWatch
from tocsin.settings import Settings
from tocsin.tally import Flow

RULE: Final = """
title: {title}
id: 4d3e8f6e-0000-4000-8000-00000000000{number}
name: rule{number}
description: About {title}
logsource: {{product: linux}}
detection: {{words: ['{word} shell'], condition: words}}
"""
OFTEN: Final = """
title: Often
id: 4d3e8f6e-0000-4000-8000-0000000000aa
correlation: {type: event_count, rules: rule1, group-by: [User], timespan: 5m, condition: {gte: 2}}
"""


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tocsin.rule_watch, "SETTLE_SECONDS", 0.01)


def write(folder: Path, number: int, word: str, title: str = "") -> Path:
    path = folder / f"r{number}.yml"
    path.write_text(RULE.format(number=number, word=word, title=title or f"Rule {number}"))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rules = tmp_path / "rules"
    rules.mkdir()
    write(rules, 1, "started")
    write(rules, 2, "ended")
    return rules


@pytest.fixture
def source(folder: Path, tmp_path: Path) -> RuleSource:
    return RuleSource((folder,), cache=RuleCache(tmp_path / "cache"))


def titles(rules: RuleSet) -> list[str]:
    return [compiled.rule.title for compiled in rules.plan.rules]


def test_changed_rules_take_the_place_of_the_old(folder: Path, source: RuleSource) -> None:
    watch = RuleWatch(source)
    first = watch.current
    assert not watch.look()
    write(folder, 1, "stopped")
    write(folder, 3, "new")
    (folder / "r2.yml").unlink()
    with capture_logs() as logs:
        assert watch.look()
    (line,) = [line for line in logs if line["event"] == "rules changed"]
    assert (line["added"], line["removed"], line["changed"], line["running"]) == (1, 1, 1, 2)
    assert (titles(first), titles(watch.current)) == (["Rule 1", "Rule 2"], ["Rule 1", "Rule 3"])
    assert [atom.value for atom in watch.current.plan.rules[0].positive] == ["stopped shell"]
    assert not watch.look()


def test_a_start_from_the_cache_gives_the_same_rules(folder: Path, source: RuleSource) -> None:
    first = RuleWatch(source).current
    again = RuleWatch(source).current
    assert not again.loaded.known.changed
    assert again.same_as(first)
    assert folder.is_dir()


def test_files_that_are_written_again_as_they_were_change_nothing(folder: Path, source: RuleSource) -> None:
    watch = RuleWatch(source)
    before = watch.current
    write(folder, 1, "started")
    (folder / "r2.yml").touch()
    with capture_logs() as logs:
        assert not watch.look()
        assert [line["event"] for line in logs] == ["rules read"]
        watch.ask()
        assert not watch.look()
    assert logs[-1]["event"] == "rules unchanged"
    assert watch.current is before


def test_a_change_that_gave_the_file_its_old_time_back_is_found(folder: Path, source: RuleSource) -> None:
    path = folder / "r1.yml"
    state = path.stat()
    watch = RuleWatch(source)
    write(folder, 1, "STARTED")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert watch.look()


def test_a_change_that_no_stamp_tells_is_found_when_asked(
    folder: Path, source: RuleSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tocsin.rule_watch._stamp_of", lambda _: (0, 0, 0))
    watch = RuleWatch(source)
    write(folder, 1, "STARTED")
    assert not watch.look()
    watch.ask()
    assert watch.look()


def test_a_broken_rule_is_refused_by_name_and_the_others_go_on(folder: Path, source: RuleSource) -> None:
    watch = RuleWatch(source)
    (folder / "r2.yml").write_text(
        "title: Rule 2\nlogsource: {product: linux}\ndetection: {a: {b|no: c}, condition: a}"
    )
    with capture_logs() as logs:
        assert watch.look()
    (line,) = [line for line in logs if line["event"] == "rule refused"]
    assert (line["rule"], line["line"]) == ("Rule 2", 3)
    assert titles(watch.current) == ["Rule 1"]
    write(folder, 1, "other")
    with capture_logs() as logs:
        assert watch.look()
    assert "rule refused" not in [line["event"] for line in logs]  # said once


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def broken(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_text("title: [")


def gone(folder: Path) -> None:
    empty(folder)
    folder.rmdir()


@pytest.mark.parametrize("harm", [empty, broken, gone])
def test_rules_that_cannot_run_are_not_taken_up(folder: Path, source: RuleSource, harm: Callable[[Path], None]) -> None:
    reasons: list[str | None] = []
    watch = RuleWatch(source, failing=reasons.append)
    before = watch.current
    harm(folder)
    with capture_logs() as logs:
        assert not watch.look()
        assert not watch.look()
    assert watch.current is before
    errors = [line for line in logs if line["log_level"] == "error"]
    assert [line["event"] for line in errors] == ["rules not taken up"]  # once, however often it is looked
    assert len(reasons) == 1
    assert "the old ones go on" in str(reasons[0])
    folder.mkdir(exist_ok=True)
    empty(folder)
    write(folder, 3, "new")
    assert watch.look()
    assert reasons[1:] == [None]
    assert titles(watch.current) == ["Rule 3"]


def test_what_was_there_before_it_failed_is_not_taken_for_new(folder: Path, source: RuleSource) -> None:
    watch = RuleWatch(source)
    before = watch.current
    folder.rename(folder.parent / "aside")
    assert not watch.look()
    (folder.parent / "aside").rename(folder)
    assert not watch.look()
    assert watch.current is before


def test_without_a_rule_that_runs_nothing_starts(folder: Path, source: RuleSource) -> None:
    broken(folder)
    with pytest.raises(NoRuleError, match="no rule that runs"):
        RuleWatch(source)
    gone(folder)
    with pytest.raises(RuleError, match="no such file or folder"):
        RuleWatch(source)


def test_placeholders_and_pipelines_are_looked_at_too(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "admins.txt").write_text("ann\n")
    (tmp_path / "p.yml").write_text(PIPELINE.format(name="user.name"))
    (folder / "r1.yml").write_text(
        "title: A\nlogsource: {product: linux}\ndetection: {a: {User|expand: '%admins%'}, condition: a}"
    )
    source = RuleSource(
        (folder,), (str(tmp_path / "p.yml"),), (tmp_path / "admins.txt",), RuleCache(tmp_path / "cache")
    )
    watch = RuleWatch(source)

    def asked() -> tuple[str | None, str]:
        (atom,) = watch.current.plan.rules[0].positive
        return atom.field, atom.value

    assert asked() == ("user.name", "ann")
    (tmp_path / "admins.txt").write_text("bob\n")
    assert watch.look()
    assert asked() == ("user.name", "bob")
    (tmp_path / "p.yml").write_text(PIPELINE.format(name="who"))
    assert watch.look()
    assert asked() == ("who", "bob")
    (tmp_path / "p.yml").write_text("priority: [")
    assert not watch.look()
    assert asked() == ("who", "bob")


PIPELINE: Final = """
name: Ours
priority: 10
transformations: [{{id: names, type: field_name_mapping, mapping: {{User: {name}}}}}]
"""


def test_files_that_are_being_written_are_waited_for(
    folder: Path, source: RuleSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at while a checkout is under way: rules are not dropped for having been seen half written."""
    watch = RuleWatch(source)
    monkeypatch.setattr(tocsin.rule_watch, "SETTLE_SECONDS", 0.2)
    (folder / "r1.yml").write_text("title: [")

    def finish() -> None:
        time.sleep(0.05)
        write(folder, 1, "stopped")

    other = threading.Thread(target=finish)
    other.start()
    with capture_logs() as logs:
        assert watch.look()
    other.join()
    assert "rule refused" not in [line["event"] for line in logs]
    assert titles(watch.current) == ["Rule 1", "Rule 2"]


def test_old_plans_do_not_stay_in_memory(folder: Path, source: RuleSource) -> None:
    watch = RuleWatch(source)
    plans = [weakref.ref(watch.current.plan)]
    for number in range(4):
        write(folder, 1, f"started{number}")
        assert watch.look()
        plans.append(weakref.ref(watch.current.plan))
    gc.collect()
    assert [plan() is None for plan in plans] == [True] * 4 + [False]
    known = watch.current.loaded.known
    assert len(known.files) == 2
    assert sum(len(file.outcomes) for file in known.files.values()) == 2


def test_texts_of_rules_are_those_of_the_rules_at_work(folder: Path, source: RuleSource) -> None:
    (folder / "often.yml").write_text(OFTEN)
    watch = RuleWatch(source)
    texts = rule_texts(lambda: watch.current.by_id)
    own = "4d3e8f6e-0000-4000-8000-000000000001"

    def description() -> str | None:
        text = texts(own)
        return None if text is None else text.description

    assert description() == "About Rule 1"
    often = texts("4d3e8f6e-0000-4000-8000-0000000000aa")
    assert often is not None
    assert "event_count" in often.source
    write(folder, 1, "started", "another")
    assert watch.look()
    assert description() == "About another"
    (folder / "r1.yml").unlink()
    assert watch.look()
    assert description() is None


def test_a_text_whose_file_is_being_changed_is_that_of_the_file(folder: Path, source: RuleSource) -> None:
    watch = RuleWatch(source)
    text = rule_texts(lambda: watch.current.by_id)
    (folder / "r1.yml").write_text("# on its way")
    shown = text("4d3e8f6e-0000-4000-8000-000000000001")
    assert shown is not None
    assert (shown.description, shown.source) == ("", "# on its way")


def test_links_and_files_that_come_and_go_are_seen(folder: Path, tmp_path: Path) -> None:
    (folder / "to-nothing.yml").symlink_to(tmp_path / "later.yml")
    watch = RuleWatch(RuleSource((folder, write(tmp_path, 9, "alone"))))
    assert titles(watch.current) == ["Rule 1", "Rule 2", "Rule 9"]
    assert not watch.look()
    write(tmp_path, 4, "linked").rename(tmp_path / "later.yml")
    assert watch.look()
    write(tmp_path, 9, "other", "another")
    assert watch.look()
    assert titles(watch.current) == ["Rule 1", "Rule 2", "Rule 4", "another"]


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"TOCSIN_CACHE": "/c", "XDG_CACHE_HOME": "/x"}, "/c/rules-cache"),
        ({"TOCSIN_CACHE": "", "XDG_CACHE_HOME": "/x"}, "/x/tocsin/rules-cache"),
        ({"XDG_CACHE_HOME": "x"}, str(Path.home() / ".cache" / "tocsin" / "rules-cache")),
    ],
)
def test_where_commands_keep_compiled_rules(environment: dict[str, str], folder: str) -> None:
    cache = user_cache(environment)
    assert cache is not None
    assert str(cache.folder) == folder


class _Stage:
    name = "some"

    def __init__(self, made_of: CorrelationSet, log: list[str]) -> None:
        self._log = log
        log.append(f"made of {len(made_of.rules)}")

    def step(self, timeout: float) -> int:
        self._log.append(f"step {timeout}")
        return 7

    def lag(self) -> int:
        return 3

    def close(self) -> None:
        self._log.append("closed")


def test_a_stage_begins_anew_only_with_other_correlations(folder: Path, source: RuleSource) -> None:
    watch = RuleWatch(source)
    log: list[str] = []
    stage = RenewedStage("some", lambda: watch.current.correlations, lambda made_of: _Stage(made_of, log))
    assert (stage.step(1), stage.lag()) == (7, 3)
    write(folder, 2, "other")
    assert watch.look()
    stage.step(2)
    (folder / "often.yml").write_text(OFTEN)
    assert watch.look()
    stage.step(3)
    stage.close()
    assert log == ["made of 0", "step 1", "step 2", "closed", "made of 1", "step 3", "closed"]


@contextmanager
def at_work(folder: Path, tmp_path: Path, seconds: float) -> Iterator[Running]:
    settings = Settings.model_validate(
        {
            "data_dir": tmp_path / "data",
            "rules": (folder,),
            "rules_reload_seconds": seconds,
            "console": {"port": 0},
            "detect": {"flush_seconds": 0.1},
            "collect": {
                "batch_seconds": 0.05,
                "listeners": ({"name": "a", "hospital": "CH A", "port": 0},),
            },
        }
    )
    with running(settings) as here:
        yield here


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.02)


def send(here: Running, word: str) -> None:
    received = here.tally.received
    with socket.create_connection(here.listeners["a"]) as connection:
        connection.sendall(f"<86>1 2026-11-23T10:00:00Z bastion sshd 7 - - root {word} shell\n".encode())
    wait_for(lambda: here.tally.received == received + 1)


def test_running_processes_take_up_changed_rules(folder: Path, tmp_path: Path) -> None:
    with at_work(folder, tmp_path, 0.3) as here:
        send(here, "new")
        assert here.tally.passed(Flow.MATCHES) == 0
        write(folder, 3, "new")
        wait_for(lambda: here.plan is not None and len(here.plan.rules) == 3)
        send(here, "new")
        wait_for(lambda: here.tally.passed(Flow.MATCHES) == 1)
        empty(folder)
        wait_for(lambda: "rules" in here.failures)
        pulse = here.pulse()
        assert pulse is not None
        assert pulse.rules_loaded == 3
        assert any("the old ones go on" in reason for reason in pulse.failing)
        send(here, "new")
        wait_for(lambda: here.tally.passed(Flow.MATCHES) == 2)
    assert stat_mode(tmp_path / "data" / "rules-cache") == 0o700


def stat_mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_signal_has_the_rules_read_anew(folder: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        with at_work(folder, tmp_path, 0) as here:
            reload_on_signal(here.reload_rules)
            write(folder, 3, "new")
            time.sleep(0.6)  # never looked at by itself
            assert here.plan is not None
            assert len(here.plan.rules) == 2
            os.kill(os.getpid(), signal.SIGHUP)
            wait_for(lambda: here.plan is not None and len(here.plan.rules) == 3)
    finally:
        signal.signal(signal.SIGHUP, before)
