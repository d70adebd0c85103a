r"""Fields of a rendered Windows message: sections, labels and values, as lines or run together.

    An account was successfully logged on.\r\n\r\nSubject:\r\n\tSecurity ID:\t\tS-1-5-18\r\n\tAccount Name: ...

Most forwarders keep lines and tabs (behind syslog escapes); Snare, evtsys and some relays turn them into spaces. With
lines, any label is told by its colon and what is unknown keeps its own text as name. Run together, only labels that are
known can be told from values: of the words before a colon, the longest run that is a label.

Values are written by whoever attacks (command lines, account names), and may hold line feeds and labels: so of a field
that comes twice the first counts, and what stands in a value never changes what stood before it. A paragraph without a
label is Windows' explanation of the event: it ends the fields.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Literal

from ingest.formats.columns import Json
from ingest.formats.windows_labels import (
    ACCESSES,
    AUDIT_CHANGES,
    LABELS,
    SECTIONS,
    VALUES,
    folded,
    label_of,
    section_of,
    without_accents,
)
from ingest.formats.windows_messages import event_of, field_of, origin

MAX_LABEL: Final = 80
"""Longest label; Windows' own have at most some 60 characters."""
MAX_UNKNOWN: Final = 100
"""Most labels of a message that are kept under their own text."""
MAX_CODED: Final = 400
"""Longest rendered value that is looked up."""
_BLANK: Final = " \t\r\n\xa0\u202f\u2007"
_LABEL: Final = re.compile(r"[?\ufffd\x80-\x9f]?[^\W\d_][^<>=\"\\|{}\[\]]*")
_EXPLANATION: Final = re.compile(
    r"\s(?:This event is generated|The subject fields indicate|Pre-authentication types,"
    r"|Certificate information is only|Logon IDs are only"
    r"|Cet .{0,4}v.{0,4}nement est g|Le champ (?:Objet|Sujet|Type)|Les champs (?:Objet|Sujet))"
)
_ELEVATION_EXPLAINED: Final = re.compile(
    r"\s(?:Token Elevation Type indicates|(?:Le t|T)ype d\W?.{1,3}l.{1,3}vation d)"
)
_COLON: Final = re.compile(r"[ \xa0\u202f]?:(?=[\s\xa0\u202f]|$)")
_NOT_SET: Final = {
    "valuenotset": "%%1793",
    "valeurnondefinie": "%%1793",
    "valeurnonfinie": "%%1793",
    "never": "%%1794",
    "jamais": "%%1794",
}
_SYSMON: Final = frozenset(
    (
        *("RuleName", "UtcTime", "ProcessGuid", "ProcessId", "Image", "FileVersion", "Description", "Product"),
        *("Company", "OriginalFileName", "CommandLine", "CurrentDirectory", "User", "LogonGuid", "LogonId"),
        *("TerminalSessionId", "IntegrityLevel", "Hashes", "ParentProcessGuid", "ParentProcessId"),
        *("ParentImage", "ParentCommandLine", "ParentUser", "TargetFilename", "CreationUtcTime"),
        *("PreviousCreationUtcTime", "Protocol", "Initiated", "SourceIsIpv6", "SourceIp", "SourceHostname"),
        *("SourcePort", "SourcePortName", "DestinationIsIpv6", "DestinationIp", "DestinationHostname"),
        *("DestinationPort", "DestinationPortName", "ImageLoaded", "Signed", "Signature", "SignatureStatus"),
        *("SourceProcessGuid", "SourceProcessGUID", "SourceProcessId", "SourceImage", "SourceThreadId"),
        *("TargetProcessGuid", "TargetProcessGUID", "TargetProcessId", "TargetImage", "NewThreadId"),
        *("StartAddress", "StartModule", "StartFunction", "GrantedAccess", "CallTrace", "SourceUser"),
        *("TargetUser", "EventType", "TargetObject", "Details", "NewName", "Hash", "Contents", "PipeName"),
        *("QueryName", "QueryStatus", "QueryResults", "Operation", "EventNamespace", "Name", "Query", "Type"),
        *("Destination", "Consumer", "Filter", "Archived", "IsExecutable", "State", "Version", "SchemaVersion"),
        *("Device", "ID", "Session", "ClientInfo"),
    )
)
"""Labels of Sysmon's messages, which are the names of its fields."""


