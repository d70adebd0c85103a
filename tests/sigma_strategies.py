r"""Random Sigma rules and the events they meet, for every test of an engine.

A random rule over random text matches nothing, and a test over it shows nothing. Rules and events are therefore drawn
from one small stock of fragments (`Dialect.fragments`), so that a substring written in a rule is often in an event;
among them is what attackers write and engines trip over: mixed case, letters whose case folding is odd (long s, Kelvin
sign, dotted I, final sigma), quotes, backslashes, wildcards, NULs, line ends.

A `Dialect` says what may be written. `EVERYTHING` is for engines of our own, which must agree on all of it; a test
against somebody else's engine narrows it by `dataclasses.replace`, which is a list of what they do otherwise.

    @given(sigma_strategies.rule_packs(), sigma_strategies.event_frames())
    def test_engines_agree(contents: list[Content], frame: EventFrame) -> None:
        rules = loaded(contents).rules
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Final

import orjson
import polars as pl
import yaml
from hypothesis import strategies as st

from detections.load import load_rules
from detections.rule import RulePack
from ingest.envelope import ENVELOPE, EVENT_ID, ORIGINAL, RECEIVED, TENANT, TIMESTAMP, USER, EventFrame
from ingest.logsource import LogSource

Content = dict[str, object]
"""A rule as YAML gives it."""

NOW: Final = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)

TEXT_FIELDS: Final = ("Image", "CommandLine", "User", "winlog.event_data")
BUCKET_FIELDS: Final = ("EventID", "Channel", "Provider_Name")
IP_FIELD: Final = "IpAddress"
SIZE_FIELD: Final = "Size"
FIELDS: Final = (*BUCKET_FIELDS, *TEXT_FIELDS, IP_FIELD, SIZE_FIELD)
"""Columns that an event frame may have beside its envelope."""

PLAIN: Final = ("a", "b", "A", "ab", "Ba", "cmd", "CMD.exe", "1", "4624", "0x1f", " ", "-e", "/c")
MARKS: Final = ("%", "_", "'", '"', "`", "[a]", "[", "]", "^", "$", ".", "(", "+", "|", "{2}", ";", "--", "#")
CASELESS: Final = ("€", "中", "\u200b", "😀")
"""Beyond ASCII, without case."""
ODD_CASE: Final = (
    "é",
    "É",
    "ſ",
    "\u212a",
    "k",
    "K",
    "S",
    "İ",
    "ı",
    "i",
    "I",
    "ß",
    "ẞ",
    "ς",
    "σ",
    "Σ",
    "ΑΣ",
    "ας",
    "Ǆ",
    "\u0307",
)
"""Letters on whose case engines disagree: long s, Kelvin sign, dotted and dotless i, sharp s, the three sigmas."""
CONTROL: Final = ("\x00", "\x01", "\n", "\r\n", "\t", "\x7f", "\u2028")
BACKSLASHES: Final = ("\\", "\\\\", "C:\\Windows", "\\\\srv\\a$")
WILDCARDS: Final = ("*", "?")
DASHES: Final = ("-", "/", "–", "—", "―")

ADDRESSES: Final = ("10.0.0.1", "10.255.0.9", "172.16.9.9", "192.168.1.1", "8.8.8.8", "255.255.255.255", "0.0.0.0")  # noqa: S104
ODD_ADDRESSES: Final = (
    "::1",
    "fe80::1",
    "2001:DB8::a",
    "2001:db8:0:0:0:0:0:A",
    "::ffff:10.0.0.1",
    " 10.0.0.1 ",
    "10.0.0.1:80",
)
NO_ADDRESSES: Final = ("-", "", "localhost", "10.0.0", "10.0.0.256")
NETWORKS: Final = ("10.0.0.0/8", "10.0.0.0/31", "172.16.0.0/12", "192.168.1.1/32", "0.0.0.0/0", "192.168.0.0/23")
ODD_NETWORKS: Final = ("::/0", "::1/128", "fe80::/10", "2001:db8::/32", "10.1.2.3/8")

NUMBERS: Final = ("0", "1", "7", "42", "4624", "4625", "65536", "-3", "2.5")
ODD_NUMBERS: Final = ("007", "1e3", "0x10", "NaN", "inf", "-inf", "1_000", " 5", "5.", "", "five", "9" * 25)

REGEXES: Final = ("a+b", "^a", "b.d", "[A-B]{2}", r"\\", r"(cmd|4624)\.?", r"\d{4}", "^$", ".", r"\bcmd\b", "x*")
ODD_REGEXES: Final = ("b$", r"^\W+$", "(?i)CMD", "é", "k", "[s-z]", r"\s", r"\x00", "(?!a)b", r"(a)\1", "^", r"(?m)^b$")


@dataclass(frozen=True, slots=True)
class Dialect:
    """What rules and events of a test may hold.

    Attributes:
        fragments: What text is put together from; those named first are drawn more often.
        addresses, networks: Of `IpAddress` and of `cidr`.
        numbers: Of `Size`, which `gt` and its like ask for.
        text_modifiers: Modifiers of text, joined as a rule writes them.
        regexes: Of `re`.
        regex_flags: Modifiers after `re`.
        keywords: Whether detections may be lists of keywords.
        escapes: Whether rules may hold escapes and lone backslashes as well as plain text and wildcards.
        compared: Fields that `gt` and its like ask for.
        referring: Modifiers of `fieldref`.
        products: Log source products of rules; frames are of windows.
        any_number: Numbers of rules without quotes, besides whole ones.
        joints: How a condition joins two parts.
    """

    fragments: tuple[str, ...]
    addresses: tuple[str, ...]
    networks: tuple[str, ...]
    numbers: tuple[str, ...]
    text_modifiers: tuple[str, ...]
    regexes: tuple[str, ...]
    regex_flags: tuple[str, ...]
    keywords: bool
    escapes: bool
    compared: tuple[str, ...]
    referring: tuple[str, ...]
    any_number: tuple[float, ...]
    joints: tuple[str, ...]


EVERYTHING: Final = Dialect(
    fragments=(*PLAIN, *ODD_CASE, *MARKS, *BACKSLASHES, *WILDCARDS, *CASELESS, *CONTROL, *DASHES),
    addresses=(*ADDRESSES, *ODD_ADDRESSES, *NO_ADDRESSES),
    networks=(*NETWORKS, *ODD_NETWORKS),
    numbers=(*NUMBERS, *ODD_NUMBERS),
    text_modifiers=(
        "", "|contains", "|startswith", "|endswith", "|contains|all", "|all", "|cased", "|contains|cased",
        "|startswith|cased", "|endswith|cased", "|contains|all|cased", "|windash|contains", "|contains|windash",
        "|neq", "|contains|neq", "|base64offset|contains", "|base64|contains", "|wide|base64offset|contains",
        "|utf16le|base64|contains", "|utf16be|base64offset|contains", "|utf16|base64|contains",
    ),
    regexes=(*REGEXES, *ODD_REGEXES),
    regex_flags=("", "|i", "|m", "|s", "|i|m|s"),
    keywords=True,
    escapes=True,
    compared=(SIZE_FIELD, "EventID", "CommandLine"),
    referring=("", "|contains", "|startswith", "|endswith"),
    any_number=(2.5, -3, 1e3, 2**63, -0.0),
    joints=(" and ", " or ", " AND ", " OR ", " and not ", " And Not "),
)  # fmt: skip
"""All that the engine takes."""


# --- events


@cache
def texts(dialect: Dialect = EVERYTHING) -> st.SearchStrategy[str]:
    """Values as events have them: fragments in a row, seldom empty or very long."""
    fragment = _fragment(dialect)
    joined = st.lists(fragment, min_size=1, max_size=4).map("".join)
    long = st.tuples(fragment, st.sampled_from([40, 3000]), fragment).map(
        lambda item: item[0] + "x" * item[1] + item[2]
    )
    return st.one_of(
        fragment, joined, joined, joined.map(str.swapcase) if _cased(dialect) else joined, long, st.just("")
    )


@cache
def field_values(field: str, dialect: Dialect = EVERYTHING) -> st.SearchStrategy[str | None]:
    """Values of a field, biased so that rules match them; None where an event has none."""
    return st.one_of(_values(field, dialect), _values(field, dialect), _values(field, dialect), st.none())


@cache
def _values(field: str, dialect: Dialect) -> st.SearchStrategy[str]:
    if field == IP_FIELD:
        return st.sampled_from(dialect.addresses)
    if field == SIZE_FIELD:
        return st.sampled_from(dialect.numbers)
    if field in BUCKET_FIELDS:
        return st.sampled_from(["1", "4624", "4625", "Security", "SECURITY", "Sysmon", "", "x"])
    return texts(dialect)


@cache
def _fragment(dialect: Dialect) -> st.SearchStrategy[str]:
    """Half of all fragments are of the first few, so that rules and events meet."""
    return st.one_of(st.sampled_from(dialect.fragments[:6]), st.sampled_from(dialect.fragments))


def _cased(dialect: Dialect) -> bool:
    """Whether odd letters may change their case: `swapcase` makes SS of a sharp s."""
    return any(fragment in dialect.fragments for fragment in ODD_CASE)


_COLUMNS: Final = st.lists(st.sampled_from(FIELDS), unique=True, max_size=len(FIELDS)).map(
    lambda missing: [name for name in FIELDS if name not in missing[:4]]
)
"""Most of the fields: the more are there, the more there is to match."""


@st.composite
def event_frames(
    draw: st.DrawFn, dialect: Dialect = EVERYTHING, *, max_rows: int = 12, repeated: bool = True
) -> EventFrame:
    """Frames of Windows events: some of the columns, some nulls, sometimes many rows of few distinct values."""
    columns = draw(_COLUMNS)
    rows = draw(st.integers(0, max_rows))
    values = {name: [draw(field_values(name, dialect)) for _ in range(rows)] for name in (*columns, USER)}
    times = draw(st.sampled_from([1, 1, 1, 20])) if repeated else 1
    source = draw(
        st.sampled_from([LogSource("windows", "process_creation", "sysmon"), LogSource("windows", None, "security")])
    )
    return event_frame({name: column * times for name, column in values.items()}, source, rows=rows * times)


def event_frame(columns: dict[str, list[str | None]], source: LogSource, *, rows: int) -> EventFrame:
    """A frame from columns of text (`user.name` goes to the envelope); the raw line is the event's JSON."""
    envelope: dict[str, list[object]] = {name: [None] * rows for name in ENVELOPE}
    envelope[EVENT_ID] = [f"test:{row}" for row in range(rows)]
    envelope[TENANT] = ["chu"] * rows
    envelope[TIMESTAMP] = envelope[RECEIVED] = [NOW + timedelta(seconds=row) for row in range(rows)]
    envelope[ORIGINAL] = [
        orjson.dumps({name: column[row] for name, column in columns.items() if column[row] is not None}).decode()
        for row in range(rows)
    ]
    envelope.update({name: list(column) for name, column in columns.items() if name in ENVELOPE})
    own = [pl.Series(name, column, dtype=pl.String) for name, column in columns.items() if name not in ENVELOPE]
    return EventFrame(source, pl.DataFrame(envelope, schema=ENVELOPE).with_columns(own))


