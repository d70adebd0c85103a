"""Whether anything changed: what an open queue asks every few seconds.

Alerts are only ever added, so "how many are new" is the growth of the number that match in any status. Counting open
ones would miss a new alert that comes in while another is closed.
"""

from __future__ import annotations

from dataclasses import replace

from console.context import Console
from storage.alert_queue import AlertFilter


def change_token(console: Console) -> str:
    """Differs from an earlier one if an alert or a decision was added since."""
    return console.store.marker


def ever_matching(console: Console, asked: AlertFilter) -> int:
    """How many alerts match, whatever their status."""
    return console.store.counts(replace(asked, statuses=None)).total
