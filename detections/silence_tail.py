"""How long the silences of a source may become, from its own longest ones.

The excesses of the longest over the next are taken as exponential (Pickands 1975: peaks over a threshold), which they
are for whatever is on and off by chance. Their mean is estimated without the very longest (right-censored maximum
likelihood), so that two outages in four weeks change little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

LONG: Final = 12
"""How many of its longest silences say how long those of a source become."""

FEW: Final = 5
"""With fewer long silences nothing is said: those are single outages."""

SPARED: Final = 2
"""The longest, which are taken for as long as the next: outages."""


def longest_expected(silences: Sequence[float], share: float, odds: float) -> float:
    """What one of a source's own silences exceeds in one of `odds` such times; 0 if it has too few to say so.

    Args:
        silences: How long each was, in any unit.
        share: How many times what was seen goes into the time asked about.
        odds: Of so many sources, one has a longer one in that time.
    """
    *longest, threshold = sorted((silence for silence in silences if silence > 0), reverse=True)[: LONG + 1] or [0.0]
    if len(longest) < FEW:
        return 0.0
    known = [silence - threshold for silence in longest[SPARED:]]
    mean = (sum(known) + SPARED * known[0]) / len(known)
    return threshold + mean * (math.log(len(longest) * max(1.0, share)) + math.log(odds))
