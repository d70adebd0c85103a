"""From an event of a scenario to the bytes a hospital would send.

Every line is RFC 5424. Of a Windows host its MSG is NXLog's JSON (im_msvistalog, to_json), of a Linux host the daemon's
own text. A raw line stands as it is written: it is wrong on purpose.

Placeholders `${name}` in texts and fields (`$$` is a dollar sign):

| placeholder | becomes |
| --- | --- |
| `host` `fqdn` `address` `domain` `domain_upper` `netbios` | the host and the hospital |
| `time` `utc` `stamp` | when: RFC 3339, as Sysmon writes UtcTime, and 14 digits |
| `port` `pid` `guid` `logon` | a free port, a process id, a GUID, a logon id |
| `int:LOW:HIGH` `hex:DIGITS` | a number, hexadecimal digits |
| a key of the scenario's `values` | its text, or one of its texts; `key.part` for a list of records |

Within one event a placeholder keeps its value, so that `${people.login}` and `${people.sid}` are of one person; a
`#tag` after it (`${guid#parent}`) makes it another one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import orjson

from tocsin.exercise_scenario import Event, Host, RawBody, Scenario, SyslogBody, WindowsBody
from tocsin.exercise_windows import GUIDS, KINDS, Kind

_SHORT_NUMBER: Final = re.compile(r"[0-9]{1,8}")
PLACEHOLDER: Final = re.compile(r"\$(?:\$|\{([^}]*)\})")
FACILITY_USER: Final = 1
MAX_APP_NAME: Final = 48  # RFC 5424, section 6
SEVERITY_ERROR: Final = 3
SEVERITY_INFORMATIONAL: Final = 6
AUDIT_SUCCESS: Final = -9214364837600034816  # 0x8020000000000000, signed as NXLog writes it
AUDIT_FAILURE: Final = -9218868437227405312  # 0x8010000000000000
OTHER_KEYWORDS: Final = -9223372036854775808


class PlaceholderError(ValueError):
    """A text of a scenario cannot be filled in; the message says which part and why."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When and where an event happens, and the number that the host's log gives it."""

    at: datetime
    host: Host
    record: int


class Filler:
    """Fills in the placeholders of one event; see the module docstring."""

    def __init__(self, scenario: Scenario, moment: Moment, dice: random.Random) -> None:
        self._scenario = scenario
        self._moment = moment
        self._dice = dice
        self._known: dict[str, str | Mapping[str, str]] = {}
        self._open: list[str] = []

    def fill(self, text: str) -> str:
        """The text with its placeholders replaced.

        Raises:
            PlaceholderError: A placeholder is not known.
        """
        return PLACEHOLDER.sub(lambda found: "$" if found[1] is None else self._value(found[1]), text)

    def _value(self, name: str) -> str:
        plain, _, tag = name.partition("#")
        key, _, part = plain.partition(".")
        memo = f"{key}#{tag}"
        if memo not in self._known:
            if memo in self._open:
                raise PlaceholderError(f"${{{name}}} stands for itself")
            self._open.append(memo)
            self._known[memo] = self._draw(key)
            self._open.pop()
        value = self._known[memo]
        if isinstance(value, str):
            if part:
                raise PlaceholderError(f"${{{name}}}: {key!r} has no parts")
            return value
        if part not in value:
            raise PlaceholderError(f"${{{name}}}: {key!r} has the parts {', '.join(value)}")
        return value[part]

    def _draw(self, key: str) -> str | Mapping[str, str]:
        choices = self._scenario.values.get(key)
        if isinstance(choices, str):
            return self.fill(choices)
        if choices is not None:
            drawn: str | Mapping[str, str] = choices[self._dice.randrange(len(choices))]
            return self.fill(drawn) if isinstance(drawn, str) else drawn
        name, *arguments = key.split(":")
        if name in _NUMBERED:
            count, draw = _NUMBERED[name]
            if len(arguments) == count and all(_SHORT_NUMBER.fullmatch(argument) for argument in arguments):
                return draw(self._dice, *map(int, arguments))
        elif not arguments and name in _DRAWN:
            return _DRAWN[name](self._dice)
        elif not arguments and name in _GIVEN:
            return _GIVEN[name](self._scenario, self._moment)
        raise PlaceholderError(f"${{{key}}} is not known")


_GIVEN: Final[dict[str, Callable[[Scenario, Moment], str]]] = {
    "host": lambda _, moment: moment.host.name,
    "fqdn": lambda scenario, moment: f"{moment.host.name}.{scenario.domain}",
    "address": lambda _, moment: moment.host.address,
    "domain": lambda scenario, _: scenario.domain,
    "domain_upper": lambda scenario, _: scenario.domain.upper(),
    "netbios": lambda scenario, _: scenario.netbios,
    "time": lambda _, moment: moment.at.isoformat(timespec="milliseconds"),
    "utc": lambda _, moment: f"{moment.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}.{moment.at.microsecond // 1000:03d}",
    "stamp": lambda _, moment: f"{moment.at.astimezone(UTC):%Y%m%d%H%M%S}",
}


