"""Regexes that need look-around or a backreference, searched within a bound of time.

Rust's engine is linear in the text and has neither; an engine that has them backtracks, and its time can double with
each character of a value that a sender chooses (`(a|aa)+$` over forty letters takes years). Which patterns do so cannot
be told from their text, so the clock decides: a value that is not decided in time counts as no match. That is a value
nobody looked at, so it is counted, and `Plan` names the rule in the log.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import cache
from time import monotonic
from typing import Final

import regex

VALUE_SECONDS: Final = 0.05
"""What one value may take."""

BATCH_SECONDS: Final = 1.0
"""What the values of one column may take that are not decided in time; after that, each may take `HASTY_SECONDS`.

They are still searched, or else twenty hostile lines would hide the next one: an honest value takes microseconds.
"""

HASTY_SECONDS: Final = 0.001

MAX_CHARACTERS: Final = 8192
"""Characters of a value that are looked at: time that is only quadratic must have a bound as well."""


class BoundedRegex:
    """A regex with a bound of time a value; to be shared by threads.

    Attributes:
        pattern: In the syntax of Python's `re`, of which the package `regex` reads a superset.
        given_up: Values that were not decided in time since the process began.
    """

    def __init__(self, pattern: str) -> None:
        """Compile the pattern; `regex.error` says what is wrong with it."""
        self.pattern = pattern
        self.given_up = 0
        self._compiled = regex.compile(pattern)
        self._lock = threading.Lock()

    def search(self, values: Iterable[str | None]) -> list[bool]:
        """For each value whether the pattern is found in it; a null, and what is not decided in time, is no match."""
        left = BATCH_SECONDS
        found: list[bool] = []
        given_up = 0
        for value in values:
            if value is None:
                found.append(False)
                continue
            started = monotonic()
            try:
                found.append(self._found(value, VALUE_SECONDS if left > 0 else HASTY_SECONDS))
            except TimeoutError:
                found.append(False)
                given_up += 1
                left -= monotonic() - started
        if given_up:
            with self._lock:
                self.given_up += given_up
        return found

    def _found(self, value: str, seconds: float) -> bool:
        # concurrent: other threads (listeners, the console) run while this one backtracks
        return self._compiled.search(value, 0, MAX_CHARACTERS, concurrent=True, timeout=seconds) is not None


@cache
def bounded_regex(pattern: str) -> BoundedRegex:
    """The one regex of a pattern; patterns come from rules, so there are few.

    Raises:
        regex.error: It is no regex.
    """
    return BoundedRegex(pattern)
