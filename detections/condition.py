"""Sigma conditions: text to a tree of the names of detections.

    expression := conjunction ("or" conjunction)*
    conjunction := negation ("and" negation)*
    negation := "not" negation | "(" expression ")" | ("1" | "any" | "all") "of" pattern | name

A parser of our own, since pySigma's refuses `1 of sel-*` (no hyphen in its patterns), reads the `not` in a detection
named `notepad` as an operator, and costs more than the rest of compiling. Names that begin with `_` are those of
filters and pipelines; a pattern of the rule does not reach them (Sigma specification, "Condition").
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

MAX_DEPTH: Final = 64
"""Nesting of parentheses and negations; SigmaHQ needs 4. Bounds the recursion over hostile rules."""

_TOKEN: Final = re.compile(r"\s*(?:(?P<bracket>[()])|(?P<word>[^\s()|]+)|(?P<other>\S))")


class ConditionError(ValueError):
    """A condition that cannot be read, or names what the rule does not define."""


@dataclass(frozen=True, slots=True)
class Named:
    """A detection by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Joined:
    """`and` and `or` over parts, `not` over one."""

    operator: Literal["and", "or", "not"]
    parts: tuple[Tree, ...]


Tree: TypeAlias = Named | Joined


def parse_condition(condition: str, names: Collection[str], kind: Literal["detection", "rule"] = "detection") -> Tree:
    """Parse a condition over the detections `names`, or over the rules `names` of a correlation.

    Raises:
        ConditionError: With the reason, for the author of the rule.
    """
    return _Parser(condition, names, kind).parse()


def is_true(tree: Tree, names: Collection[str]) -> bool:
    """Whether a condition holds where exactly `names` do."""
    if isinstance(tree, Named):
        return tree.name in names
    if tree.operator == "not":
        return not is_true(tree.parts[0], names)
    parts = (is_true(part, names) for part in tree.parts)
    return all(parts) if tree.operator == "and" else any(parts)


def rename(tree: Tree, names: Mapping[str, str]) -> Tree:
    """Put other names in; parts that become the same are written once."""
    if isinstance(tree, Named):
        return Named(names[tree.name])
    parts = tuple(dict.fromkeys(rename(part, names) for part in tree.parts))
    return parts[0] if len(parts) == 1 and tree.operator != "not" else Joined(tree.operator, parts)


def condition_text(tree: Tree) -> str:
    """A condition as text that `parse_condition` reads as the same tree."""
    if isinstance(tree, Named):
        return tree.name
    texts = [condition_text(part) if isinstance(part, Named) else f"({condition_text(part)})" for part in tree.parts]
    return f"not {texts[0]}" if tree.operator == "not" else f" {tree.operator} ".join(texts)


def names_in(condition: str) -> list[str]:
    """The names a condition mentions, each once, where it is not known yet which there are.

    Raises:
        ConditionError: It has patterns, which need names to choose from.
    """
    words = [match["word"] for match in _TOKEN.finditer(condition) if match["word"] is not None]
    if any(word.lower() == "of" for word in words):
        raise ConditionError(f"condition {condition!r} has a pattern, and no rules are given to choose from")
    return list(dict.fromkeys(word for word in words if word.lower() not in {"and", "or", "not"}))


class _Parser:
    """Recursive descent over the tokens of one condition."""

    def __init__(self, condition: str, names: Collection[str], kind: Literal["detection", "rule"]) -> None:
        self.condition = condition
        self.names = names
        self.kind = kind
        self.tokens: list[str] = []
        self.at = 0
        for match in _TOKEN.finditer(condition):
            if match["other"] is not None:
                if match["other"] == "|":
                    raise ConditionError("aggregations after a pipe are no longer Sigma; write a correlation rule")
                raise ConditionError(f"unexpected {match['other']!r} in condition {condition!r}")
            self.tokens.append(match["bracket"] or match["word"])

    def parse(self) -> Tree:
        if not self.tokens:
            raise ConditionError("the condition is empty")
        tree = self.expression(0)
        if self.at < len(self.tokens):
            raise ConditionError(f"unexpected {self.tokens[self.at]!r} in condition {self.condition!r}")
        return tree

    def expression(self, depth: int) -> Tree:
        return self.joined("or", depth)

    def joined(self, operator: Literal["and", "or"], depth: int) -> Tree:
        parts = [self.operand(operator, depth)]
        while self.peek() == operator:
            self.at += 1
            parts.append(self.operand(operator, depth))
        return parts[0] if len(parts) == 1 else Joined(operator, tuple(parts))

    def operand(self, operator: Literal["and", "or"], depth: int) -> Tree:
        return self.joined("and", depth) if operator == "or" else self.negation(depth)

    def negation(self, depth: int) -> Tree:
        if depth > MAX_DEPTH:
            raise ConditionError(f"the condition nests deeper than {MAX_DEPTH}")
        word = self.peek()
        if word == "not":
            self.at += 1
            return Joined("not", (self.negation(depth + 1),))
        if word == "(":
            self.at += 1
            tree = self.expression(depth + 1)
            if self.peek() != ")":
                raise ConditionError(f"a parenthesis is not closed in condition {self.condition!r}")
            self.at += 1
            return tree
        if word in {None, ")", "and", "or"}:
            place = "ends too early" if word is None else f"has no operand before {word!r}"
            raise ConditionError(f"condition {self.condition!r} {place}")
        if self.at + 1 < len(self.tokens) and self.tokens[self.at + 1].lower() == "of":
            return self.selector()
        return self.name()

    def selector(self) -> Tree:
        quantifier = self.tokens[self.at].lower()
        if quantifier not in {"1", "any", "all"}:
            raise ConditionError(f"quantifier {quantifier!r} is not one of 1, any, all")
        if self.at + 2 >= len(self.tokens):
            raise ConditionError(f"condition {self.condition!r} ends too early")
        pattern = self.tokens[self.at + 2]
        self.at += 3
        chosen = select_names(pattern, self.names)
        if not chosen:
            raise ConditionError(f"no {self.kind} is named like {pattern!r}")
        return chosen[0] if len(chosen) == 1 else Joined("and" if quantifier == "all" else "or", tuple(chosen))

    def name(self) -> Tree:
        name = self.tokens[self.at]
        if name not in self.names:
            missing = "which the rule does not define" if self.kind == "detection" else "which is not among its rules"
            raise ConditionError(f"the condition names {name!r}, {missing}")
        self.at += 1
        return Named(name)

    def peek(self) -> str | None:
        """The next token; operators in lower case unless a detection bears that very name."""
        if self.at >= len(self.tokens):
            return None
        token = self.tokens[self.at]
        if token not in self.names and token.lower() in {"and", "or", "not"}:
            return token.lower()
        return token


def select_names(pattern: str, names: Collection[str]) -> list[Named]:
    """The detections that `pattern` (`them`, or a name with `*`) stands for."""
    expression = ".*" if pattern.lower() == "them" else ".*".join(re.escape(part) for part in pattern.split("*"))
    return [
        Named(name)
        for name in names
        if re.fullmatch(expression, name, re.DOTALL) and (pattern.startswith("_") or not name.startswith("_"))
    ]
