"""Fields that Sigma rules expect of Windows events and that a carrier gave in another form, or not at all.

- Security 4688 is a process creation, so it gets Sysmon's names besides its own (SigmaHQ's taxonomy for the category).
- Security 4657 is a registry change, likewise.
- Events without a manifest (`<Data>` without a name) have `Data`, the values joined by line breaks, and `param1`...
  Winlogbeat gives only the params; NXLog gives neither, but a Message which holds the same texts.
- Levels and keywords are numbers in the event log and words in Winlogbeat; rules use the numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import polars as pl

from ingest.logsource import LogSource

INTEGRITY_LEVELS: Final[dict[str, str]] = {
    "S-1-16-0": "Untrusted",
    "S-1-16-4096": "Low",
    "S-1-16-8192": "Medium",
    "S-1-16-8448": "MediumPlus",
    "S-1-16-12288": "High",
    "S-1-16-16384": "System",
    "S-1-16-20480": "Protected",
}
"""Mandatory label SID -> the word Sysmon writes ([MS-DTYP] 2.4.2.4)."""

LEVELS: Final[dict[str, str]] = {
    "critical": "1",
    "error": "2",
    "warning": "3",
    "information": "4",
    "informational": "4",
    "verbose": "5",
}

KEYWORDS: Final[dict[str, str]] = {
    '["audit success"]': "0x8020000000000000",
    '["audit failure"]': "0x8010000000000000",
    '["classic"]': "0x80000000000000",
}
"""Winlogbeat's lists of keywords, as JSON text in lower case -> the mask of the event log."""

UNNAMED_DATA_SERVICES: Final = frozenset({"application", "msexchange-management", "powershell-classic"})
"""Services whose rules look into `Data`: there an event that came without it shows its Message in its place."""


FEW: Final = 8
"""Distinct values of a column that are replaced one by one: a table of replacements costs as much to set up."""

DERIVED_FROM: Final[tuple[str, ...]] = (
    *("CommandLine", "Data", "Details", "EventType", "Image", "IntegrityLevel", "Keywords", "Level", "MandatoryLabel"),
    *("Message", "NewProcessId", "NewProcessName", "NewValue", "NewValueType", "ObjectName", "ObjectValueName"),
    *("OperationType", "ParentImage", "ParentProcessId", "ParentProcessName", "ProcessCommandLine", "ProcessId"),
    *("ProcessName", "SubjectDomainName", "SubjectUserName", "TargetDomainName", "TargetObject", "TargetUserName"),
    *("User", *(f"param{number}" for number in range(1, 100))),
)
"""Every field that is read or written here: these columns are spelled so, however a carrier spells them."""


def derive(fields: pl.DataFrame, logsource: LogSource) -> pl.DataFrame:
    """The same rows with the missing fields added; what the event itself says is never replaced by a guess."""
    if "Keywords" in fields.columns:
        fields = fields.with_columns(_keywords(fields["Keywords"]))
    if "Level" in fields.columns:
        fields = fields.with_columns(_levels(fields["Level"]))
    if logsource.service in UNNAMED_DATA_SERVICES:
        fields = _unnamed_data(fields)
    if logsource.service == "security" and logsource.category == "process_creation":
        fields = _process_creation(fields)
    if logsource.service == "security" and logsource.category in ("registry_set", "registry_delete"):
        fields = _registry_change(fields)
    return fields


def _keywords(column: pl.Series) -> pl.Series:
    """Keywords as the event log writes them: 0x and lower-case hexadecimal of an unsigned 64-bit mask."""
    return _replaced(column, _mask)


def _levels(column: pl.Series) -> pl.Series:
    return _replaced(column, lambda word: LEVELS.get(word.lower(), word))


def _replaced(column: pl.Series, change: Callable[[str], str]) -> pl.Series:
    """A column of few distinct values, each of them changed; as it is where nothing changes."""
    changes = {word: change(word) for word in column.unique().to_list() if word is not None}
    if all(word == changed for word, changed in changes.items()):
        return column
    if len(changes) > FEW:
        return column.replace_strict(changes, return_dtype=pl.String)
    changed = column.clone()
    for word, other in changes.items():
        changed = changed.set(column == word, other)
    return changed


def _mask(word: str) -> str:
    digits = word.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) <= 20:  # NXLog: decimal, and signed
        return f"0x{int(word) & 0xFFFF_FFFF_FFFF_FFFF:x}"
    return KEYWORDS.get(word.lower(), word)