# --- rules


def rule_packs(
    dialect: Dialect = EVERYTHING, *, min_size: int = 2, max_size: int = 6
) -> st.SearchStrategy[list[Content]]:
    """Some rules, each with an id and title of its own."""
    return st.lists(rule_contents(dialect), min_size=min_size, max_size=max_size).map(
        lambda contents: [
            {"title": f"rule {number}", "id": f"00000000-0000-4000-8000-{number:012}", **content}
            for number, content in enumerate(contents)
        ]
    )


@st.composite
def rule_contents(draw: st.DrawFn, dialect: Dialect = EVERYTHING) -> Content:
    """A rule without title and id: log source, one to four detections, a condition over all kinds of names."""
    names = draw(
        st.sampled_from(
            [("sel",), ("sel", "filter"), ("sel_a", "sel_b", "filter"), ("sel_a", "sel_b", "filter_main", "_own")]
        )
    )
    detection: Content = {name: draw(detections(dialect)) for name in names}
    detection["condition"] = draw(_conditions(names, dialect.joints))
    source = draw(
        st.sampled_from(
            [{"product": "windows"}] * 3
            + [{"category": "process_creation", "product": "windows"}, {"product": "windows", "service": "security"}]
            + [{"product": "linux"}]
        )
    )
    return {"logsource": source, "detection": detection}


