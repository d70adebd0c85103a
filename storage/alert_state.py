"""Where alerts stand, as the table `state` keeps it: numbers for statuses, and the fold over alerts and decisions."""

from __future__ import annotations

from typing import Final

from storage.alert import Level, Status

STATUS_CODES: Final[dict[Status, int]] = {
    Status.NEW: 0,
    Status.IN_PROGRESS: 1,
    Status.TRUE_POSITIVE: 2,
    Status.FALSE_POSITIVE: 3,
    Status.CLOSED: 4,
}
"""Status -> its number in the file; never renumbered."""

STATUSES: Final = {code: status for status, code in STATUS_CODES.items()}

_RANK: Final = "CASE a.level " + " ".join(f"WHEN '{level}' THEN {level.rank}" for level in Level) + " END"

STATE_OF_ALERT: Final = f"a.n, a.tenant, {_RANK}, a.timestamp, a.rule_id, lower(a.host)"
"""What of a row of `state` comes from its alert a."""


def code_of(column: str) -> str:
    """SQL for the number of the status that a text column holds."""
    return (
        f"CASE {column} " + " ".join(f"WHEN '{status}' THEN {code}" for status, code in STATUS_CODES.items()) + " END"
    )


def name_of(column: str) -> str:
    """SQL for the status whose number a column holds."""
    return (
        f"CASE {column} " + " ".join(f"WHEN {code} THEN '{status}'" for status, code in STATUS_CODES.items()) + " END"
    )


FOLD: Final = (
    f"SELECT {STATE_OF_ALERT}, coalesce({code_of('d.status')}, 0), d.seq "  # noqa: S608 - names above
    "FROM alerts a LEFT JOIN (SELECT alert_id, arg_max(status, seq) AS status, max(seq) AS seq "
    "FROM decisions GROUP BY alert_id) d ON d.alert_id = a.id"
)
"""The rows of `state`, derived from alerts and decisions."""
