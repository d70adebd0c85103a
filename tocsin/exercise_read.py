"""Reading scenario files.

A scenario is one YAML file below `rules/scenarios`. Reading checks what playing would trip over, so that a scenario
that loads also plays; every fault names the file and the key. Format: docs/rules.md, "Scenarios".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import yaml

from tocsin.exercise_scenario import (
    Body,
    Event,
    Host,
    Noise,
    RawBody,
    Scenario,
    ScenarioError,
    Stage,
    SyslogBody,
    Text,
    Value,
    WindowsBody,
)

SCENARIO_FOLDER: Final = "scenarios"
MAX_SCENARIO_BYTES: Final = 1 << 20
MAX_SECONDS: Final = 31 * 86_400.0
"""A month: longer, and a slip of the pen would fill the disk."""
MAX_TIMES: Final = 10_000
HEADER_WORD: Final = re.compile(r"[!-~]{1,48}")
"""HOSTNAME and APP-NAME of RFC 5424, section 6: printable US-ASCII; 48 is the shorter limit."""
UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class _Node:
    """A YAML map with the place it came from, so that every complaint can say where."""

    path: Path
    key: str
    content: Mapping[str, object]

    def fail(self, key: str, reason: str) -> ScenarioError:
        return ScenarioError(self.path, f"{self.key}.{key}" if self.key else key, reason)

    def allow(self, *keys: str) -> None:
        for key in self.content:
            if key not in keys:
                raise self.fail(key, f"unknown key; known here: {', '.join(keys)}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.content.get(key, default)
        if not isinstance(value, str) or not value:
            raise self.fail(key, "a text is wanted" if key in self.content else "is missing")
        return self.encodable(key, value)

    def encodable(self, key: str, text: str) -> str:
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise self.fail(key, "half of a surrogate pair is not a character")
        return text

    def word(self, key: str) -> str:
        text = self.text(key)
        if not HEADER_WORD.fullmatch(text):
            raise self.fail(
                key, f"{text!r} does not fit a syslog header: 1 to 48 printable ASCII characters are wanted"
            )
        return text

    def number(self, key: str, default: float | None = None, least: float = 0.0, most: float = MAX_SECONDS) -> float:
        value = self.content.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(key, "a number is wanted" if key in self.content else "is missing")
        if not least <= value <= most:
            raise self.fail(key, f"{value} is out of range: {least:g} to {most:.0f} is wanted")
        return float(value)

    def flag(self, key: str) -> bool:
        value = self.content.get(key, False)
        if not isinstance(value, bool):
            raise self.fail(key, "true or false is wanted")
        return value

    def both(self, key: str) -> Text:
        node = self.node(key)
        node.allow("fr", "en")
        return Text(node.text("fr"), node.text("en"))

    def node(self, key: str) -> _Node:
        return self.wrap(key, self.content.get(key))

    def wrap(self, key: str, value: object) -> _Node:
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise self.fail(key, "a map is wanted")
        return _Node(self.path, f"{self.key}.{key}" if self.key else key, value)

    def items(self, key: str) -> list[object]:
        value = self.content.get(key, [])
        if not isinstance(value, list):
            raise self.fail(key, "a list is wanted")
        return value

    def nodes(self, key: str) -> list[_Node]:
        return [self.wrap(f"{key}[{index}]", item) for index, item in enumerate(self.items(key))]

    def texts(self, key: str) -> tuple[str, ...]:
        items = self.items(key)
        if not all(isinstance(item, str) for item in items):
            raise self.fail(key, "a list of texts is wanted")
        return tuple(self.encodable(key, str(item)) for item in items)


def read_scenario(path: Path) -> Scenario:
    """Read a scenario file, without trying its events (`exercise.load_scenario` does that too).

    Raises:
        ScenarioError: The file cannot be read, is not YAML, or a key is missing, unknown or of the wrong kind.
    """
    root = _Node(path, "", _read_map(path))
    root.allow("title", "summary", "source", "hospital", "duration", "hosts", "values", "stages", "noise", "flawed")
    hospital = root.node("hospital")
    hospital.allow("name", "domain", "netbios")
    hosts = _hosts(root.node("hosts"))
    scenario = Scenario(
        id=path.stem,
        path=path,
        title=root.both("title"),
        summary=root.both("summary"),
        source=root.text("source"),
        hospital=hospital.text("name"),
        domain=hospital.word("domain"),
        netbios=hospital.word("netbios"),
        duration=timedelta(seconds=root.number("duration", least=1.0)),
        hosts=hosts,
        values=_values(root.node("values")) if "values" in root.content else {},
        stages=tuple(_stage(node, hosts) for node in root.nodes("stages")),
        noise=tuple(_noise(node, hosts) for node in root.nodes("noise")),
        flawed=tuple(_event(node, hosts) for node in root.nodes("flawed")),
    )
    _check_stages(scenario, root)
    return scenario


def _read_map(path: Path) -> Mapping[str, object]:
    """The file's one YAML map."""
    try:
        if path.stat().st_size > MAX_SCENARIO_BYTES:
            raise ScenarioError(path, "", f"larger than {MAX_SCENARIO_BYTES} bytes: not a scenario")
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except OSError as error:
        raise ScenarioError(path, "", f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ScenarioError(path, "", f"not UTF-8 at byte {error.start}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ScenarioError(path, "", f"not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ScenarioError(path, "", "a scenario is a YAML map")
    return content


def _hosts(node: _Node) -> dict[str, Host]:
    hosts = {}
    for key in node.content:
        host = node.node(key)
        host.allow("name", "address")
        hosts[key] = Host(key, host.word("name"), host.word("address"))
    return hosts


def _values(node: _Node) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for key, value in node.content.items():
        if isinstance(value, str):
            values[key] = node.encodable(key, value)
        elif isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            values[key] = node.texts(key)
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            values[key] = tuple({name: record.text(name) for name in record.content} for record in node.nodes(key))
        else:
            raise node.fail(key, "a text, a list of texts or a list of maps of texts is wanted")
    return values


def _stage(node: _Node, hosts: Mapping[str, Host]) -> Stage:
    node.allow("id", "name", "offset", "required", "expects", "events")
    expects = node.texts("expects")
    for rule in expects:
        if not UUID.fullmatch(rule):
            raise node.fail("expects", f"{rule!r} is not the id of a rule")
    return Stage(
        id=node.text("id"),
        name=node.both("name"),
        offset=node.number("offset"),
        required=node.flag("required"),
        expects=expects,
        events=tuple(_event(event, hosts) for event in node.nodes("events")),
    )


def _noise(node: _Node, hosts: Mapping[str, Host]) -> Noise:
    inner = {key: value for key, value in node.content.items() if key not in ("name", "every")}
    return Noise(node.text("name"), node.number("every", least=0.1), _event(_Node(node.path, node.key, inner), hosts))


def _event(node: _Node, hosts: Mapping[str, Host]) -> Event:
    node.allow("host", "after", "times", "every", "event", "fields", "message", "program", "text", "facility",
               "severity", "raw", "flaw", "encoding")  # fmt: skip
    named = node.content.get("host")
    places = node.texts("host") if isinstance(named, list) else (node.text("host"),)
    if not places:
        raise node.fail("host", "no host is named")
    for place in places:
        if place not in hosts:
            raise node.fail("host", f"{place!r} is not one of the hosts {', '.join(hosts)}")
    times = node.number("times", 1, least=1, most=MAX_TIMES)
    return Event(node.key, places, _body(node), node.number("after", 0), int(times), node.number("every", 0))


def _body(node: _Node) -> Body:
    forms = [form for form in ("event", "program", "raw") if form in node.content]
    if len(forms) != 1:
        raise node.fail("event", "one of event (Windows), program (Linux) or raw is wanted")
    if forms == ["event"]:
        fields = node.node("fields") if "fields" in node.content else _Node(node.path, node.key, {})
        message = node.text("message") if "message" in node.content else None
        return WindowsBody(node.text("event"), {name: _scalar(fields, name) for name in fields.content}, message)
    if forms == ["program"]:
        facility, severity = node.number("facility", 10, most=23), node.number("severity", 6, most=7)
        return SyslogBody(node.word("program"), _one_line(node, "text"), int(facility), int(severity))
    encoding = node.text("encoding", "utf-8")
    if encoding not in ("utf-8", "latin-1"):
        raise node.fail("encoding", "utf-8 or latin-1 is wanted")
    return RawBody(_one_line(node, "raw"), node.text("flaw"), encoding)


def _scalar(node: _Node, key: str) -> str:
    value = node.content[key]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise node.fail(key, "a text or a whole number is wanted")
    return node.encodable(key, str(value))


def _one_line(node: _Node, key: str) -> str:
    text = node.text(key)
    if "\n" in text:
        raise node.fail(key, "a line feed would end the line on a newline-framed connection")
    return text


def _check_stages(scenario: Scenario, root: _Node) -> None:
    """Stages are in time order, inside the duration, distinct, and each expected rule says which stage it is."""
    if not any(stage.required for stage in scenario.stages):
        raise root.fail("stages", "none is required, so that no run could fail")
    expected: dict[str, str] = {}
    names: set[str] = set()
    before = 0.0
    for index, stage in enumerate(scenario.stages):
        key = f"stages[{index}]"
        if stage.id in names:
            raise root.fail(f"{key}.id", f"{stage.id!r} is given twice")
        if not before <= stage.offset < scenario.duration.total_seconds():
            raise root.fail(f"{key}.offset", "stages are in time order and lie within the duration")
        if stage.required and not stage.expects:
            raise root.fail(f"{key}.required", "a stage that expects no rule cannot be found")
        for rule in stage.expects:
            if expected.setdefault(rule, stage.id) != stage.id:
                raise root.fail(f"{key}.expects", f"rule {rule} is already expected by stage {expected[rule]!r}")
        names.add(stage.id)
        before = stage.offset