@cache
def detections(dialect: Dialect = EVERYTHING) -> st.SearchStrategy[object]:
    """A map, a list of maps (which may be nested once), or keywords."""
    mapping = st.lists(_items(dialect), min_size=1, max_size=3).map(dict)
    lists = st.lists(mapping, min_size=1, max_size=3)
    if not dialect.keywords:
        return st.one_of(mapping, mapping, lists)
    word = _strings(dialect).filter(lambda text: text.strip("*\\?") != "")
    words = st.lists(word, min_size=1, max_size=3)
    return st.one_of(
        mapping,
        mapping,
        lists,
        words,
        words.map(lambda several: {"|all": several}),
        st.tuples(mapping, word).map(list),
        st.sampled_from([pattern for pattern in dialect.regexes if pattern not in {"", "^", "x*"}]).map(
            lambda pattern: {"|re": pattern}
        ),
    )


@cache
def _items(dialect: Dialect) -> st.SearchStrategy[tuple[str, object]]:
    """One line of a map: field and modifiers, and its values."""
    return st.one_of(
        _text_item(dialect), _text_item(dialect), _text_item(dialect), _plain_item(dialect), _special_item(dialect)
    )


@st.composite
def _text_item(draw: st.DrawFn, dialect: Dialect) -> tuple[str, object]:
    field = draw(st.sampled_from([*TEXT_FIELDS, "commandline", USER, "Absent"]))
    modifiers = draw(st.sampled_from(dialect.text_modifiers))
    if "base64" in modifiers:
        return field + modifiers, draw(_ENCODED)
    if "neq" in modifiers:
        return field + modifiers, draw(_strings(dialect))
    return field + modifiers, draw(_several(dialect) if "all" in modifiers else _one_or_several(dialect))


