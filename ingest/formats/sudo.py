"""sudo: who ran what as whom.

`alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/usr/bin/id`, with a complaint before TTY if it was refused.
COMMAND is last and may hold anything, ` ; USER=` included, so the fields before it are read from the left.
Source: sudoers(5), "LOG FORMAT".
"""

from __future__ import annotations

from typing import Final

import polars as pl

from ingest.formats.piece import EnvelopeNames, Parsed, Piece
from ingest.logsource import LogSource

LOGSOURCE: Final = LogSource("linux", None, "sudo")
NAMES: Final = EnvelopeNames(user=("user",))

_RECORD: Final = (
    r"(?s)^ *(?P<user>\S{1,256}) : (?:(?P<problem>[^;=]*?) ; )?(?:HOST=(?P<HOST>[^;]*?) ; )?(?:TTY=(?P<TTY>[^;]*?) ; )?"
    r"(?:PWD=(?P<PWD>.*?) ; )?(?:USER=(?P<USER>[^;]*?) ; )?(?:GROUP=(?P<GROUP>[^;]*?) ; )?(?:TSID=(?P<TSID>[^;]*?) ; )?"
    r"(?:ENV=(?P<ENV>.*?) ; )?COMMAND=(?P<COMMAND>.*)$"
)


def parse_sudo(lines: pl.DataFrame) -> Parsed:
    """One piece; `user` is who asked, `target_user` whom the command ran as."""
    payload = pl.col("payload")
    fields = (
        lines.select(
            pl.lit("sudo").alias("process.name"),
            pl.col("pid").alias("process.pid"),
            payload.alias("message"),
            payload.str.extract_groups(_RECORD).alias("r"),
        )
        .unnest("r")
        # `user` and `USER` would differ only by case
        .rename({"USER": "target_user"})
    )
    return Parsed([Piece(LOGSOURCE, "linux.sudo", lines["row"], fields, NAMES)])
