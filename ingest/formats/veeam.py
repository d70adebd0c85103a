r"""Veeam Backup & Replication: events over syslog, RFC 5424 with what looks like structured data as the message.

    ... vbr01 Veeam_MP - - [origin enterpriseId="31023"] [categoryId=0 instanceId=110 JobID="..." Description="..."]

It is not quite structured data: numbers stand without quotes, the two elements are apart, and backslashes are not
escaped, so that `Path="D:\Backup\"` ends with a quote that counts. A quote ends a value only where the next parameter
or the end follows.
There is no product of Sigma for it: `veeam`, service `backup`; `EventID` is the instance id, as in the Windows event
log on the server itself.
Source: Veeam Help Center, "Event Reference".
"""

from __future__ import annotations

import re
from typing import Final

import polars as pl

from ingest.formats.columns import Json
from ingest.formats.piece import EnvelopeNames, Parsed, Piece, spellings_of
from ingest.formats.shapes import alike, frames_of, transposed
from ingest.logsource import LogSource

LOGSOURCE: Final = LogSource("veeam", None, "backup")
DATASET: Final = "veeam.backup"
NAMES: Final = EnvelopeNames(
    time=(("syslog_time", True),),  # where the header could not be read because of what follows it
    host=("VbrHostName", "VbrHost"),
    user=("UserName", "InitiatorName", "ModifiedUserName", "user"),
    source_ip=("SourceIp", "ClientIp"),
)
_SPELLINGS: Final = spellings_of(NAMES)

_BEGINS: Final = r"(?:\[origin enterpriseId=[^\]]{0,40}\]\s?)?\[categoryId=[0-9]"
_BEFORE: Final = r"(?:1 [^ ]+ [^ ]+ [^ ]+ [^ ]+ [^ ]+ |(?:<[0-9]{1,3}> [^ ]+ )?Veeam_MP:? +(?:- - )?)"
"""What of a header is left where a relay took it for one of RFC 3164, or the priority stands behind the time."""
RECOGNISE: Final = pl.col("payload").str.contains(rf"^{_BEFORE}?{_BEGINS}") | pl.col("structured_data").str.contains(
    r"\[categoryId=[0-9]", literal=False
).fill_null(value=False)
"""By the beginning of the message, or by structured data where a relay joined the two elements."""

MAX_PARAMETERS: Final = 200
CUT: Final = "cut Veeam event: read as far as it goes"
NO_EVENT: Final = "a Veeam event without its instance id"
_HEADER: Final = re.compile(
    r"1 (?P<time>\S{1,64}) (?P<host>\S{1,255}) \S{1,48} \S{1,128} \S{1,32} |<[0-9]{1,3}> (?P<behind>\S{1,255}) Veeam_MP"
)
_ELEMENT: Final = re.compile(r"\[categoryId=")
_NUMBER: Final = re.compile(r"\s*(?P<name>[A-Za-z][\w.-]{0,63})=(?P<value>[^\s\"\]]{0,64})(?=[\s\]]|$)")
_QUOTED: Final = re.compile(r"\s*(?P<name>[A-Za-z][\w.-]{0,63})=\"")
_END: Final = re.compile(r"\"(?=\s+[A-Za-z][\w.-]{0,63}=[\"\w-]|\s*\](?:\s[^\"]*)?$)")
_END_OF_XML: Final = re.compile(r"(?<=>)\"(?=\s|\])")
_FULL_NAME: Final = re.compile(r"fullName=\\?\"([^\"]{1,256})\"")
_BY: Final = re.compile(r"\bby (?:user )?([^\s\\]{1,64}\\[^\s\"]{1,100}?)\.?(?:\s|$)")


def parse_veeam(lines: pl.DataFrame) -> Parsed:
    """Events; one that was cut is read as far as it goes, and remarked."""
    events: list[tuple[int, dict[str, Json]]] = []
    rejects: dict[int, str] = {}
    remarks: dict[int, str] = {}
    for row, payload, structured in lines.select("row", "payload", "structured_data").iter_rows():
        text = payload if _ELEMENT.search(payload) else f"{structured or ''} {payload}"
        fields, whole = veeam_fields(text)
        if "EventID" not in fields:
            rejects[row] = NO_EVENT
            continue
        if not whole:
            remarks[row] = CUT
        events.append((row, fields))
    shapes = [transposed(same) for same in alike(events)]
    pieces = [Piece(LOGSOURCE, DATASET, rows, frame, NAMES) for rows, frame in frames_of(shapes, spellings=_SPELLINGS)]
    return Parsed(pieces, rejects, remarks)


def veeam_fields(text: str) -> tuple[dict[str, Json], bool]:
    """(the parameters of the event, whether its end was reached)."""
    fields: dict[str, Json] = {}
    header = _HEADER.match(text)
    if header is not None:
        if header["time"] is not None:
            fields["syslog_time"] = header["time"]
        fields["VbrHost"] = header["host"] or header["behind"]
    begins = _ELEMENT.search(text)
    if begins is None:
        return fields, False
    place, whole = _parameters_into(fields, text, begins.start() + 1)
    if "instanceId" in fields:
        fields["EventID"] = fields["instanceId"]
    description = str(fields.get("Description") or "")
    rest = text[place:].strip(" ]")
    fields["message"] = description or rest
    found = _FULL_NAME.search(str(fields.get("UserFullInfo") or "")) or _BY.search(description)
    if found is not None:
        fields.setdefault("user", found[1])
    return fields, whole


def _parameters_into(fields: dict[str, Json], text: str, place: int) -> tuple[int, bool]:
    """Read parameters from a place on; (where they end, whether by their bracket)."""
    for _ in range(MAX_PARAMETERS):
        if found := _NUMBER.match(text, place):
            fields.setdefault(found["name"], found["value"])
            place = found.end()
        elif found := _QUOTED.match(text, place):
            # XML as a value has quotes of its own, and ends with its last tag
            ends = _END_OF_XML if text.startswith("<", found.end()) else _END
            end = ends.search(text, found.end())
            if end is None:
                value = text[found.end() :].rstrip()
                fields.setdefault(found["name"], value.removesuffix("]").removesuffix('"'))
                return len(text), value.endswith('"]')
            fields.setdefault(found["name"], text[found.end() : end.start()])
            place = end.end()
        else:
            rest = text[place:].lstrip()
            return place, rest.startswith("]")
    return place, False
