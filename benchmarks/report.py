"""The report: Markdown made of the results that are there, and nothing that is not in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, cast

from benchmarks.lanes import LANES
from benchmarks.measure import SMALLEST
from benchmarks.results import Json

Row = dict[str, Any]  # what JSON gives back

INTRODUCTION: Final = """\
# Benchmarks

Made by `make bench`; the figures behind it are in `benchmarks/figures/`. Both engines read the same plain NDJSON file
with the same rules, on one core (`taskset -c 0`) and one thread, and write a line a match, which is thrown away. Rates
are made of CPU seconds (user and system) of the best run; *net* takes off the CPU of the same command over no events,
which is starting and loading the rules. Reading and parsing is in every figure unless a table says that it is not.

RSigma runs as `rsigma engine eval`, which is single-threaded and reads NDJSON. It is given the options that are
fastest and nearest to Sigma's meaning: `--logsource-routing`, which skips rules that contradict what an event says of
its log source; on Sysmon events that do not say it, RSigma's own `sysmon` pipeline or a log source given for the
file; on correlations `--suppress`, since Tocsin is silent for a window after a group fired, too. Its
`--bloom-prefilter` gained nothing on the generated lanes. An event that does not say its service meets rules of every
service in RSigma; in Tocsin it meets those of its own. Matches are compared one by one, on the lane unrepeated, and
what only one engine has is checked, not guessed: where Tocsin alone matches, RSigma is run again on the event with the
field names and the log source that Tocsin reads from it.
"""

ORDER: Final = ("lane", "steps", "loading", "rules", "events", "batches", "groups", "methods")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; all but the first column are to the right."""
    lines = [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]
    lines += [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
    if isinstance(value, bool) or not isinstance(value, int):
        return str(value).replace("|", "\\|").replace("\n", " ")
    return f"{value:,}"


def report(results: Sequence[Json]) -> str:
    """All of it."""
    chosen = sorted(results, key=_place)
    parts = [INTRODUCTION, _machines(chosen)]
    lanes = [cast("Row", result["data"]) for result in chosen if result["kind"] == "lane"]
    if lanes:
        parts += [_summary(lanes), *map(_lane, lanes)]
    parts += [
        SECTIONS[str(result["kind"])](cast("Row", result["data"])) for result in chosen if result["kind"] != "lane"
    ]
    return "\n".join(parts)


def _place(result: Json) -> tuple[int, int]:
    """Where a result stands: sections in their order, and the lanes in theirs."""
    names = list(LANES)
    name = str(result["name"])
    return ORDER.index(str(result["kind"])), names.index(name) if name in names else len(names)


def _machines(results: Sequence[Json]) -> str:
    """The machine of the newest result, and the days of all."""
    if not results:
        return "Nothing has been measured yet.\n"
    newest = max(results, key=lambda result: str(result["date"]))
    days = sorted({str(result["date"])[:10] for result in results})
    machine = cast("Row", newest["machine"])
    different = sum(cast("Row", result["machine"]).get("CPU") != machine.get("CPU") for result in results)
    note = f"\n{different} of the results come from another machine: see their files.\n" if different else ""
    return f"{table(['', 'measured on'], [['Date', ', '.join(days)], *machine.items()])}{note}"


def _summary(lanes: Sequence[Row]) -> str:
    heads = [
        "lane",
        "events",
        "Tocsin net events/s",
        "RSigma net events/s",
        "ratio",
        "ratio of whole commands",
        "matches",
    ]
    rows = []
    for lane in lanes:
        by_name = {engine["engine"]: engine for engine in lane["engines"]}
        ratio = lane.get("ratio") or {}
        rate = {name: engine["net_events_per_s"] for name, engine in by_name.items()}
        rows.append([
            lane["lane"], lane["events"], rate.get("Tocsin", "-"), rate.get("RSigma", "-"),
            _times(ratio.get("net_events_per_s")), _times(ratio.get("events_per_s")),
            _agreement(lane.get("comparison")),
        ])  # fmt: skip
    return f"## Head to head, events a second and core\n\n{table(heads, rows)}"


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}x"


def _agreement(comparison: Row | None) -> str:
    if comparison is None:
        return "not compared"
    if "counts" in comparison:
        unequal = sum(row["tocsin"] != row["rsigma"] for row in comparison["counts"])
        return "same counts" if not unequal else f"{unequal} rules with other counts, below"
    if comparison["same"]:
        return f"the same {comparison['both']:,}"
    alone = comparison["tocsin"] - comparison["both"], comparison["rsigma"] - comparison["both"]
    return f"{comparison['both']:,} the same, {alone[0]:,} only Tocsin, {alone[1]:,} only RSigma, below"