def _unnamed_data(fields: pl.DataFrame) -> pl.DataFrame:
    params = [name for name in (f"param{number}" for number in range(1, 100)) if name in fields.columns]
    sources: list[pl.Expr] = [pl.col("Data")] if "Data" in fields.columns else []
    if params:
        joined = pl.concat_str(params, separator="\n", ignore_nulls=True)
        sources.append(pl.when(pl.any_horizontal(pl.col(params).is_not_null())).then(joined))
    if "Message" in fields.columns:
        sources.append(pl.col("Message"))
    return fields.with_columns(pl.coalesce(sources).alias("Data")) if sources else fields


def _filled(fields: pl.DataFrame, wanted: dict[str, pl.Expr]) -> pl.DataFrame:
    """Add columns; where the event already has a value under that name, keep it."""
    return fields.with_columns(
        (pl.coalesce(pl.col(name), value) if name in fields.columns else value).alias(name)
        for name, value in wanted.items()
    )


def _account(fields: pl.DataFrame, prefix: str) -> pl.Expr | None:
    r"""`DOMAIN\user` of a Subject or Target, as Sysmon writes accounts."""
    user, domain = f"{prefix}UserName", f"{prefix}DomainName"
    if user not in fields.columns or domain not in fields.columns:
        return None
    return pl.when(~pl.col(user).is_in(["", "-"])).then(pl.concat_str([pl.col(domain), pl.lit("\\"), pl.col(user)]))


def _process_creation(fields: pl.DataFrame) -> pl.DataFrame:
    have = set(fields.columns)
    renamed = {"NewProcessName": "Image", "ParentProcessName": "ParentImage", "ProcessCommandLine": "CommandLine"}
    wanted = {new: pl.col(old) for old, new in renamed.items() if old in have}
    if "MandatoryLabel" in have:
        label = pl.col("MandatoryLabel")
        wanted["IntegrityLevel"] = label.replace_strict(INTEGRITY_LEVELS, default=label)
    # The new process runs as the target account where that is another one (4688 version 2), else as the subject.
    accounts = [account for prefix in ("Target", "Subject") if (account := _account(fields, prefix)) is not None]
    if accounts:
        wanted["User"] = pl.coalesce(accounts)
    fields = _filled(fields, wanted)
    if "NewProcessId" in have:
        # In 4688 ProcessId is the creator; in the category's taxonomy it is the new process. A column that no event of
        # this batch has is as good as one that is null: an event must not depend on its neighbours.
        own, creator = (
            pl.col(name) if name in have else pl.lit(None, dtype=pl.String) for name in ("ParentProcessId", "ProcessId")
        )
        native = own.is_null() & pl.col("NewProcessId").is_not_null()
        fields = fields.with_columns(
            pl.when(native).then(creator).otherwise(own).alias("ParentProcessId"),
            pl.when(native).then(pl.col("NewProcessId")).otherwise(creator).alias("ProcessId"),
        )
    return fields


def _registry_change(fields: pl.DataFrame) -> pl.DataFrame:
    """Sysmon's TargetObject, Details and EventType of a 4657."""
    have = set(fields.columns)
    wanted: dict[str, pl.Expr] = {}
    if "ProcessName" in have:
        wanted["Image"] = pl.col("ProcessName")
    if "ObjectName" in have:
        hive = (
            pl.col("ObjectName")
            .str.replace(r"(?i)^\\REGISTRY\\MACHINE\b", "HKLM")
            .str.replace(r"(?i)^\\REGISTRY\\USER\b", "HKU")
        )
        value = pl.col("ObjectValueName") if "ObjectValueName" in have else pl.lit(None, dtype=pl.String)
        wanted["TargetObject"] = pl.concat_str([hive, value], separator="\\", ignore_nulls=True)
    if "NewValue" in have:
        new = pl.col("NewValue")
        kind = pl.col("NewValueType") if "NewValueType" in have else pl.lit(None, dtype=pl.String)
        wanted["Details"] = pl.when(kind.is_in(["%%1876", "REG_DWORD"])).then(_dword(fields["NewValue"])).otherwise(new)
    if "OperationType" in have:
        wanted["EventType"] = pl.col("OperationType").replace_strict(
            {"%%1904": "SetValue", "%%1905": "SetValue", "%%1906": "DeleteValue"}, default=None, return_dtype=pl.String
        )
    return _filled(fields, wanted)


def _dword(column: pl.Series) -> pl.Series:
    """`DWORD (0x00000001)`, as Sysmon writes one; a value that is no number stays as it is."""
    shown = {
        value: f"DWORD (0x{int(value):08x})" if value.isascii() and value.isdigit() and len(value) < 20 else value
        for value in column.unique().to_list()
        if value is not None
    }
    return column.replace_strict(shown, return_dtype=pl.String)
