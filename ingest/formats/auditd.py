"""Linux audit records: `type=EXECVE msg=audit(1700000000.123:45): argc=3 a0="cat" ...`.

Values are bare, quoted, or hexadecimal: the kernel writes a value with a space, a quote or a control character as hex
without quotes, in the fields named in `_ENCODED` (audit_log_untrustedstring; linux-audit, "Audit Event Fields").
User-space records carry their own fields within `msg='...'`: they are flattened, since rules name them (`acct`, `exe`).
One event may come in several lines (SYSCALL, EXECVE, PATH...): each is an event here; `audit.serial` joins them.
"""

from __future__ import annotations

import re
from typing import Final

import polars as pl

from ingest.formats.columns import Json
from ingest.formats.piece import EnvelopeNames, Parsed, Piece, spellings_of
from ingest.formats.shapes import alike, frames_of, transposed
from ingest.logsource import LogSource

LOGSOURCE: Final = LogSource("linux", None, "auditd")
NAMES: Final = EnvelopeNames(
    time=(("audit.time", True),), host=("node",), user=("acct", "auid", "uid"), source_ip=("addr",)
)
_SPELLINGS: Final = spellings_of(NAMES)
RECORD: Final = r"^(?:node=[^ ]+ )?type=[A-Z0-9_\[\]]+ msg=audit\([0-9]{1,12}\.[0-9]{1,9}:[0-9]{1,20}\): ?"

_HEAD: Final = re.compile(
    r"(?:node=(?P<node>\S+) )?type=(?P<type>\S+) msg=audit\((?P<time>\d+)\.(?P<fraction>\d+):(?P<serial>\d+)\): ?"
)
_PAIR: Final = re.compile(r"""([\w-]{1,64})=(?:"([^"]*)"|'([^']*)'|([^\s'"\x1d]*))""")
_ENCODED: Final = frozenset(
    {
        "acct",
        "cmd",
        "comm",
        "cwd",
        "data",
        "dir",
        "exe",
        "key",
        "name",
        "new",
        "ocomm",
        "old",
        "path",
        "proctitle",
        "sw",
        "watch",
    }
)
_ARGUMENT: Final = re.compile(r"a\d{1,4}(?:\[\d+\])?")
_HEX: Final = re.compile(r"(?:[0-9A-F]{2})+")


def parse_audit(lines: pl.DataFrame) -> Parsed:
    """Pieces of records; a line that only looks like one is a reject."""
    events: list[tuple[int, dict[str, Json]]] = []
    rejects: dict[int, str] = {}
    for row, payload in zip(lines["row"].to_list(), lines["payload"].to_list(), strict=True):
        fields = record_fields(payload)
        if fields is None:
            rejects[row] = "not an audit record after all"
        else:
            events.append((row, fields))
    shapes = [transposed(same) for same in alike(events)]
    pieces = [
        Piece(LOGSOURCE, "linux.auditd", rows, frame, NAMES) for rows, frame in frames_of(shapes, spellings=_SPELLINGS)
    ]
    return Parsed(pieces, rejects)


def record_fields(text: str) -> dict[str, Json] | None:
    """The fields of one record, or None if it is not one."""
    head = _HEAD.match(text)
    if head is None:
        return None
    kind = head["type"]
    fields: dict[str, Json] = {"type": kind, "audit.serial": head["serial"]}
    fields["audit.time"] = f"{head['time']}{head['fraction'][:3]:0<3}"  # milliseconds
    if head["node"]:
        fields["node"] = head["node"]
    _pairs_into(fields, kind, text[head.end() :])
    return fields


def _pairs_into(fields: dict[str, Json], kind: str, text: str) -> None:
    for name, quoted, inner, bare in _PAIR.findall(text):
        if name == "msg" and inner:
            _pairs_into(fields, kind, inner)
            continue
        value = quoted or inner or _decoded(kind, name, bare)
        fields.setdefault(name, value)


def _decoded(kind: str, name: str, value: str) -> str:
    """The text of a value that audit wrote in hexadecimal; anything else as it is."""
    encoded = name in _ENCODED or (kind == "EXECVE" and _ARGUMENT.fullmatch(name))
    if not encoded or not _HEX.fullmatch(value):
        return value
    # proctitle and data separate arguments by NUL
    return bytes.fromhex(value).decode("utf-8", "replace").rstrip("\0").replace("\0", " ")
