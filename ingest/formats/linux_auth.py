r"""Linux accounts and sessions: PAM, su, logind, useradd and its like, cron, units of systemd.

One line each, in the words of the program; the words stay whole in `message`, since rules search them, and what they
name becomes fields: `action`, `user` (who acts), `target_user` (on whom), `target_group`, `rhost`, `command`, `unit`.
The log source is that of the program (`linux_syslog.PROGRAM_SERVICES`), so rules written for it see what they always
saw.
Trap: names come from whoever logs in, so each expression reads from a fixed beginning, and PAM's `user=` is last.
Source: pam_unix(8) and its source texts, shadow-utils, systemd-logind, cron(8), systemd(1).
"""

from __future__ import annotations

from typing import Final

import polars as pl

from ingest.formats.linux_syslog import PROGRAM_SERVICES
from ingest.formats.piece import EnvelopeNames, Parsed, Piece
from ingest.logsource import LogSource

DATASET: Final = "linux.auth"
NAMES: Final = EnvelopeNames(user=("user", "target_user"), source_ip=("rhost",))

_ACCOUNTS: Final = (
    *("useradd", "usermod", "userdel", "groupadd", "groupmod", "groupdel"),
    *("gpasswd", "passwd", "chpasswd", "chage", "newusers"),
)
_CRON: Final = ("cron", "crond", "CRON", "anacron", "crontab")
PROGRAMS: Final = ("su", "systemd-logind", "systemd", *_ACCOUNTS, *_CRON)
_PAM: Final = r"^pam_\w+\([\w.@-]+:\w+\): "
RECOGNISE: Final = (
    pl.col("syslog") & (pl.col("program").is_in(list(PROGRAMS)) | pl.col("payload").str.contains(_PAM))
).fill_null(value=False)
"""By program, and PAM's lines in whichever program."""

_PAM_HEAD: Final = r"(?s)^(?P<pam_module>pam_\w+)\((?P<pam_service>[\w.@-]+):(?P<pam_type>\w+)\): "
_NAME: Final = r"[^\s'\"(),;:]+"

Ways = tuple[tuple[str, str], ...]
"""(action, expression with groups named like fields); the first that fits counts."""

PAM: Final[Ways] = (
    (
        "session_opened",
        (
            rf"{_PAM_HEAD}session opened for user (?P<target_user>{_NAME})(?:\(uid=(?P<target_uid>\d+)\))?"
            rf" by (?P<user>{_NAME})?\(uid=(?P<uid>\d+)\)"
        ),
    ),
    ("session_closed", rf"{_PAM_HEAD}session closed for user (?P<target_user>{_NAME})"),
    (
        "authentication_failed",
        (
            rf"{_PAM_HEAD}(?:\d+ more )?authentication failures?; logname=(?P<logname>\S*) uid=(?P<uid>\d*)"
            r" euid=(?P<euid>\d*) tty=(?P<tty>\S*) ruser=(?P<user>\S*)"
            r" rhost=(?P<rhost>\S*)(?: +user=(?P<target_user>.*))?$"
        ),
    ),
    ("password_changed", rf"{_PAM_HEAD}password changed for (?P<target_user>{_NAME})"),
    ("unknown_user", rf"{_PAM_HEAD}check pass; user unknown"),
    (
        "account_locked",
        (
            rf"{_PAM_HEAD}(?:Consecutive login failures for user|user) (?P<target_user>{_NAME}) "
            r".*(?:account temporarily locked|locked due to)"
        ),
    ),
)
SU: Final[Ways] = (
    ("su_failed", rf"^FAILED SU \(to (?P<target_user>{_NAME})\) (?P<user>{_NAME}) on (?P<tty>\S+)"),
    ("su", rf"^\(to (?P<target_user>{_NAME})\) (?P<user>{_NAME}) on (?P<tty>\S+)"),
    ("su", rf"^Successful su for (?P<target_user>{_NAME}) by (?P<user>{_NAME})"),
    ("su_failed", rf"^FAILED su for (?P<target_user>{_NAME}) by (?P<user>{_NAME})"),
    ("su", rf"^\+ (?P<tty>\S+) (?P<user>{_NAME}):(?P<target_user>{_NAME})"),
    ("su_failed", rf"^- (?P<tty>\S+) (?P<user>{_NAME}):(?P<target_user>{_NAME})"),
)
LOGIND: Final[Ways] = (
    ("session_opened", rf"^New session '?(?P<session>\w+)'? of user '?(?P<target_user>{_NAME}?)'?\.?(?: with .*)?$"),
    ("session_closed", r"^(?:Removed session|Session) '?(?P<session>\w+)'?(?: logged out.*)?\.?"),
)
ACCOUNTS: Final[Ways] = (
    (
        "user_created",
        (
            r"^new user: name=(?P<target_user>[^,]+), UID=(?P<target_uid>\d+), GID=(?P<target_gid>\d+),"
            r" home=(?P<home>[^,]*), shell=(?P<shell>[^,]*)(?:, from=(?P<tty>.*))?$"
        ),
    ),
    ("group_created", r"^(?:new group|group added to \S+): name=(?P<target_group>[^,]+)(?:, GID=(?P<target_gid>\d+))?"),
    ("group_member_added", r"^add '(?P<target_user>[^']+)' to (?:shadow )?group '(?P<target_group>[^']+)'"),
    (
        "group_member_removed",
        r"^(?:delete|remove) '(?P<target_user>[^']+)' from (?:shadow )?group '(?P<target_group>[^']+)'",
    ),
    (
        "group_member_added",
        rf"^user (?P<target_user>{_NAME}) added by (?P<user>{_NAME}) to group (?P<target_group>{_NAME})",
    ),
    (
        "group_member_removed",
        rf"^user (?P<target_user>{_NAME}) removed by (?P<user>{_NAME}) from group (?P<target_group>{_NAME})",
    ),
    ("user_deleted", r"^delete user '(?P<target_user>[^']+)'"),
    ("group_deleted", r"^(?:removed|delete) (?:shadow )?group '(?P<target_group>[^']+)'"),
    ("group_deleted", r"^group '(?P<target_group>[^']+)' removed"),
    ("password_changed", r"^change user '(?P<target_user>[^']+)' password"),
    ("user_locked", r"^lock user '(?P<target_user>[^']+)' password"),
    ("user_unlocked", r"^unlock user '(?P<target_user>[^']+)' password"),
    (
        "user_changed",
        r"^change user '(?P<target_user>[^']+)' (?P<changed>\w+)(?: from '(?P<before>[^']*)' to '(?P<after>[^']*)')?",
    ),
    ("expiry_changed", rf"^changed password expiry for (?P<target_user>{_NAME})"),
)
CRON: Final[Ways] = (
    ("command", r"(?s)^\((?P<user>[^)]+)\) CMD \((?P<command>.*)\)\s*$"),
    ("table_replaced", r"^\((?P<user>[^)]+)\) REPLACE \((?P<target_user>[^)]+)\)"),
    ("table_deleted", r"^\((?P<user>[^)]+)\) DELETE \((?P<target_user>[^)]+)\)"),
    ("table_edited", r"^\((?P<user>[^)]+)\) (?:BEGIN|END) EDIT \((?P<target_user>[^)]+)\)"),
    ("table_listed", r"^\((?P<user>[^)]+)\) LIST \((?P<target_user>[^)]+)\)"),
    ("table_loaded", r"^\((?P<user>[^)]+)\) RELOAD \((?P<table>[^)]+)\)"),
)
UNITS: Final[Ways] = (
    ("unit_started", r"^Started (?P<unit>[\w@:.\\-]+\.\w+)(?: - (?P<description>.*?))?\.?$"),
    ("unit_stopped", r"^Stopped (?P<unit>[\w@:.\\-]+\.\w+)(?: - (?P<description>.*?))?\.?$"),
    ("unit_failed", r"^(?P<unit>[\w@:.\\-]+\.\w+): Failed with result '(?P<result>[^']+)'"),
    ("unit_exited", r"^(?P<unit>[\w@:.\\-]+\.\w+): Main process exited, code=(?P<code>\w+), status=(?P<status>\S+)"),
    ("unit_started", r"^Started (?P<description>.+?)\.?$"),
    ("unit_stopped", r"^Stopped (?P<description>.+?)\.?$"),
    ("unit_failed", r"^Failed to start (?P<description>.+?)\.?$"),
)

