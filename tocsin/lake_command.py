"""`tocsin lake`: ask the lake, keep it in order, prove that it is whole."""

from __future__ import annotations

import click

from tocsin.lake_keep_commands import hold_group, purge_command, retention_command
from tocsin.lake_maintain_command import maintain
from tocsin.lake_query_command import query, tables
from tocsin.lake_verify_command import verify_command


@click.group()
def lake() -> None:
    """Ask the lake, keep it in order, and prove that it is whole."""


for command in (query, tables, maintain, retention_command, hold_group, purge_command, verify_command):
    lake.add_command(command)
