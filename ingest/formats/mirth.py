"""Mirth Connect (NextGen Connect, Open Integration Engine): the interface engine between a hospital's systems.

Its server log is log4j's, level first: `ERROR 2023-03-14 21:05:23,313 [thread] com.mirth.connect....Class: message`,
with a stack trace after it in the same line where the forwarder joined them. Milliseconds follow a comma, or a point
since version 4. A thread that works for a channel says so: `TCP Receiver Thread on ADT Inbound (UUID) <
pool-1-thread-3`, and messages name channels as `(TCP Listener "Source" on channel UUID)`. Other programs use the
pattern as well, so a line is taken for Mirth's by its loggers, by a thread that names a channel, or by the name of the
program in the syslog header. Source: mirth.log as quoted in the documentation of Mirth Connect and of Open Integration
Engine.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from ingest.formats.piece import EnvelopeNames, Parsed, Piece
from ingest.logsource import LogSource

LOGSOURCE: Final = LogSource("mirth", None, "server")
DATASET: Final = "mirth"
NAMES: Final = EnvelopeNames(time=(("log.time", True),), source_ip=("remote",))

PROGRAMS: Final = ("mirth", "mirthconnect", "mirth-connect", "mcservice", "mcserver", "oieserver", "oie")
_UUID: Final = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
LEVELS: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
_HEAD: Final = (
    rf"(?:{'|'.join(LEVELS)})"
    r" {1,3}[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}[,.][0-9]{3} {1,2}\["
)
OF_ANY: Final = rf"^{_HEAD}"
"""Enough where the program's name is Mirth's."""
RECOGNISE: Final = rf"^{_HEAD}(?:[^\n]*\] {{1,2}}com\.(?:mirth|webreach\.mirth)\.|[^\n]* on [^\n]*\({_UUID}\))"

_LINE: Final = (
    r"(?s)^(?P<level>[A-Z]{4,5}) {1,3}(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[,.]\d{3}) {1,2}"
    r"\[(?P<thread>[^\n]*?)\] {1,2}(?P<logger>[\w.$-]+)(?:\([^)]*\))?: ?(?P<rest>.*)$"
)
_TRACE: Final = r"(?s)\s+(?P<trace>(?:at [\w.$<>/]+\(|[\w.$]+(?:Exception|Error)(?::|\s+at )|Caused by: ).*)$"
_CHANNEL: Final = rf"^[^\n]*? on (?P<name>[^\n]+?) \((?P<id>{_UUID})\)"
_CHANNEL_IN_MESSAGE: Final = rf"(?i)\bchannel (?:\"|'|\()?({_UUID})"
_NAME_IN_MESSAGE: Final = r"(?i)\bchannel (?:\"([^\"\n]{1,100})\"|'([^'\n]{1,100})'|\[([^\]\n]{1,100})\])"


def parse_mirth(lines: pl.DataFrame) -> Parsed:
    """One piece; `message` is without the stack trace, which is `stack_trace`."""
    payload = pl.col("payload")
    read = lines.select("row", payload, payload.str.extract_groups(_LINE).struct.unnest())
    broken = read["logger"].is_null()
    rejects = dict.fromkeys(read.filter(broken)["row"].to_list(), "a line of log4j, but not as Mirth Connect writes it")
    read = read.filter(~broken)
    if read.is_empty():
        return Parsed([], rejects)
    channel = pl.col("thread").str.extract_groups(_CHANNEL)
    name = pl.col("rest").str.extract_groups(_NAME_IN_MESSAGE)
    trace = pl.col("rest").str.extract(_TRACE)
    fields = read.select(
        pl.col("time").str.replace(",", ".", literal=True).alias("log.time"),
        pl.col("level"),
        pl.col("thread"),
        pl.col("logger"),
        pl.coalesce(channel.struct[0], name.struct[0], name.struct[1], name.struct[2]).alias("channel"),
        pl.coalesce(channel.struct[1], pl.col("rest").str.extract(_CHANNEL_IN_MESSAGE)).alias("channel_id"),
        pl.col("rest").str.strip_suffix(trace.fill_null("")).str.strip_chars_end().alias("message"),
        trace.alias("stack_trace"),
    )
    return Parsed([Piece(LOGSOURCE, DATASET, read["row"], fields, NAMES)], rejects)
