"""Memory of `temporal` and `temporal_ordered`: which references were there, and in which order.

Only the newest match of a reference matters for whether it was there. For order, what matters of all chains of
references that have come so far is the one that began last: it leaves the window last. So a group costs the number of
its references, whatever the number of events.

A chain needs an event a reference: one that matches two rules is not before itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from detections.condition import Named, Tree
from detections.correlation import MAX_EVIDENCE, CorrelationError
from detections.correlation_window import Evidence, Value

MAX_TERMS: Final = 256
"""Alternatives of an ordered extended condition, each with its own chain. Bounds hostile conditions."""


class Term(NamedTuple):
    """One alternative of a condition: references that must be there, and those that must not (a bit each)."""

    present: int
    absent: int


class _Seen(NamedTuple):
    moment: int
    event_id: str


class Presence:
    """`temporal`: how many references were there, if they satisfy the expression (where there is one)."""

    __slots__ = ("expression", "seen")

    def __init__(self, expression: Expression | None = None) -> None:
        self.expression = expression
        self.seen: dict[int, _Seen] = {}

    def add(self, moment: int, event_id: str, references: int, value: Value) -> bool:  # noqa: ARG002 - one shape for all
        """Take the next event."""
        seen = _Seen(moment, event_id)
        while references:
            bit = references & -references
            self.seen.pop(bit, None)  # so that the newest comes last
            self.seen[bit] = seen
            references ^= bit
        return False

    def measure(self, start: int) -> float | None:
        """The number of references present."""
        present = self.present(start)
        if self.expression is not None and not self.expression.holds(present):
            return None
        return present.bit_count()

    def present(self, start: int) -> int:
        """The references present, a bit each."""
        return sum(bit for bit, seen in self.seen.items() if seen.moment >= start)

    def evidence(self, start: int) -> Evidence:
        """The newest match of each reference, older first."""
        found = dict.fromkeys(seen for seen in self.seen.values() if seen.moment >= start)
        return _evidence(list(found))


class Order:
    """`temporal_ordered`: the longest chain of references in the order written."""

    __slots__ = ("chains", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        # chains[i][m]: of the chains of m + 1 references that end with reference i, the one that began last.
        self.chains: list[list[tuple[_Seen, ...] | None]] = [[None] * (i + 1) for i in range(size)]

    def add(self, moment: int, event_id: str, references: int, value: Value) -> bool:  # noqa: ARG002 - one shape for all
        """Take the next event."""
        seen = _Seen(moment, event_id)
        for i in range(self.size - 1, -1, -1):  # from the last: an event must not follow itself
            if not references >> i & 1:
                continue
            mine = self.chains[i]
            for m in range(i, 0, -1):
                for earlier in self.chains[m - 1 : i]:
                    chain = earlier[m - 1]
                    if chain is not None and _later(chain, mine[m]):
                        mine[m] = (*chain, seen)
            mine[0] = (seen,)
        return False

    def measure(self, start: int) -> float | None:
        """The length of the longest chain."""
        chain = self._longest(start)
        return 0 if chain is None else len(chain)

    def evidence(self, start: int) -> Evidence:
        """The events of that chain."""
        return _evidence(self._longest(start) or ())

    def _longest(self, start: int) -> tuple[_Seen, ...] | None:
        for m in range(self.size - 1, -1, -1):
            best: tuple[_Seen, ...] | None = None
            for chains in self.chains[m:]:
                chain = chains[m]
                if chain is not None and chain[0].moment >= start and _later(chain, best):
                    best = chain
            if best is not None:
                return best
        return None


class OrderedTerms(Presence):
    """`temporal_ordered` with an expression: an alternative holds if its references came in the order written."""

    __slots__ = ("orders", "terms")

    def __init__(self, terms: Sequence[Term]) -> None:
        super().__init__()
        self.terms = terms
        self.orders = {term.present: Order(term.present.bit_count()) for term in terms}

    def add(self, moment: int, event_id: str, references: int, value: Value) -> bool:
        """Take the next event."""
        for present, order in self.orders.items():
            if references & present:
                order.add(moment, event_id, _squeeze(references, present), value)
        return super().add(moment, event_id, references, value)

    def measure(self, start: int) -> float | None:
        """The number of references of the first alternative that holds."""
        term = self._holding(start)
        return None if term is None else term.present.bit_count()

    def evidence(self, start: int) -> Evidence:
        """The chain of that alternative."""
        term = self._holding(start)
        return super().evidence(start) if term is None else self.orders[term.present].evidence(start)

    def _holding(self, start: int) -> Term | None:
        present = self.present(start)
        for term in self.terms:
            if not present & term.absent and self.orders[term.present].measure(start) == term.present.bit_count():
                return term
        return None


class Expression:
    """A condition over the names of references.

    Attributes:
        needed: References that help the condition by being there; the others only by being absent.
        forbidden: References whose absence helps. Where there are any, only a closed window can be judged.
    """

    __slots__ = ("_bits", "_tree", "forbidden", "needed")

    def __init__(self, tree: Tree, bits: Mapping[str, int]) -> None:
        self._tree = tree
        self._bits = bits
        self.needed, self.forbidden = _polarity(tree, bits, positive=True)

    def holds(self, present: int) -> bool:
        """Whether it is true where exactly these references are present."""
        return _holds(self._tree, self._bits, present)

    def terms(self) -> tuple[Term, ...]:
        """Its alternatives, in the order written.

        Raises:
            CorrelationError: There are more than `MAX_TERMS`.
        """
        terms = _terms(self._tree, self._bits, positive=True)
        return tuple(dict.fromkeys(term for term in terms if term.present and not term.present & term.absent))


def _holds(tree: Tree, bits: Mapping[str, int], present: int) -> bool:
    if isinstance(tree, Named):
        return bool(bits[tree.name] & present)
    if tree.operator == "not":
        return not _holds(tree.parts[0], bits, present)
    quantifier = all if tree.operator == "and" else any
    return quantifier(_holds(part, bits, present) for part in tree.parts)


def _polarity(tree: Tree, bits: Mapping[str, int], *, positive: bool) -> tuple[int, int]:
    if isinstance(tree, Named):
        return (bits[tree.name], 0) if positive else (0, bits[tree.name])
    needed = forbidden = 0
    for part in tree.parts:
        more, less = _polarity(part, bits, positive=positive != (tree.operator == "not"))
        needed, forbidden = needed | more, forbidden | less
    return needed, forbidden


def _terms(tree: Tree, bits: Mapping[str, int], *, positive: bool) -> list[Term]:
    if isinstance(tree, Named):
        return [Term(bits[tree.name], 0) if positive else Term(0, bits[tree.name])]
    if tree.operator == "not":
        return _terms(tree.parts[0], bits, positive=not positive)
    parts = [_terms(part, bits, positive=positive) for part in tree.parts]
    if (tree.operator == "or") == positive:
        return _bounded([term for part in parts for term in part])
    product = [Term(0, 0)]
    for part in parts:
        product = _bounded([Term(a.present | b.present, a.absent | b.absent) for a in product for b in part])
    return product


def _bounded(terms: list[Term]) -> list[Term]:
    distinct = list(dict.fromkeys(terms))
    if len(distinct) > MAX_TERMS:
        raise CorrelationError(f"the condition has more than {MAX_TERMS} alternatives")
    return distinct


def _later(chain: tuple[_Seen, ...], other: tuple[_Seen, ...] | None) -> bool:
    return other is None or chain[0].moment > other[0].moment


def _squeeze(references: int, chosen: int) -> int:
    """The bits of `references` at the places of `chosen`, pushed together."""
    squeezed, at = 0, 0
    while chosen:
        bit = chosen & -chosen
        if references & bit:
            squeezed |= 1 << at
        at += 1
        chosen ^= bit
    return squeezed


def _evidence(seen: Sequence[_Seen]) -> Evidence:
    return Evidence(seen[0].moment, seen[-1].moment, tuple(s.event_id for s in seen[-MAX_EVIDENCE:]), len(seen))
