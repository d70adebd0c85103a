r"""Texts that a regex cannot match without: `cmd.{0,5}/c.+powershell` needs `cmd`, `/c` and `powershell`.

Only what stands outside of every group and alternative is taken, and of what may be repeated only what is there at
least once. Whatever this reading is not sure of ends a text or gives none at all: a text too few costs time, a text too
many would hide an attack. So every kind of group that is known is listed; comments, verbose mode, conditions and the
flags of other engines are not. Texts are ASCII, in lower case: whether the regex minds case is not asked.
"""

from __future__ import annotations

import re
from typing import Final

_TOKEN: Final = re.compile(
    r"""
      (?P<flags> \(\?[imsuU]*(?:-[imsuU]+)?\) )
    | (?P<open> \((?![?*]) | \(\?(?:[imsuU]*(?:-[imsuU]+)?:|<?[=!]|>|P?<[A-Za-z_][A-Za-z0-9_]*>) )
    | (?P<close> \) )
    | (?P<alternative> \| )
    | (?P<repeat> (?:[*+?]|\{[0-9]*,?[0-9]*\})[?+]? )
    | (?P<class> \[\^?\]?(?:\\.|\[:\^?[a-z]+:\]|[^\]\\])*\] )
    | (?P<code> \\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[xuUpPb]\{[^}]*\}|[pP].|[dDwWsSbBAztnrfva]) )
    | (?P<escaped> \\[^0-9A-Za-z<>] )
    | (?P<break> [.^$]|\\[<>] )
    | (?P<plain> [^\\\[\](){}|*+?.^$] )
    """,
    re.VERBOSE | re.DOTALL,
)
_NESTED: Final = re.compile(r"\[[^\]]*?(?:\[(?!:)|&&|--|~~)")
"""Classes within classes, and operations on them: Rust has them, and they end elsewhere than it seems."""


_REPEATABLE: Final = frozenset({"plain", "escaped", "class", "code", "break", "close"})


def regex_texts(pattern: str) -> list[str]:
    """The texts, longest runs of what is sure; none if the pattern is not understood."""
    texts = [""]
    depth = at = 0
    previous = ""
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        if token is None:
            return []
        kind, text, at = str(token.lastgroup), token[0], token.end()
        if kind == "alternative" and depth == 0:
            return []
        if kind == "repeat" and previous not in _REPEATABLE:
            return []  # a repeat of a repeat, or of what lies behind a flag
        previous = kind
        if kind == "class" and _NESTED.match(text):
            return []
        if kind in {"open", "close"}:
            depth += 1 if kind == "open" else -1
        if depth or kind not in {"plain", "escaped", "repeat"}:
            texts.append("")
        elif kind == "repeat":
            if not _at_least_once(text):
                texts[-1] = texts[-1][:-1]
            texts.append("")
        else:
            texts[-1] += text.removeprefix("\\") if kind == "escaped" else text
    return [text.lower() for whole in texts for text in re.findall(r"[\x00-\x7f]+", whole)]


def _at_least_once(repeat: str) -> bool:
    if repeat[0] == "{":
        least = repeat[1:].partition(",")[0].rstrip("}?+")
        return least.isdigit() and int(least) > 0
    return repeat[0] == "+"