def _guid(dice: random.Random) -> str:
    digits = f"{dice.getrandbits(128):032x}"
    return f"{{{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}}}"


_DRAWN: Final[dict[str, Callable[[random.Random], str]]] = {
    "port": lambda dice: str(dice.randint(49152, 65535)),
    "pid": lambda dice: str(4 * dice.randint(150, 4000)),  # Windows counts process ids in fours
    "guid": _guid,
    "logon": lambda dice: f"0x{dice.randint(0x10000, 0xFFFFFFF):x}",
}
_NUMBERED: Final[dict[str, tuple[int, Callable[..., str]]]] = {
    "int": (2, lambda dice, low, high: str(dice.randint(low, max(low, high)))),
    "hex": (1, lambda dice, digits: "".join(dice.choices("0123456789abcdef", k=min(digits, 256)))),
}


def render_event(scenario: Scenario, event: Event, moment: Moment, dice: random.Random) -> bytes:
    """The line of one event.

    Raises:
        PlaceholderError: A placeholder, or the kind of a Windows event, is not known.
    """
    filler = Filler(scenario, moment, dice)
    match event.body:
        case WindowsBody() as body:
            return _windows_line(scenario, body, moment, filler)
        case SyslogBody() as body:
            return _syslog_line(body, moment, filler)
        case RawBody() as body:
            return filler.fill(body.text).encode(body.encoding, "replace")


def _header(facility: int, severity: int, moment: Moment, host: str, program: str, process: str) -> str:
    """RFC 5424, section 6.2: without a message id and without structured data."""
    priority = facility * 8 + severity
    return f"<{priority}>1 {moment.at.isoformat(timespec='milliseconds')} {host} {program} {process} - - "


def _syslog_line(body: SyslogBody, moment: Moment, filler: Filler) -> bytes:
    process = filler.fill("${int:500:32000}")
    head = _header(body.facility, body.severity, moment, moment.host.name, body.program, process)
    return (head + filler.fill(body.text)).encode()


def _windows_line(scenario: Scenario, body: WindowsBody, moment: Moment, filler: Filler) -> bytes:
    kind = KINDS.get(body.kind)
    if kind is None:
        raise PlaceholderError(f"{body.kind!r} is not a kind of Windows event known here: {', '.join(KINDS)}")
    fqdn = f"{moment.host.name}.{scenario.domain}"
    fields = {name: filler.fill(value) for name, value in {**kind.defaults, **body.fields}.items()}
    event: dict[str, str | int] = {
        "EventTime": moment.at.isoformat(timespec="milliseconds"),
        "Hostname": fqdn,
        **_system_fields(kind, moment, filler),
        "Message": _message(kind, body, fields, filler),
        **fields,
        "EventReceivedTime": moment.at.isoformat(timespec="milliseconds"),
        "SourceModuleName": "eventlog",
        "SourceModuleType": "im_msvistalog",
    }
    severity = SEVERITY_ERROR if kind.failure else SEVERITY_INFORMATIONAL
    program = kind.source.replace(" ", "_")[:MAX_APP_NAME]  # an APP-NAME holds no space
    head = _header(FACILITY_USER, severity, moment, fqdn, program, str(event["ExecutionProcessID"]))
    return head.encode() + orjson.dumps(event)


def _system_fields(kind: Kind, moment: Moment, filler: Filler) -> dict[str, str | int]:
    audited = kind.channel == "Security"
    outcome = ("AUDIT_FAILURE" if kind.failure else "AUDIT_SUCCESS") if audited else "INFO"
    keywords = (AUDIT_FAILURE if kind.failure else AUDIT_SUCCESS) if audited else OTHER_KEYWORDS
    guid = GUIDS.get(kind.source)
    return {
        "Keywords": keywords,
        "EventType": outcome,
        "SeverityValue": 4 if kind.failure else 2,
        "Severity": "ERROR" if kind.failure else "INFO",
        "EventID": kind.event_id,
        "SourceName": kind.source,
        **({"ProviderGuid": guid} if guid else {}),
        "Task": kind.task,
        "RecordNumber": moment.record,
        "ExecutionProcessID": int(filler.fill("${int:600:1400#log}")),
        "ThreadID": int(filler.fill("${int:600:9000#thread}")),
        "Channel": kind.channel,
        "Category": kind.category,
    }


def _message(kind: Kind, body: WindowsBody, fields: Mapping[str, str], filler: Filler) -> str:
    """The rendered text: a headline, then one field a line, with the line ends of Windows."""
    if body.message is not None:
        return filler.fill(body.message)
    return "\r\n".join((f"{kind.message}\r\n", *(f"\t{name}:\t{value}" for name, value in fields.items())))
