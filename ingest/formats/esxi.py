r"""VMware ESXi: what the host agent did (hostd, vpxa), what the kernel observed (vobd), and what was typed (shell.log).

    ... esx01 Hostd: info hostd[2099] [Originator@6876 sub=... user=root] Event 7 : User root@192.0.2.9 logged in as ...
    ... In(166) Hostd[2099]: [Originator@6876 sub=...] ...                                         (ESXi 8)
    ... esx01 vobd:  [UserLevelCorrelator] 12us: [vob.user.ssh.session.opened] SSH session was opened for 'a@192.0.2.9'.
    ... shell[2100]: [root]: esxcli vm process list

A command in the shell is a process creation of Linux to Sigma, since SigmaHQ's rules on `esxcli` are written so:
`Image` and `CommandLine` are derived from it. A line may hold several commands: the Image is the first of those that
manage the host (`esxcli` and its like), wherever it stands, else the first word. There is no product of Sigma for the
rest: it is `esxi`, with the program as service.
Source: VMware, "ESXi log file locations" and "ESXi syslog message format"; Broadcom article 321910 on shell.log.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from ingest.formats.piece import EnvelopeNames, Parsed, Piece
from ingest.logsource import LogSource

PROGRAMS: Final = {
    **dict.fromkeys(("hostd", "Hostd"), "hostd"),
    **dict.fromkeys(("vpxa", "Vpxa"), "vpxa"),
    "vobd": "vobd",
    **dict.fromkeys(("shell", "ESXShell"), "shell"),
}
"""TAG -> service."""

COMMANDS: Final = LogSource("linux", "process_creation")
NAMES: Final = EnvelopeNames(user=("user",), source_ip=("src_ip",))
COMMAND_NAMES: Final = EnvelopeNames(user=("User",))

_AGENT: Final = (
    r"(?s)^(?:[A-Z][a-z]\([0-9]+\)\+? [A-Za-z]+\[[0-9]+\]: )?"
    r"(?:(?P<level>info|warning|error|verbose|trivia|panic|critical) )?"
    r"(?:(?P<inner>hostd|vpxa)(?:-\w+)?\[(?P<thread>[^\]]+)\][ :]+)?"
    r"(?:\[Originator@6876 (?P<origin>[^\]]*)\] ?)?(?P<text>.*)$"
)
_LEVELS: Final = r"^(?:info|warning|error|verbose|trivia|panic|critical) (?:hostd|vpxa)(?:-\w+)?\["
_FILE: Final = r"^(?:hostd|vpxa)(?:-\w+)?\[[^\]]+\] \[Originator@6876 "
_VOB: Final = (
    r"(?s)^\s*\[(?P<correlator>[A-Za-z]+Correlator)\] (?P<uptime>[0-9]+)us:\s+"
    r"\[(?P<event>[A-Za-z0-9_.-]+)\] ?(?P<text>.*)$"
)
_CORRELATED: Final = r"^\s*\[[A-Za-z]{1,64}Correlator\] [0-9]{1,20}us:"
_SHELL: Final = r"(?s)^\[(?P<User>[^\]]+)\]: (?P<CommandLine>.*)$"
_SHELL_LINE: Final = r"^(?:\[[^\]]+\]: |Interactive shell session|(?:SSH|ESXi Shell|DCUI)\b)"
RECOGNISE: Final = (
    pl.col("syslog")
    & pl.col("program").is_in(list(PROGRAMS))
    & (~pl.col("program").is_in(["shell", "ESXShell"]) | pl.col("payload").str.contains(_SHELL_LINE))
).fill_null(value=False) | pl.col("payload").str.contains(f"{_FILE}|{_LEVELS}|{_CORRELATED}")
"""By TAG over syslog, by their content where a file has no TAG."""

_ACCOUNT: Final = r"(?P<user>[^@\s'\"]+)@(?P<src_ip>[0-9A-Fa-f.:]*[0-9A-Fa-f])"
_SIGN_IN: Final = rf"\bUser {_ACCOUNT} (?P<did>logged in as|logged out)(?: (?P<user_agent>[^\n(][^\n]{{0,500}}))?"
_REFUSED: Final = rf"\b(?P<did>Cannot login)(?: user)? {_ACCOUNT}"
_CHECKED: Final = (
    r"\b(?P<did>Accepted|Rejected) password for user (?P<user>\S+) from (?P<src_ip>[0-9A-Fa-f.:]*[0-9A-Fa-f])"
)
_SESSION: Final = rf"session was (?P<did>opened|closed) for '{_ACCOUNT}'"
_DID: Final = {
    "logged in as": "login",
    "logged out": "logout",
    "Cannot login": "login_failed",
    "Accepted": "password_accepted",
    "Rejected": "password_rejected",
    "opened": "session_opened",
    "closed": "session_closed",
}
_MANAGING: Final = (
    r"(?:^|[;&|(`{]\s*|\b(?:nohup|time|exec|sudo|do|then)\s+)"
    r"((?:/\S*/)?(?:esxcli|localcli|vim-cmd|vmkfstools|esxcfg-\w+|vsish|vmx))(?:\s|$)"
)
_FIRST_WORD: Final = r"^\s*(?:\w+=\S*\s+)*(\S+)"


def parse_esxi(lines: pl.DataFrame) -> Parsed:
    """Commands of the shell apart, and one piece for each other program."""
    service = pl.coalesce(
        pl.when("syslog").then(pl.col("program").replace_strict(PROGRAMS, default=None, return_dtype=pl.String)),
        pl.when(pl.col("payload").str.contains(_CORRELATED)).then(pl.lit("vobd")),
        pl.col("payload").str.extract(r"\b(hostd|vpxa)(?:-\w+)?\["),
        pl.lit("hostd"),
    )
    command = (pl.col("service") == "shell") & pl.col("payload").str.contains(_SHELL)
    kept = lines.with_columns(service.alias("service")).with_columns(command.alias("command"))
    pieces = []
    for (name, typed), part in kept.partition_by("service", "command", as_dict=True, maintain_order=True).items():
        if typed:
            pieces.append(Piece(COMMANDS, "esxi.shell", part["row"], _typed(part), COMMAND_NAMES))
        else:
            fields = _observed(part) if name == "vobd" else _agent(part) if name != "shell" else _plain(part)
            pieces.append(Piece(LogSource("esxi", None, str(name)), f"esxi.{name}", part["row"], fields, NAMES))
    return Parsed(pieces)


def _typed(lines: pl.DataFrame) -> pl.DataFrame:
    line = pl.col("CommandLine")
    image = pl.coalesce(line.str.extract(_MANAGING), line.str.extract(_FIRST_WORD))
    return (
        lines.select(
            pl.lit("shell").alias("process.name"),
            pl.col("pid").alias("ParentProcessId"),  # of the shell; that of the command is not logged
            pl.col("payload").alias("message"),
            pl.col("payload").str.extract_groups(_SHELL).alias("groups"),
        )
        .unnest("groups")
        .with_columns(
            pl.when(image.str.contains("/", literal=True)).then(image).otherwise(pl.lit("/bin/") + image).alias("Image")
        )
    )


def _plain(lines: pl.DataFrame) -> pl.DataFrame:
    return lines.select(
        pl.col("program").alias("process.name"),
        pl.col("pid").alias("process.pid"),
        pl.col("payload").alias("message"),
        *_account(pl.col("payload")),
    )


def _observed(lines: pl.DataFrame) -> pl.DataFrame:
    groups = lines.select(
        pl.lit("vobd").alias("process.name"),
        pl.col("pid").alias("process.pid"),
        pl.col("payload").alias("message"),
        pl.col("payload").str.extract_groups(_VOB).alias("groups"),
        *_account(pl.col("payload")),
    )
    # `event` would be a name above those of the envelope
    return groups.unnest("groups").rename({"event": "vob", "uptime": "uptime_us"})


def _agent(lines: pl.DataFrame) -> pl.DataFrame:
    origin, text = pl.col("origin"), pl.col("text")
    parts = lines.select(
        "program", "pid", pl.col("payload"), pl.col("payload").str.extract_groups(_AGENT).alias("groups")
    ).unnest("groups")
    return parts.select(
        pl.coalesce("inner", "program").alias("process.name"),
        pl.coalesce("thread", "pid").alias("process.pid"),
        pl.col("payload").alias("message"),
        "level",
        origin.str.extract(r"(?:^| )sub=([^ ]+)").alias("sub"),
        origin.str.extract(r"(?:^| )opID=([^ ]+)").alias("opID"),
        origin.str.extract(r"(?:^| )user=([^\]]+?)(?: \w+=|$)").alias("operator"),
        text.str.extract(r"^(?:\S+ )?Event (\d{1,12}) : ").alias("event_number"),
        text.str.extract(r"\bTask Created : \S*?-(vim\.[\w.]+)").alias("task"),
        text.str.extract(r"/vmfs/volumes/\S+/([^/]+)\.vmx\b").alias("vm"),
        *_account(text),
    )


def _account(text: pl.Expr) -> list[pl.Expr]:
    """Who signed in or tried to, from where."""
    ways = [text.str.extract_groups(way) for way in (_SIGN_IN, _REFUSED, _CHECKED, _SESSION)]
    did = pl.coalesce([way.struct.field("did") for way in ways])
    return [
        did.replace_strict(_DID, default=None, return_dtype=pl.String).alias("action"),
        pl.coalesce([way.struct.field("user") for way in ways]).alias("user"),
        pl.coalesce([way.struct.field("src_ip") for way in ways]).alias("src_ip"),
        ways[0].struct.field("user_agent").str.strip_chars().alias("user_agent"),
    ]