class _Fields:
    """The fields of one message while it is read."""

    __slots__ = ("begun", "event_id", "section", "unknown", "values")

    def __init__(self, event_id: str) -> None:
        self.event_id = event_id
        self.section = ""
        self.begun = False
        self.values: dict[str, Json] = {}
        self.unknown = 0

    def begin(self, section: str) -> None:
        # Windows writes `Objet` for Subject in some versions and for Object in others; the subject always comes first.
        self.section = "Subject" if section == "Object" and not self.begun else section
        self.begun = True

    def put(self, label: str, value: str) -> str | None:
        """Keep a value; the name of its field, or None if that is taken."""
        name = _name(self.event_id, self.section, label)
        if name is None:
            if self.unknown >= MAX_UNKNOWN:
                return None
            self.unknown += 1
            name = label
        if name in self.values:
            if self.values[name] == value or not self.section:
                return None
            name = f"{self.section}.{label}" if name == label else name
        if name in self.values:
            return None
        self.values[name] = value
        return name


@lru_cache(maxsize=16384)
def _name(event_id: str, section: str, label: str) -> str | None:
    english = label_of(label)
    return None if english is None else field_of(event_id, section, english)


def message_fields(message: str, event_id: str, *, sysmon: bool = False) -> dict[str, Json]:
    """The fields of a message.

    Args:
        message: The rendered text, with or without its line feeds.
        event_id: In decimal; empty if it is not known.
        sysmon: Whether the labels are those of Sysmon.
    """
    read = _Fields(event_id)
    body = message.strip(_BLANK)
    if "\n" in body:
        _read_lines(read, body.split("\n"))
    else:
        _read_run(read, body, sysmon=sysmon)
    for name in read.values.keys() & _CODED:
        read.values[name] = coded(name, str(read.values[name]))
    return read.values


def _read_lines(read: _Fields, lines: list[str]) -> None:
    last: str | None = None
    more: list[str] = []  # lines that go on with the last field
    blank = first = True
    for line in lines:
        if not line or line.isspace():
            blank = True
            continue
        label, colon, value = line.partition(":")
        labelled = colon and (not value or value[0] in _BLANK) and len(label) <= MAX_LABEL
        if labelled and last not in _LAST and _may_be_label(head := label.strip(_BLANK)):
            _go_on(read, last, more)
            value = value.strip(_BLANK)
            section = None if value or line[0] in _BLANK else section_of(head)
            if section is not None:
                read.begin(section)
                last = None
            else:
                if blank and line[0] not in _BLANK:  # outside of any section: `Logon Type:` of a 4624
                    read.section = ""
                last = read.put(head, value)
        elif last is not None and (not blank or (last in _LAST and not _ELEVATION_EXPLAINED.match(f" {line[:80]}"))):
            more.append(line.strip(_BLANK))
        elif blank and not first:
            break
        blank = first = False
    _go_on(read, last, more)


def _go_on(read: _Fields, name: str | None, more: list[str]) -> None:
    """Put lines behind the value of a field, and forget them."""
    if name is not None and more:
        before = str(read.values[name])
        read.values[name] = "\n".join([before, *more] if before else more)
    more.clear()


_LAST: Final = frozenset({"CommandLine"})
"""Fields that come last in their message: whatever follows is theirs, whatever it looks like."""


@lru_cache(maxsize=16384)
def _may_be_label(text: str) -> bool:
    return _LABEL.fullmatch(text) is not None


def _read_run(read: _Fields, text: str, *, sysmon: bool) -> None:
    """Labels and values that run together."""
    text = _without_explanation(text)
    for blank in _BLANK[1:]:
        text = text.replace(blank, " ")
    label: str | None = None
    last: str | None = None
    start = 0
    for colon in _COLON.finditer(text):
        end = colon.start()
        tail = max(start, end - MAX_LABEL - 1)
        found = _label_at_end(text[tail:end], sysmon=sysmon)
        if found is None:
            continue  # a colon within a value
        place = tail + found
        if label is not None:
            last = _keep(read, label, text[start:place].strip())
        label, start = text[place:end].strip(), colon.end()
        if not sysmon and _name(read.event_id, read.section, label) in _LAST:
            break
    if label is not None and last not in _LAST:
        _keep(read, label, text[start:].strip())