_ENCODED: Final = st.text("abcmd -", min_size=1, max_size=3)


@cache
def _several(dialect: Dialect) -> st.SearchStrategy[list[str]]:
    return st.lists(_strings(dialect), min_size=2, max_size=3)


@cache
def _one_or_several(dialect: Dialect) -> st.SearchStrategy[object]:
    return st.one_of(_strings(dialect), st.lists(_strings(dialect), min_size=1, max_size=4))


@cache
def _plain_item(dialect: Dialect) -> st.SearchStrategy[tuple[str, object]]:
    """Equality with numbers, null, the empty text, and values of the fields that split a frame."""
    number: st.SearchStrategy[object] = st.sampled_from([0, 1, 7, 4624, 4625, *dialect.any_number])
    bucket: st.SearchStrategy[object] = st.one_of(number, st.sampled_from(["4624", "security", "SYSMON", "S*", ""]))
    return st.one_of(
        st.tuples(st.sampled_from(BUCKET_FIELDS), st.one_of(bucket, st.lists(bucket, min_size=1, max_size=3))),
        st.tuples(st.sampled_from(FIELDS), st.none()),
        st.tuples(st.sampled_from(FIELDS), st.tuples(st.none(), bucket).map(list)),
        st.tuples(st.sampled_from([*TEXT_FIELDS, USER]), st.one_of(number, texts(dialect).map(escaped))),
        st.tuples(st.just(SIZE_FIELD), st.sampled_from([0, 1, 7, 42])),
    )