_BY_PROGRAM: Final[dict[str, Ways]] = {
    "su": SU,
    "systemd-logind": LOGIND,
    "systemd": UNITS,
    **dict.fromkeys(_ACCOUNTS, ACCOUNTS),
    **dict.fromkeys(_CRON, CRON),
}
_KINDS: Final[dict[str, Ways]] = {
    "pam": PAM,
    "su": SU,
    "logind": LOGIND,
    "units": UNITS,
    "accounts": ACCOUNTS,
    "cron": CRON,
}
_KIND_OF: Final = {program: next(k for k, v in _KINDS.items() if v is ways) for program, ways in _BY_PROGRAM.items()}
_OWN: Final = ("row", "service", "process.name", "process.pid", "structured_data", "message")


def parse_auth(lines: pl.DataFrame) -> Parsed:
    """One piece a service; a line in words that are not known has its message only."""
    program, payload = pl.col("program"), pl.col("payload")
    kept = lines.select(
        "row",
        program.replace_strict(PROGRAM_SERVICES, default="syslog", return_dtype=pl.String).alias("service"),
        program.alias("process.name"),
        pl.col("pid").alias("process.pid"),
        "structured_data",
        payload.alias("message"),
        pl.when(payload.str.contains(_PAM))
        .then(pl.lit("pam"))
        .otherwise(program.replace_strict(_KIND_OF, default="pam", return_dtype=pl.String))
        .alias("kind"),
    )
    parts = [
        _read(part.drop("kind"), _KINDS[str(kind)])
        for (kind,), part in kept.partition_by("kind", as_dict=True, maintain_order=True).items()
    ]
    fields = pl.concat(parts, how="diagonal")
    pieces = [
        Piece(LogSource("linux", None, str(service)), DATASET, part["row"], part.drop("row", "service"), NAMES)
        for (service,), part in fields.partition_by("service", as_dict=True, maintain_order=True).items()
    ]
    return Parsed(pieces)


def _read(lines: pl.DataFrame, ways: Ways) -> pl.DataFrame:
    """The lines with the fields of the first way that fits each."""
    done: list[pl.DataFrame] = []
    left = lines
    for action, expression in ways:
        if left.is_empty():
            break
        fits = left["message"].str.contains(expression)
        if not fits.any():
            continue
        groups = pl.col("message").str.extract_groups(expression).alias("groups")
        done.append(left.filter(fits).with_columns(pl.lit(action).alias("action"), groups).unnest("groups"))
        left = left.filter(~fits)
    return pl.concat([*done, left], how="diagonal")
