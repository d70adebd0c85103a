"""What a receipt says: what came from each sender of a hospital, whether the bus has it, and what was made of it.

No I/O here. The last line is one of four verdicts on the newest line of the hospital, for people and for scripts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

import polars as pl

from ingest.channel_ledger import Entry
from ingest.envelope import DATASET, EVENT_ID
from ingest.parse import parse
from ingest.rawbatch import RAW_SCHEMA
from ingest.readings import Readings
from ingest.visible import visible

Language = Literal["fr", "en"]
Verdict = Literal["understood", "not_understood", "not_durable", "nothing"]

MAX_SENDERS: Final = 50
"""Senders that a receipt shows, the most recent first."""

MAX_READ: Final = 256 * 1024
"""Bytes of lines that are read for a receipt, the newest line aside: a line made to be hard to read costs seconds."""

MAX_SHOWN: Final = 200
"""Characters of a line that a receipt shows."""

NOT_UNDERSTOOD: Final = "unknown"
"""The dataset of a line that no format understood (`ingest.parse`)."""

TEXTS: Final[Mapping[Language, Mapping[str, str]]] = {
    "en": {
        "hospital": "Hospital: {tenant}",
        "now": "Time of the collector: {now}",
        "sender": "Sender {peer}",
        "heard": "  last line received: {heard}, {ago} s ago",
        "counts": "  lines: {frames} received, {durable} on the bus",
        "durable": "  on the bus: {at}",
        "waiting": "  on the bus: not yet",
        "read_as": "  understood as: {dataset} ({logsource})",
        "unread": "  understood as: nothing, no format knows such a line (it is kept and can be searched)",
        "let_go": "  understood as: not looked at, the line is no longer at hand",
        "too_long": "  understood as: not looked at, the line is too long for a receipt",
        "line": "  line: {line}",
        "patients": "  line: not shown, this listener takes data of patients",
        "more": "{count} more senders are not shown",
        "understood": "received, understood",
        "not_understood": "received, not understood",
        "not_durable": "received, not yet on the bus",
        "nothing": "nothing received yet",
    },
    "fr": {
        "hospital": "Établissement : {tenant}",
        "now": "Heure du collecteur : {now}",
        "sender": "Émetteur {peer}",
        "heard": "  dernière ligne reçue : {heard}, il y a {ago} s",
        "counts": "  lignes : {frames} reçues, {durable} sur le bus",
        "durable": "  sur le bus : {at}",
        "waiting": "  sur le bus : pas encore",
        "read_as": "  comprise comme : {dataset} ({logsource})",
        "unread": "  comprise comme : rien, aucun format ne connaît cette ligne (elle est conservée et consultable)",
        "let_go": "  comprise comme : non examinée, la ligne n'est plus disponible",
        "too_long": "  comprise comme : non examinée, la ligne est trop longue pour un accusé",
        "line": "  ligne : {line}",
        "patients": "  ligne : non affichée, ce point d'entrée reçoit des données de patients",
        "more": "{count} autres émetteurs ne sont pas affichés",
        "understood": "reçu, compris",
        "not_understood": "reçu, non compris",
        "not_durable": "reçu, pas encore sur le bus",
        "nothing": "rien reçu pour l'instant",
    },
}
"""Language -> what is said."""


def verdict_before_reading(newest: Entry | None) -> Verdict | None:
    """The verdict, as far as it stands without reading a line; None if that is all that is left to do.

    Args:
        newest: The sender that was heard last, if there is one.
    """
    if newest is None:
        return "nothing"
    return None if newest.newest == newest.frames else "not_durable"


def write_receipt(
    tenant: str, entries: Sequence[Entry], now: datetime, language: Language, readings: Readings
) -> tuple[str, Verdict]:
    """A receipt, and its verdict.

    Args:
        tenant: The hospital.
        entries: What came from its senders, the most recent first.
        now: The time.
        language: Of the text.
        readings: How its lines are to be read.
    """
    texts = TEXTS[language]
    shown = entries[:MAX_SENDERS]
    understood = read_lines(shown, readings)
    out = [texts["hospital"].format(tenant=visible(tenant)), texts["now"].format(now=_time(now))]
    for index, entry in enumerate(shown):
        out += ["", *_sender(entry, understood.get(index), now, texts)]
    if len(entries) > len(shown):
        out += ["", texts["more"].format(count=len(entries) - len(shown))]
    verdict = verdict_before_reading(entries[0] if entries else None)
    if verdict is None:
        verdict = "understood" if understood.get(0, (NOT_UNDERSTOOD, ""))[0] != NOT_UNDERSTOOD else "not_understood"
    out += ["", texts[verdict]]
    return "\n".join(out) + "\n", verdict


def read_lines(entries: Sequence[Entry], readings: Readings) -> dict[int, tuple[str, str]]:
    """Index -> the dataset and the log source of the last line; an entry whose line is not read is not there."""
    kept, room = [], MAX_READ
    for index, entry in enumerate(entries):
        size = len(entry.last or b"")
        if entry.last is not None and (index == 0 or size <= room):
            kept.append((index, entry))
            room -= size if index else 0
    raw = pl.DataFrame(
        {
            "line": [entry.last for _, entry in kept],
            "received": [entry.heard for _, entry in kept],
            "mark": [None for _ in kept],
            "tenant": [entry.tenant for _, entry in kept],
            "peer": [entry.peer for _, entry in kept],
        },
        schema=RAW_SCHEMA,
    ).with_columns(pl.Series(EVENT_ID, [str(index) for index, _ in kept], dtype=pl.String))
    found: dict[int, tuple[str, str]] = {}
    for frame in parse(raw, readings):
        for row, dataset in frame.events.select(EVENT_ID, DATASET).iter_rows():
            found[int(row)] = (str(dataset), str(frame.logsource))
    return found


def _sender(entry: Entry, understood: tuple[str, str] | None, now: datetime, texts: Mapping[str, str]) -> list[str]:
    ago = max(0, round((now - entry.heard).total_seconds()))
    out = [
        texts["sender"].format(peer=visible(entry.peer)),
        texts["heard"].format(heard=_time(entry.heard), ago=ago),
        texts["counts"].format(frames=entry.frames, durable=entry.durable),
    ]
    durable = entry.newest == entry.frames and entry.durable_at is not None
    out.append(texts["durable"].format(at=_time(entry.durable_at)) if durable else texts["waiting"])
    if understood is None:
        return [*out, texts["too_long" if entry.last is not None else "let_go"]]
    dataset, logsource = understood
    unread = dataset == NOT_UNDERSTOOD
    out.append(
        texts["unread"] if unread else texts["read_as"].format(dataset=visible(dataset), logsource=visible(logsource))
    )
    if entry.patient_data:
        out.append(texts["patients"])
    elif entry.last is not None:
        out.append(texts["line"].format(line=_shown(entry.last)))
    return out


def _shown(line: bytes) -> str:
    text = line[: 4 * MAX_SHOWN].decode("utf-8", "replace")
    return visible(text[:MAX_SHOWN]) + ("..." if len(text) > MAX_SHOWN else "")


def _time(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S.%f}"[:-3] + f" {moment:%Z}"
