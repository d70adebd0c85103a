from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import orjson
import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from detections.load import load_rules
from detections.plan import Plan
from detections.rule_tests import run_rule_tests
from ingest.envelope import EVENT_ID, REMARK, TIMESTAMP
from ingest.parse import parse
from ingest.rawbatch import RAW_SCHEMA
from tocsin.exercise import (
    PlayError,
    Scenario,
    ScenarioError,
    TimedLine,
    list_scenarios,
    load_scenario,
    play,
    render,
    stages_found,
)
from tocsin.exercise_windows import KINDS

RULES = Path(__file__).resolve().parent.parent / "rules"
BREST = RULES / "scenarios" / "brest-2023.yml"
START = datetime(2023, 3, 9, 19, tzinfo=UTC)
RFC5424 = re.compile(
    rb"<(?P<pri>\d{1,3})>1 (?P<time>\S+) (?P<host>[!-~]{1,255}) "
    rb"(?P<app>[!-~]{1,48}) (?P<proc>[!-~]{1,128}) - - (?P<msg>.+)"
)
SCENARIO_IDS = sorted(path.stem for path in (RULES / "scenarios").glob("*.yml"))


def scenario_of(name: str) -> Scenario:
    return load_scenario(RULES / "scenarios" / f"{name}.yml")


def raw_batch(lines: list[TimedLine]) -> pl.DataFrame:
    count = len(lines)
    columns = {
        "line": [item.line for item in lines],
        "received": [item.at for item in lines],
        "mark": [None] * count,
        "tenant": ["CH de Kermor"] * count,
        "peer": ["127.0.0.1"] * count,
    }
    ids = pl.Series(EVENT_ID, [str(row) for row in range(count)], dtype=pl.String)
    return pl.DataFrame(columns, schema=RAW_SCHEMA).with_columns(ids)


def fired(plan: Plan, lines: list[TimedLine]) -> set[tuple[str | None, str, str]]:
    """(stage, rule id, level) of every match on the lines."""
    return {
        (lines[int(event)].stage, rule, level)
        for frame in parse(raw_batch(lines))
        for event, rule, level in plan.match(frame).select("event_id", "rule_id", "level").iter_rows()
    }


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan.build(load_rules([RULES]).rules)


# The scenarios of the pack


def test_the_pack_has_both_scenarios() -> None:
    found = list_scenarios(RULES)
    assert [scenario.id for scenario in found] == ["brest-2023", "ransomware-night"]
    assert all(scenario.title.fr and scenario.title.en for scenario in found)
    assert "CERT-FR" in found[0].source
    assert "generic" in found[1].title.en


def test_a_folder_without_scenarios_has_none(tmp_path: Path) -> None:
    assert list_scenarios(tmp_path) == ()


@pytest.mark.parametrize("name", SCENARIO_IDS)
def test_expected_rules_are_in_the_pack(name: str, plan: Plan) -> None:
    ids = {compiled.rule.id for compiled in plan.rules}
    expected = {rule for stage in scenario_of(name).stages for rule in stage.expects}
    assert expected
    assert expected <= ids


@pytest.mark.parametrize("name", SCENARIO_IDS)
def test_public_addresses_are_those_for_documentation(name: str) -> None:
    for item in render(scenario_of(name), START, seed=3):
        for address in re.findall(rb"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])", item.line):
            if int(address.split(b".")[0]) not in (10, 127) and not address.startswith((b"4.18.", b"1.383.")):
                assert address.startswith((b"192.0.2.", b"198.51.100.", b"203.0.113.")), address


@pytest.mark.parametrize("name", SCENARIO_IDS)
def test_every_stage_fires_its_rules_and_noise_fires_none_that_is_high(name: str, plan: Plan) -> None:
    scenario = scenario_of(name)
    matches = fired(plan, list(render(scenario, START, seed=2023)))
    for stage in scenario.stages:
        seen = {rule for where, rule, _ in matches if where == stage.id}
        assert set(stage.expects) <= seen, f"{stage.id} misses {set(stage.expects) - seen}"
    assert {match for match in matches if match[0] is None and match[2] in ("high", "critical")} == set()
    results = stages_found(scenario, [(rule, level) for _, rule, level in matches])
    assert all(result.detected and not result.missing for result in results)


