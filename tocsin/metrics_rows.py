"""One family of metrics: its name, its type, its help, its labels, and what gives its values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

COUNTER: Final = "counter"
GAUGE: Final = "gauge"

Value = tuple[tuple[str, ...], float]
"""Values of the labels, in their order, and the number."""


@dataclass(frozen=True, slots=True)
class Row:
    """One family.

    Attributes:
        name: With its unit; of a counter, with `_total`.
        kind: `COUNTER` or `GAUGE`.
        help: What it means, for people.
        labels: Their names.
        values: Gives what is known now; a family without values is left out.
        greatest: Whether of two values with the same labels the greater is meant, and not their sum: of moments.
    """

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...]
    values: Callable[[], Iterable[Value]]
    greatest: bool = False


def one(number: Callable[[], float]) -> Callable[[], Iterable[Value]]:
    """The values of a family without labels."""
    return lambda: [((), number())]