def _without_explanation(text: str) -> str:
    # The last: a command line, which comes before, may hold these words too.
    elevations = [found.start() for found in _ELEVATION_EXPLAINED.finditer(text)]
    if elevations:
        return text[: elevations[-1]]
    explained = _EXPLANATION.search(text)
    return text if explained is None else text[: explained.start()]


def _keep(read: _Fields, label: str, value: str) -> str | None:
    section = None if value else section_of(label)
    if section is not None:
        read.begin(section)
        return None
    if label_of(label) in _SECTIONLESS:
        read.section = ""
    return read.put(label, value)


_SECTIONLESS: Final = frozenset({"Logon Type"})
"""Labels that stand between two sections."""


def _label_at_end(text: str, *, sysmon: bool) -> int | None:
    """Where the label begins that ends a text; None if no words at its end are one."""
    place = len(text.rstrip())
    if sysmon:
        begin = text.rfind(" ", 0, place) + 1
        return begin if text[begin:place] in _SYSMON else None
    stop = place
    found: int | None = None
    while place > 0:
        begin = text.rfind(" ", 0, place) + 1
        ends = "" if stop - begin > MAX_LABEL else _ending(text[begin:stop])
        if not ends:
            break
        if ends == "label":
            found = begin
        place = begin - 1
    return found


def _all_endings() -> frozenset[str]:
    """What labels and sections end with, from each of their words on, in both folded forms."""
    words = (spelling for table in (LABELS, SECTIONS) for word, others in table.items() for spelling in (word, *others))
    parts = ((spelling, spelling.split()) for spelling in words)
    return frozenset(
        form for _, part in parts for place in range(len(part)) for form in folded(" ".join(part[place:])) if form
    )


_ENDINGS: Final = _all_endings()


@lru_cache(maxsize=16384)
def _ending(text: str) -> Literal["", "part", "label"]:
    """Whether a text is a label, or what a label ends with."""
    first, second = folded(text)
    if first not in _ENDINGS and second not in _ENDINGS:
        return ""
    known = label_of(text) or section_of(text)
    # A value such as `-` folds to nothing: it is no part of a label.
    return "label" if known and (text[0].isalpha() or not text[0].isascii() or text[0] == "?") else "part"


_CODED: Final = frozenset(
    {
        *(
            *VALUES,
            "AccessList",
            "AuditPolicyChanges",
            "PasswordLastSet",
            "AccountExpires",
            "DisplayName",
            "LogonHours",
        ),
        *("UserPrincipalName", "HomeDirectory", "HomePath", "ScriptPath", "ProfilePath", "UserWorkstations"),
        "UserParameters",
    }
)
"""Fields that may hold words which the event itself has as codes."""


def coded(name: str, value: str) -> str:
    """A rendered value as the code that the event itself holds; what is not known stays as it is."""
    return value if len(value) > MAX_CODED else _coded(name, value)


@lru_cache(maxsize=16384)
def _coded(name: str, value: str) -> str:
    if name == "AccessList":
        words = [ACCESSES.get(without_accents(word)) for word in value.split("\n")]
        return "\n".join(word for word in words if word) if all(words) else value
    if name == "AuditPolicyChanges":
        words = [AUDIT_CHANGES.get(without_accents(word)) for word in value.split(",")]
        return ", ".join(word for word in words if word) if all(words) else value
    first, second = folded(value)
    table = VALUES.get(name, {})
    if value.startswith("<"):
        return _NOT_SET.get(first) or _NOT_SET.get(second) or value
    return table.get(first) or table.get(second) or value


def described(message: str, event_id: str | None) -> tuple[str | None, str | None, str | None]:
    """(event id, channel, provider) of a message; the id told by its beginning if it is not given."""
    known = event_of(message)
    if event_id is None:
        return (known, *origin(known)) if known is not None else (None, None, None)
    return (event_id, *origin(event_id)) if known == event_id else (event_id, None, None)