@pytest.mark.parametrize("name", SCENARIO_IDS)
def test_much_noise_finds_no_stage(name: str, plan: Plan) -> None:
    scenario = scenario_of(name)
    quiet = [item for item in render(scenario, START, seed=11, noise=3.0) if item.stage is None]
    assert len(quiet) > 1500
    matches = fired(plan, quiet)
    assert {match for match in matches if match[2] in ("high", "critical")} == set()
    assert not any(result.detected for result in stages_found(scenario, [rule for _, rule, _ in matches]))


def test_nothing_is_lost_and_flawed_lines_are_marked() -> None:
    lines = list(render(scenario_of("brest-2023"), START, seed=2023))
    frames = parse(raw_batch(lines))
    rows = {
        int(event): (remark, at)
        for frame in frames
        for event, remark, at in frame.events.select(EVENT_ID, REMARK, TIMESTAMP).iter_rows()
    }
    assert sorted(rows) == list(range(len(lines)))
    marked = {lines[row].flaw for row, (remark, _) in rows.items() if remark is not None}
    assert marked >= {"JSON cut in the middle", "ISO-8859-1 instead of UTF-8"}
    assert any(flaw is not None and "1601" in flaw for flaw in marked)
    assert None not in marked
    whole = [row for row, item in enumerate(lines) if item.flaw is None]
    assert all(rows[row][1] == lines[row].at for row in whole)


# Rendering


@pytest.mark.parametrize("name", SCENARIO_IDS)
def test_the_same_seed_gives_the_same_lines(name: str) -> None:
    scenario = scenario_of(name)
    assert list(render(scenario, START, seed=7)) == list(render(scenario_of(name), START, seed=7))
    assert list(render(scenario, START, seed=7)) != list(render(scenario, START, seed=8))


@pytest.mark.parametrize("name", SCENARIO_IDS)
def test_every_line_is_rfc5424_and_its_json_parses(name: str) -> None:
    scenario = scenario_of(name)
    begin = START.astimezone(timezone(timedelta(hours=1)))
    lines = list(render(scenario, begin, seed=5))
    kinds = set()
    for item in lines:
        assert b"\n" not in item.line
        if item.flaw is not None:
            continue
        found = RFC5424.fullmatch(item.line)
        assert found, item.line
        assert int(found["pri"]) < 192
        assert datetime.fromisoformat(found["time"].decode()) == item.at
        assert found["host"].decode().split(".")[0] == item.host
        assert b"${" not in item.line
        if found["msg"].startswith(b"{"):
            event = orjson.loads(found["msg"])
            kinds.add(f"{event['Channel']}/{event['EventID']}")
            assert datetime.fromisoformat(event["EventTime"]) == item.at
            assert event["Hostname"] == found["host"].decode()
            assert event["SourceName"].replace(" ", "_")[:48] == found["app"].decode()
    assert kinds <= set(KINDS)
    assert len(kinds) > 5


@pytest.mark.parametrize("name", SCENARIO_IDS)
def test_lines_come_in_time_order_with_rising_record_numbers(name: str) -> None:
    scenario = scenario_of(name)
    lines = list(render(scenario, START, seed=5))
    assert [item.at for item in lines] == sorted(item.at for item in lines)
    assert lines[0].at >= START
    assert lines[-1].at < START + scenario.duration
    records: dict[str, int] = {}
    for item in lines:
        if item.flaw is None and (at := item.line.find(b"{")) > 0 and item.line.endswith(b"}"):
            number = orjson.loads(item.line[at:])["RecordNumber"]
            assert number > records.get(item.host, 0)
            records[item.host] = number


def test_speed_changes_times_but_not_what_happens() -> None:
    scenario = scenario_of("ransomware-night")
    slow = list(render(scenario, START, seed=5))
    fast = list(render(scenario, START, seed=5, speed=60))
    assert [(item.stage, item.host) for item in fast] == [(item.stage, item.host) for item in slow]
    assert fast[-1].at - START < timedelta(seconds=scenario.duration.total_seconds() / 60 + 1)