def _lane(lane: Row) -> str:
    heads = ["engine", "matches", "load CPU s", "CPU s (best)", "CPU s (median)", "wall s (median)", "events/s whole",
             "events/s net", "net of medians", "peak MB"]  # fmt: skip
    keys = ("engine", "matches", "load_cpu_s", "cpu_s", "cpu_median_s", "wall_median_s", "events_per_s",
            "net_events_per_s", "net_median_events_per_s", "peak_mb")  # fmt: skip
    commands = "\n".join(f"    {engine['command']}" for engine in lane["engines"])
    runs = lane["engines"][0]["runs"]
    about = f"{_sentence(lane['about'])} {'One run' if runs == 1 else f'{runs} runs'} each."
    head = f"### {lane['lane']}: {lane['events']:,} events\n\n{about}\n\n{commands}\n"
    return "\n".join([head, table(heads, _picked(lane["engines"], keys)), _comparison(lane.get("comparison"))])


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _comparison(comparison: Row | None) -> str:
    if comparison is None:
        return ""
    if "counts" in comparison:
        return table(["rule", "Tocsin", "RSigma"], _picked(comparison["counts"], ("rule", "tocsin", "rsigma")))
    agreed = f"Matches (rule, line): Tocsin {comparison['tocsin']:,}, RSigma {comparison['rsigma']:,}, "
    agreed += f"both {comparison['both']:,}.\n"
    if comparison["same"]:
        return agreed
    heads = ["only", "matches", "rules", "why"]
    reasons: dict[tuple[str, str], list[Row]] = {}
    for difference in comparison["differences"]:
        reasons.setdefault((difference["only"], difference["reason"]), []).append(difference)
    rows = [
        [only, sum(row["count"] for row in rows), len({row["rule"] for row in rows}), reason]
        for (only, reason), rows in reasons.items()
    ]
    rows.sort(key=lambda row: (str(row[0]), -int(str(row[1]))))
    by_rule = table(
        ["rule", "only", "matches", "first line", "why"],
        _picked(comparison["differences"], ("rule", "only", "count", "line", "reason")),
    )
    folded = f"<details><summary>Rule by rule</summary>\n\n{by_rule}\n</details>\n"
    return "\n".join([agreed, table(heads, rows), folded])


def _picked(rows: Iterable[Row], keys: Sequence[str]) -> list[list[object]]:
    return [[row.get(key, "-") for key in keys] for row in rows]


def _loading(data: Row) -> str:
    rows = _picked(data["rows"], ("engine", "cpu_s", "wall_s", "peak_mb"))
    heads = ["", "CPU s", "wall s", "peak MB"]
    about = (
        "*Cold* has nothing in any cache of Tocsin's own; *again* is the second start. Starting the program is in it."
    )
    return f"## Loading all rules\n\n{about}\n\n    {data['command']}\n\n{table(heads, rows)}"


def _rules(data: Row) -> str:
    engines = [(row["rules"], engine) for row in data["rows"] for engine in row["engines"]]
    first = {engine["engine"]: engine for _, engine in reversed(engines)}
    rows = [
        [count, engine["engine"], engine["matches"], engine["load_cpu_s"], engine["cpu_s"] - engine["load_cpu_s"],
         _growth(_spent(engine), _spent(first[engine["engine"]])), engine["net_events_per_s"], engine["peak_mb"]]
        for count, engine in engines
    ]  # fmt: skip
    heads = ["rules", "engine", "matches", "load CPU s", "net CPU s", "of the fewest rules", "events/s net", "peak MB"]
    about = "Beyond the rules there are, copies with other ids and other literals."
    return f"## More rules: {data['lane']}, {data['events']:,} events\n\n{about}\n\n{table(heads, rows)}"


def _spent(engine: Row) -> float:
    return float(engine["cpu_s"] - engine["load_cpu_s"])


def _growth(seconds: float, of: float) -> str:
    return _times(seconds / of if of >= SMALLEST else None)


def _events(data: Row) -> str:
    heads = ["events", "engine", "CPU s", "wall s", "events/s whole", "peak MB"]
    rows = _picked(data["rows"], ("events", "engine", "cpu_s", "wall_s", "events_per_s", "peak_mb"))
    return f"## More events: {data['lane']}, repeated\n\n{table(heads, rows)}"


def _batches(data: Row) -> str:
    heads = ["batch", "matches", "parse events/s", "match events/s", "match events/s, second half", "peak MB"]
    keys = ("batch", "matches", "parse_events_per_s", "match_events_per_s", "warm_match_events_per_s", "peak_mb")
    about = "`Plan.match` alone, on frames already parsed; the second half shows it once each log source has been seen."
    title = f"## Size of a batch: {data['lane']}, {data['events']:,} events"
    return f"{title}\n\n{about}\n\n{table(heads, _picked(data['rows'], keys))}"


def _steps(data: Row) -> str:
    heads = ["lane", "events", "read s", "parse s", "match s", "matches", "parse events/s", "match events/s"]
    keys = ("lane", "events", "read_s", "parse_s", "match_s", "matches", "parse_events_per_s", "match_events_per_s")
    about = (
        "CPU seconds from inside one process, in groups of 20,000 events as a hunt takes them; printing is not in it."
    )
    return f"## Where Tocsin's time goes\n\n{about}\n\n{table(heads, _picked(data['rows'], keys))}"


def _groups(data: Row) -> str:
    heads = [
        "groups",
        "matches",
        "matches/s",
        "groups held",
        "evicted",
        "state MB, counted",
        "process grew MB",
        "bytes a group, counted",
        "bytes a group, process",
    ]
    keys = ("groups", "matches", "matches_per_s", "groups_held", "evicted", "state_mb", "grown_mb",
            "state_bytes_per_group", "resident_bytes_per_group")  # fmt: skip
    about = "One `event_count` over a window that holds all matches, so that no group is ever finished."
    return f"## Correlation, by groups\n\n{about}\n\n{table(heads, _picked(data['rows'], keys))}"


def _methods(data: Row) -> str:
    rows = [[row["engine"], row["events"], row["matches"], row["seconds"], row["events"] / max(row["seconds"], 1e-9)]
            for row in data["rows"]]  # fmt: skip
    heads = ["method", "events", "matches", "CPU s", "events/s"]
    about = (
        f"Over {data['events']:,} events of `{data['lane']}`; these scripts write no matches out, and time themselves."
    )
    return f"## Other methods\n\n{about}\n\n{table(heads, rows)}"


SECTIONS: Final[dict[str, Callable[[Row], str]]] = {
    "steps": _steps,
    "loading": _loading,
    "rules": _rules,
    "events": _events,
    "batches": _batches,
    "groups": _groups,
    "methods": _methods,
}
"""Kind of a result -> what writes its section."""
