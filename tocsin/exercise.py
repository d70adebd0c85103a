"""Exercises: attacks on a hospital that does not exist, played through the real way of the data.

A scenario is data (`exercise_read`), its lines are made from a seed (`exercise_lines`), and they go to a listener
over a socket (`exercise_play`): nothing behind the listener knows that it is an exercise. The same scenario, start and
seed give the same bytes, so a run can be repeated and compared.

Afterwards `stages_found` says which stages of the attack the alerts tell of. A stage is found when one of the rules it
expects has fired; no rule is expected by two stages.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias

from tocsin.exercise_lines import Moment, PlaceholderError, render_event
from tocsin.exercise_play import Framing, PlayError, PlayReport, TimedLine, Transport, play
from tocsin.exercise_read import SCENARIO_FOLDER, read_scenario
from tocsin.exercise_scenario import (
    Event,
    ExerciseError,
    RawBody,
    Scenario,
    ScenarioError,
    Stage,
    Text,
)

__all__ = [
    "ExerciseError",
    "Framing",
    "PlayError",
    "PlayReport",
    "Scenario",
    "ScenarioError",
    "Stage",
    "StageResult",
    "Text",
    "TimedLine",
    "Transport",
    "list_scenarios",
    "load_scenario",
    "play",
    "render",
    "stages_found",
]

TRIAL: Final = datetime(2023, 3, 9, 20, tzinfo=UTC)
"""The moment at which loading tries every event."""

Due: TypeAlias = tuple[float, int, str | None, Event, random.Random]
"""Seconds from the start, order among equals, stage, event, and the dice of its template."""


@dataclass(frozen=True, slots=True)
class StageResult:
    """Whether a stage was found.

    Attributes:
        found: Those of its expected rules that fired, in the order it names them.
        found_titles: Their titles; the id of a rule whose alert came without one.
    """

    stage: Stage
    found: tuple[str, ...]
    found_titles: tuple[str, ...]

    @property
    def name(self) -> str:
        """The stage's English name."""
        return self.stage.name.en

    @property
    def required(self) -> bool:
        """Whether a run that misses the stage has failed."""
        return self.stage.required

    @property
    def expected(self) -> tuple[str, ...]:
        """Ids of the rules that should fire on the stage."""
        return self.stage.expects

    @property
    def missing(self) -> tuple[str, ...]:
        """Those of the expected rules that did not fire."""
        return tuple(rule for rule in self.stage.expects if rule not in self.found)

    @property
    def detected(self) -> bool:
        """Whether at least one expected rule fired."""
        return bool(self.found)


def load_scenario(path: Path) -> Scenario:
    """Read a scenario and try each of its events once.

    Raises:
        ScenarioError: The file cannot be played; the message names file, key and cause.
    """
    scenario = read_scenario(path)
    events = [event for stage in scenario.stages for event in stage.events]
    for event in (*events, *(noise.event for noise in scenario.noise), *scenario.flawed):
        for place in event.hosts:
            try:
                render_event(scenario, event, Moment(TRIAL, scenario.hosts[place], 1), _dice("trial"))
            except PlaceholderError as error:
                raise ScenarioError(path, event.key, str(error)) from error
    return scenario


def list_scenarios(rules_dir: Path) -> tuple[Scenario, ...]:
    """Every scenario below `rules_dir/scenarios`, by id; none if there is no such folder.

    Raises:
        ScenarioError: One of them cannot be played.
    """
    return tuple(load_scenario(path) for path in sorted((rules_dir / SCENARIO_FOLDER).glob("*.yml")))


def render(
    scenario: Scenario, start: datetime, seed: int, *, speed: float = 1.0, noise: float = 1.0
) -> Iterator[TimedLine]:
    """The scenario's lines in time order.

    Args:
        scenario: From `load_scenario`.
        start: Time of its beginning; aware, and its zone is the one that lines are written in.
        seed: The same seed gives the same lines.
        speed: 60 puts an hour of the scenario into a minute, with the same lines.
        noise: How much ordinary life: 2 is twice as much, 0 leaves the attack alone.

    Raises:
        ValueError: `start` has no zone, or speed or noise is out of range.
    """
    if start.tzinfo is None:
        raise ValueError("start has no time zone")
    if not speed > 0 or not noise >= 0:
        raise ValueError(f"speed {speed} must be positive, noise {noise} must not be negative")
    return _lines(scenario, start, speed, _schedule(scenario, seed, noise))


def _lines(scenario: Scenario, start: datetime, speed: float, schedule: Iterator[Due]) -> Iterator[TimedLine]:
    records: Counter[str] = Counter()
    for seconds, _, stage, event, dice in schedule:
        host = scenario.hosts[dice.choice(event.hosts)]
        records[host.key] += 1
        at = start + timedelta(seconds=seconds / speed)
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)  # lines carry milliseconds
        line = render_event(scenario, event, Moment(at, host, 100_000 + records[host.key]), dice)
        yield TimedLine(at, stage, host.name, line, event.body.flaw if isinstance(event.body, RawBody) else None)


def _schedule(scenario: Scenario, seed: int, noise: float) -> Iterator[Due]:
    """Everything that happens, in time order; each template has dice of its own, so one more changes no other."""
    attack: list[tuple[float, str | None, Event, random.Random]] = [
        (stage.offset + event.after + turn * event.every, stage.id, event, dice)
        for stage in scenario.stages
        for event in stage.events
        for dice in (_dice(f"{seed}/{scenario.id}/{event.key}"),)
        for turn in range(event.times)
    ]
    flawed: list[tuple[float, str | None, Event, random.Random]] = [
        (event.after + turn * event.every, None, event, dice)
        for event in (scenario.flawed if noise else ())
        for dice in (_dice(f"{seed}/{scenario.id}/{event.key}"),)
        for turn in range(event.times)
    ]
    told = sorted(attack + flawed, key=lambda due: due[0])
    streams = [iter([(seconds, 0, stage, event, dice) for seconds, stage, event, dice in told])]
    if noise:
        streams += [_ordinary(scenario, seed, noise, number) for number in range(len(scenario.noise))]
    return heapq.merge(*streams, key=lambda due: due[:2])


def _ordinary(scenario: Scenario, seed: int, noise: float, number: int) -> Iterator[Due]:
    """One kind of ordinary event: a Poisson process over the scenario's duration."""
    ordinary = scenario.noise[number]
    dice = _dice(f"{seed}/{scenario.id}/{ordinary.name}")
    seconds = dice.expovariate(noise / ordinary.every)
    while seconds < scenario.duration.total_seconds():
        yield seconds, number + 1, None, ordinary.event, dice
        seconds += dice.expovariate(noise / ordinary.every)


def _dice(seed: str) -> random.Random:
    return random.Random(seed)  # noqa: S311 - repeatable on purpose, and nothing secret


def stages_found(scenario: Scenario, alerts: Iterable[str | tuple[str, ...]]) -> list[StageResult]:
    """Which stages the alerts tell of; stages that expect no rule, such as the defenders' answer, are left out.

    Args:
        scenario: The one that was played.
        alerts: The rule id of each alert, alone or as the first of a tuple whose second, if any, is the rule's title.
    """
    titles: dict[str, str] = {}
    for alert in alerts:
        rule, *rest = (alert,) if isinstance(alert, str) else alert
        titles[rule] = rest[0] if rest else titles.get(rule, rule)
    return [
        StageResult(stage, found, tuple(titles[rule] for rule in found))
        for stage in scenario.stages
        if stage.expects
        for found in (tuple(rule for rule in stage.expects if rule in titles),)
    ]
