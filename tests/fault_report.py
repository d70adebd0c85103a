"""The report of a fault run: Markdown for people, JSON for the rest."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from fault_check import SHOWN, Findings
from fault_kinds import Struck
from fault_region import Ended, Sample


@dataclass(frozen=True, slots=True)
class Told:
    """What one that sends without answers lost.

    Attributes:
        transport: `tcp` or `udp`.
        sent: Lines that its socket took.
        refused: Lines that it did not take.
        stored: Lines in the lake.
        lost: Lines that its socket took and that are not in the lake.
        twice: Lines in the lake more than once.
        down_seconds: How long its collector was down.
    """

    transport: str
    sent: int
    refused: int
    stored: int
    lost: int
    twice: int
    down_seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """A run.

    Attributes:
        bus: Which bus.
        seed: Names the plan of faults.
        seconds: Of the faults; `drained` of what came after until nothing waited.
        struck: The faults.
        ended: Processes that ended by themselves.
        starts: Process -> how often it was started.
        senders: What the RELP senders did.
        plain: What the others lost.
        samples: The run second by second.
        findings: The verdict.
    """

    bus: str
    seed: int
    seconds: float
    drained: float
    lines_a_second: float
    struck: tuple[Struck, ...]
    ended: tuple[Ended, ...]
    starts: dict[str, int]
    senders: dict[str, dict[str, float]]
    plain: tuple[Told, ...]
    samples: tuple[Sample, ...]
    findings: Findings

    @property
    def verdict(self) -> str:
        """One line."""
        found = self.findings
        alerts = "identical" if not (found.missing or found.extra or found.twice) else "NOT identical"
        return (
            f"{self.bus}, seed {self.seed}: {len(self.struck)} faults, {found.counts.get('lines wanted', 0):,} lines; "
            f"lost {len(found.lost)}, duplicated {len(found.duplicated)}, alerts {alerts} "
            f"({found.counts.get('alerts', 0):,}; {len(found.missing)} missing, {len(found.extra)} more, "
            f"{len(found.twice)} twice); other: {len(found.other)}"
        )

    def write(self, folder: Path) -> Path:
        """Write both forms; the path of the Markdown."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"faults-{self.bus}-{self.seed}"
        (folder / f"{name}.json").write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))
        path = folder / f"{name}.md"
        path.write_text("\n".join(self._markdown()) + "\n")
        return path

    def _markdown(self) -> list[str]:
        found = self.findings
        lines = [f"# Faults over the {self.bus} bus", "", self.verdict, "", "| what | number |", "| --- | --- |"]
        lines += [f"| {what} | {number:,} |" for what, number in found.counts.items()]
        lines += [
            f"| seconds of faults | {self.seconds:.0f} |",
            f"| seconds until nothing waited | {self.drained:.0f} |",
            f"| lines a second, all in all | {self.lines_a_second:,.0f} |",
            f"| most records waiting for detect | {max((s.lag.get('detect', 0) for s in self.samples), default=0):,} |",
            "",
            "## Faults",
            "",
            "| kind | number | seconds, all in all |",
            "| --- | --- | --- |",
        ]
        kinds: Counter[str] = Counter()
        length: Counter[str] = Counter()
        for one in self.struck:
            kinds[one.fault.kind] += 1
            length[one.fault.kind] += round(one.ended - one.began)
        lines += [f"| {kind} | {number} | {length[kind]} |" for kind, number in sorted(kinds.items())]
        lines += ["", "## RELP senders", "", "| sender | lines | sessions | sent again | longest wait |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        lines += [
            f"| {name} | {one['lines']:,.0f} | {one['sessions']:.0f} | {one['again']:,.0f} | "
            f"{one['longest wait']:.1f} s |"
            for name, one in self.senders.items()
        ]
        lines += ["", "## Plain TCP and UDP: what is lost while `collect` is down", ""]
        lines += ["| transport | the socket took | refused | stored | lost | twice | collector down |"]
        lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
        lines += [
            f"| {one.transport} | {one.sent:,} | {one.refused:,} | {one.stored:,} | {one.lost:,} | {one.twice} | "
            f"{one.down_seconds:.0f} s |"
            for one in self.plain
        ]
        lines += ["", "## Processes", "", "Starts: " + ", ".join(f"{n} {t}" for n, t in self.starts.items()), ""]
        lines += [f"- {one.name} ended by itself at {one.at:.0f} s, status {one.status}" for one in self.ended]
        for what in ("lost", "duplicated", "invented", "missing", "extra", "twice", "other"):
            items = getattr(found, what)
            if items:
                lines += ["", f"## {what}: {len(items)}", ""] + [f"- {item}" for item in items[:SHOWN]]
        lines += ["", "## Each fault", "", "| from | to | kind | target | detail | note |"]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
        lines += [
            f"| {one.began:.1f} | {one.ended:.1f} | {one.fault.kind} | {one.fault.target} | {one.fault.detail} | "
            f"{one.note} |"
            for one in self.struck
        ]
        return lines
