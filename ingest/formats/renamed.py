"""Fields under Sigma's names, copied from where a common schema (ECS, OCSF) has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

from ingest.formats.columns import MAX_FIELDS

Renames = Mapping[str, tuple[str, ...]]
"""Sigma's name -> names of the schema; of several the first that holds a value."""

MOST_ADDED: Final = 40
MOST: Final = MAX_FIELDS - MOST_ADDED
"""Most columns of a frame to which Sigma's names are added."""


def with_sigma_names(fields: pl.DataFrame, names: Renames) -> pl.DataFrame:
    """The frame with the columns that rules name beside the schema's own; what the event has under a name stays."""
    spelled = {column.lower(): column for column in fields.columns}
    added: list[pl.Expr] = []
    for wanted, sources in names.items():
        present = [spelled[source.lower()] for source in sources if source.lower() in spelled]
        if not present:
            continue
        own = spelled.get(wanted.lower())
        added.append(pl.coalesce(_columns([own, *present] if own else present)).alias(own or wanted))
    return fields.with_columns(added) if added else fields


def _columns(names: Sequence[str]) -> list[pl.Expr]:
    return [pl.col(name) for name in names]