def test_noise_can_be_left_out_without_changing_the_attack() -> None:
    scenario = scenario_of("brest-2023")
    attack = list(render(scenario, START, seed=5, noise=0))
    assert attack
    assert {item.stage for item in attack} == {stage.id for stage in scenario.stages}
    full = [item for item in render(scenario, START, seed=5) if item.stage is not None]
    unnumbered = re.compile(rb'"RecordNumber":\d+')
    assert [unnumbered.sub(b"", item.line) for item in full] == [unnumbered.sub(b"", item.line) for item in attack]


@pytest.mark.parametrize(
    ("start", "speed", "noise", "message"),
    [
        (datetime(2023, 3, 9), 1.0, 1.0, "time zone"),  # noqa: DTZ001 - refused for that
        (START, 0.0, 1.0, "speed"),
        (START, 1.0, -1.0, "noise"),
        (START, float("nan"), 1.0, "speed"),
    ],
)
def test_render_refuses_senseless_arguments(start: datetime, speed: float, noise: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render(scenario_of("brest-2023"), start, seed=1, speed=speed, noise=noise)


# Reading

SMALL = """
title: {fr: Essai, en: Trial}
summary: {fr: Un essai., en: A trial.}
source: none
hospital: {name: CH Essai, domain: essai.example, netbios: ESSAI}
duration: 100
hosts: {one: {name: SRV1, address: 10.0.0.1}}
values: {who: [{login: a.b, rid: '1'}], where: 'C:\\x', both: '${who.login}@${host}'}
stages:
    - id: first
      name: {fr: Un, en: One}
      offset: 10
      required: true
      expects: [ee1ce183-0414-456b-9223-3f3a325902d2]
      events:
          - {host: one, event: Security/4624, fields: {TargetUserName: '${who.login}', Cost: '$$5', Who: '${both}'}}
noise:
    - {name: cron, every: 5, host: one, program: CRON, text: '(root) CMD (x)'}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "trial.yml"
    path.write_text(text, encoding="utf-8")
    return path


def test_placeholders_are_filled_in(tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, SMALL))
    (line,) = render(scenario, START, seed=1, noise=0)
    event = orjson.loads(line.line[line.line.index(b"{") :])
    assert (event["TargetUserName"], event["Cost"], event["Who"]) == ("a.b", "$5", "a.b@SRV1")
    assert line.at == START + timedelta(seconds=10)


@pytest.mark.parametrize(
    ("before", "after", "key", "reason"),
    [
        ("title: {fr: Essai, en: Trial}", "title: Essai", "title", "a map is wanted"),
        ("title: {fr: Essai, en: Trial}", "title: {fr: Essai}", "title.en", "is missing"),
        ("source: none", "origin: none", "origin", "unknown key"),
        ("duration: 100", "duration: 5", r"stages\[0\].offset", "within the duration"),
        ("duration: 100", "duration: .inf", "duration", "out of range"),
        ("duration: 100", "duration: soon", "duration", "a number is wanted"),
        ("name: SRV1", "name: SRV 1", "hosts.one.name", "syslog header"),
        ("required: true", "required: perhaps", r"stages\[0\].required", "true or false"),
        ("required: true", "required: false", "stages", "none is required"),
        ("expects: [ee1ce183-0414-456b-9223-3f3a325902d2]", "expects: []", r"stages\[0\].required", "cannot be found"),
        ("expects: [ee1ce183-0414-456b-9223-3f3a325902d2]", "expects: [rdp]", r"stages\[0\].expects", "not the id"),
        (
            "{host: one, event",
            "{host: two, event",
            r"stages\[0\].events\[0\].host",
            "'two' is not one of the hosts one",
        ),
        ("Security/4624", "Security/9999", r"stages\[0\].events\[0\]", "not a kind of Windows event"),
        ("${who.login}', Cost", "${whom}', Cost", r"stages\[0\].events\[0\]", r"\$\{whom\} is not known"),
        ("${who.login}', Cost", "${who.sid}', Cost", r"stages\[0\].events\[0\]", "has the parts login, rid"),
        ("both: '${who.login}@${host}'", "both: '${both}'", r"stages\[0\].events\[0\]", "stands for itself"),
        ("text: '(root) CMD (x)'", 'text: "a\\nb"', r"noise\[0\].text", "line feed"),
        ("text: '(root) CMD (x)'", "text: '${hex:many}'", r"noise\[0\]", "is not known"),
        ("program: CRON", "program: CRON, raw: x", r"noise\[0\].event", "one of"),
        ("every: 5", "every: 0", r"noise\[0\].every", "out of range"),
        ("stages:", "stages: [", "", "not YAML"),
    ],
)
def test_faults_name_file_and_key(tmp_path: Path, before: str, after: str, key: str, reason: str) -> None:
    assert before in SMALL
    path = write(tmp_path, SMALL.replace(before, after, 1))
    with pytest.raises(ScenarioError, match=f"trial.yml: .*{reason}") as caught:
        load_scenario(path)
    assert re.match(f"{key}$", caught.value.key) or not key


def test_one_rule_cannot_stand_for_two_stages(tmp_path: Path) -> None:
    content = yaml.safe_load(SMALL)
    content["stages"].append(content["stages"][0] | {"id": "second", "offset": 20})
    with pytest.raises(ScenarioError, match="already expected by stage 'first'"):
        load_scenario(write(tmp_path, yaml.safe_dump(content)))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"nowhere\.yml: cannot be read"):
        load_scenario(tmp_path / "nowhere.yml")
    (tmp_path / "latin.yml").write_bytes(b"title: caf\xe9\n")
    with pytest.raises(ScenarioError, match=r"latin\.yml: not UTF-8 at byte 10"):
        load_scenario(tmp_path / "latin.yml")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("${both}")
WRONG = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))


def places(value: object, here: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield here
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*here, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*here, index))


PLACES = [place for place in places(yaml.safe_load(SMALL)) if place]


@settings(max_examples=150, deadline=None)
@given(place=st.sampled_from(PLACES), wrong=WRONG)
def test_anything_anywhere_loads_and_plays_or_is_a_scenario_error(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[str | int, ...], wrong: object
) -> None:
    content = yaml.safe_load(SMALL)
    inner = content
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = wrong
    path = write(tmp_path_factory.mktemp("any"), yaml.safe_dump(content, allow_unicode=False))
    refused = ""
    try:
        scenario = load_scenario(path)
    except ScenarioError as error:
        refused = str(error)
    if refused:
        assert str(path) in refused
    else:
        short = replace(scenario, duration=min(scenario.duration, timedelta(minutes=2)))
        assert [item.line for item in render(short, START, seed=1)]


# What was found


def test_stages_found_tells_found_from_missed() -> None:
    scenario = scenario_of("brest-2023")
    by_id = {stage.id: stage for stage in scenario.stages}
    entry = by_id["entry"].expects
    results = {
        result.stage.id: result
        for result in stages_found(scenario, [(entry[1], "A title", "high"), entry[0], "not-a-rule", (entry[1],)])
    }
    assert results["entry"].detected
    assert results["entry"].found == entry[:2]
    assert results["entry"].found_titles == (entry[0], "A title")
    assert results["entry"].missing == entry[2:]
    assert not results["credentials"].detected
    assert results["credentials"].required
    assert "containment" not in results
    assert not any(result.detected for result in stages_found(scenario, []))


# Playing


@dataclass(slots=True)
class Listener:
    """A listener that keeps every byte until the sender closes."""

    port: int
    received: bytearray


@contextmanager
def listening() -> Iterator[tuple[Listener, Callable[[], None]]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        listener = Listener(server.getsockname()[1], bytearray())

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(65536):
                    listener.received += data

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener, lambda: thread.join(timeout=10)
        thread.join(timeout=10)
        assert not thread.is_alive()


def some_lines(*lines: bytes) -> list[TimedLine]:
    return [TimedLine(START, None, "SRV1", line) for line in lines]


def test_octet_counted_lines_arrive_whole() -> None:
    told: list[int] = []
    with listening() as (listener, wait):
        report = play(some_lines(b"one", b"tw\no", b"\xff" * 70_000), "127.0.0.1", listener.port, progress=told.append)
        wait()
    assert bytes(listener.received) == b"3 one4 tw\no70000 " + b"\xff" * 70_000
    assert (report.lines, report.bytes) == (3, len(listener.received))
    assert told == [1, 2, 3]


def test_newline_framing_ends_each_line() -> None:
    with listening() as (listener, wait):
        play(some_lines(b"one", b"two"), "127.0.0.1", listener.port, framing="newline")
        wait()
    assert bytes(listener.received) == b"one\ntwo\n"


def test_a_line_feed_does_not_fit_newline_framing() -> None:
    with listening() as (listener, _), pytest.raises(PlayError, match="octet-counted"):
        play(some_lines(b"tw\no"), "127.0.0.1", listener.port, framing="newline")


def test_datagrams_carry_a_line_each() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        report = play(some_lines(b"one", b"two"), "127.0.0.1", server.getsockname()[1], transport="udp")
        assert [server.recv(100), server.recv(100)] == [b"one", b"two"]
    assert report.bytes == 6


def test_nobody_listening_is_said_plainly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(PlayError, match=rf"nobody listens on 127.0.0.1:{port} \(tcp\): .*start Tocsin first"):
        play(some_lines(b"one"), "127.0.0.1", port)


def test_a_connection_cut_in_the_middle_is_said_plainly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def hang_up() -> None:
            connection, _ = server.accept()
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(PlayError, match=r"the connection broke after [0-9]+ lines"):
            play((TimedLine(START, None, "SRV1", b"x" * 65536) for _ in range(10_000)), "127.0.0.1", port)
        thread.join(timeout=10)


def test_the_rate_is_kept_by_the_clock() -> None:
    now = 100.0
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    with listening() as (listener, wait):
        report = play(some_lines(*[b"x"] * 5), "127.0.0.1", listener.port, rate=2.0, sleep=sleep, clock=lambda: now)
        wait()
    assert slept == [0.5] * 4
    assert report.seconds == pytest.approx(2.0)
    with pytest.raises(ValueError, match="not positive"):
        play([], "127.0.0.1", listener.port, rate=0)


# The rule pack


def test_every_rule_of_the_pack_is_whole(plan: Plan) -> None:
    pack = load_rules([RULES])
    assert (pack.refused, pack.unsupported, plan.refused, plan.slow, plan.ungated) == ((), (), (), (), ())
    assert len(pack.rules) >= 25
    for rule in pack.rules:
        sigma = rule.sigma
        assert (sigma.author, sigma.license) == ("Tocsin", "DRL-1.1"), rule.path
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", rule.id), rule.path
        assert sigma.description, rule.path
        assert sigma.falsepositives, rule.path
        assert any(re.fullmatch(r"attack\.t\d{4}(\.\d{3})?", tag) for tag in rule.tags), rule.path
        tests = yaml.safe_load(rule.path.with_name(f"{rule.path.stem}.tests.yml").read_text(encoding="utf-8"))
        assert len(tests["match"]) >= 2, rule.path
        assert len(tests["no_match"]) >= 2, rule.path


def weakened(detection: dict[str, object]) -> Iterator[tuple[str, dict[str, object]]]:
    """The detection with each named part made impossible, and each selection made always true."""
    for name in detection:
        if name != "condition":
            yield f"{name} never", detection | {name: {"NoSuchField": "impossible"}}
            if not name.startswith("filter"):
                yield f"{name} always", detection | {name: {"NoSuchField": None}}


RULE_PATHS = sorted({rule.path for rule in load_rules([RULES]).rules})


@pytest.mark.parametrize("path", RULE_PATHS, ids=[path.stem for path in RULE_PATHS])
def test_every_part_of_a_rule_is_shown_by_its_events(path: Path, tmp_path: Path) -> None:
    documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    trial = tmp_path / "trial.yml"
    tests = path.with_name(f"{path.stem}.tests.yml").read_text(encoding="utf-8")
    (tmp_path / "trial.tests.yml").write_text(tests, encoding="utf-8")
    trial.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    assert all(result.passed for result in run_rule_tests([trial]))
    for place, rule in enumerate(documents):
        for change, detection in weakened(rule["detection"]) if "detection" in rule else ():
            changed = [*documents[:place], rule | {"detection": detection}, *documents[place + 1 :]]
            trial.write_text(yaml.safe_dump_all(changed), encoding="utf-8")
            assert not all(result.passed for result in run_rule_tests([trial])), f"{rule['title']}: none shows {change}"