@cache
def _special_item(dialect: Dialect) -> st.SearchStrategy[tuple[str, object]]:
    """Modifiers that are not of text."""
    network = st.sampled_from(dialect.networks)
    comparison = st.sampled_from(["|gt", "|gte", "|lt", "|lte"])
    return st.one_of(
        st.tuples(st.sampled_from([f"{field}|exists" for field in (*FIELDS, "Absent")]), st.booleans()),
        st.tuples(st.just(f"{IP_FIELD}|cidr"), st.one_of(network, st.lists(network, min_size=1, max_size=2))),
        st.tuples(
            st.tuples(st.sampled_from(dialect.compared), comparison).map("".join),
            st.sampled_from([0, 1, 42, 4624, 2.5, -3]),
        ),
        st.tuples(
            st.tuples(
                st.sampled_from([*TEXT_FIELDS, "EventID"]), st.just("|re"), st.sampled_from(dialect.regex_flags)
            ).map("".join),
            st.sampled_from(dialect.regexes),
        ),
        st.tuples(
            st.tuples(st.sampled_from(TEXT_FIELDS), st.just("|fieldref"), st.sampled_from(dialect.referring)).map(
                "".join
            ),
            st.sampled_from([*TEXT_FIELDS, "EventID", "Absent"]),
        ),
    )


@cache
def _strings(dialect: Dialect) -> st.SearchStrategy[str]:
    """Texts as rules write them: fragments and wildcards, escaped in one of the ways that Sigma has."""
    fragment = _fragment(dialect)
    piece = st.one_of(fragment.map(escaped), fragment.map(escaped), st.sampled_from(["*", "?"]))
    if dialect.escapes:
        piece = st.one_of(piece, fragment, st.sampled_from([r"\*", r"\?", "\\", "\\\\", r"\\*", r"\\\*", r"\a"]))
    whole = texts(dialect).map(escaped)
    part = st.tuples(whole, st.integers(0, 2), st.integers(1, 6)).map(lambda item: item[0][item[1] : item[1] + item[2]])
    pieces = st.lists(piece, min_size=1, max_size=3).map("".join)
    return st.one_of(
        fragment.map(escaped), pieces, pieces, part if dialect.escapes else fragment.map(escaped), st.just("")
    )


def escaped(text: str) -> str:
    r"""A text as a rule writes it to mean itself: `\`, `*` and `?` each behind a backslash."""
    return "".join(f"\\{char}" if char in "\\*?" else char for char in text)


@cache
def _conditions(names: tuple[str, ...], joints: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Trees of names, `of` with patterns that stand for something, `not`; joined with and without parentheses."""
    visible = [name for name in names if not name.startswith("_")]
    chosen = [f"{quantifier} of them" for quantifier in ("1", "any", "all")]
    chosen += [f"{quantifier} of sel*" for quantifier in ("1", "all")]
    chosen += [f"1 of {name[:3]}*" for name in visible] + [f"all of {names[-1]}"]
    leaf = st.one_of(st.sampled_from(names), st.sampled_from(names), st.sampled_from(chosen))
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            inner.map(lambda part: f"not ({part})"),
            st.tuples(leaf, st.sampled_from(joints), leaf).map("".join),
            st.tuples(st.just("("), inner, st.sampled_from(joints), inner, st.just(")")).map("".join),
        ),
        max_leaves=5,
    )


def loaded(contents: Sequence[Content]) -> RulePack:
    """Rules through YAML and the loader, as from a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rules.yml")
        path.write_text(yaml.safe_dump_all(contents, allow_unicode=True, sort_keys=False), "utf-8")
        return load_rules([path])
