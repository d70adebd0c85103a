"""Rules change while the processes run: files are looked at, and a changed set takes the place of the old one at once.

Looking compares names, sizes and times; only where those differ are files read, and of those only the ones whose
content is new are parsed and compiled. All of that happens beside the work. The new set is then put in the place of the
old by one assignment, so that who asks for the rules gets the old ones or the new ones, whole. A stage asks at each
batch.

What is broken is refused by itself. A set of which nothing runs, or that cannot be read at all, is not taken: the old
rules go on, and the log and the console say so until that is mended.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog

from detections.load import RULE_SUFFIXES
from detections.reach import unreached
from detections.rule import Refusal, RuleError
from tocsin.rule_set import RuleSet, RuleSource, load_rule_set
from tocsin.stages import Stage

log = structlog.get_logger()

T = TypeVar("T")

POLL_SECONDS: Final = 0.25
"""How often it is seen whether somebody asks for the rules to be read anew, or for the end."""

SETTLE_SECONDS: Final = 0.5
"""How long files must stay as they are before they are read: a checkout writes hundreds, one after another."""

LONGEST_SETTLING: Final = 10.0

Stamp = tuple[int, int, int]
"""Time of a file's last change (ns), size, inode."""

Stamps = Mapping[str, Stamp]

ABSENT: Final[Stamp] = (0, 0, 0)


class NoRuleError(RuleError):
    """Not one rule can run: a quiet queue would then mean nothing."""


class RuleWatch:
    """The rules at work, and whether they are still those on disk.

    Args:
        source: Where they come from.
        seconds: How often to look at the files; 0: only when asked.
        failing: Told why changed rules are not taken up; None once they are.

    Attributes:
        compiled: Whether they run here; a console only shows them.
        current: The rules at work. To be read once for what belongs together.
        seconds: How long it took to read and compile them.

    Raises:
        RuleError: The rules cannot be loaded, or none runs.
    """

    def __init__(
        self, source: RuleSource, seconds: float = 0.0, failing: Callable[[str | None], None] = lambda _: None
    ) -> None:
        self._source = source
        self._seconds = seconds
        self._failing = failing
        self._asked = threading.Event()
        self._reason: str | None = None
        self._said: set[str] = set()
        self.seconds = 0.0
        self.compiled = source.compiled
        self._stamps: Stamps | None = _stamps(source)
        self.current = self._loaded(None)
        self._tell(self.current, None)

    def ask(self) -> None:
        """Have the files read anew, whatever their times say; returns at once."""
        self._asked.set()

    def run(self, stop: threading.Event, clock: Callable[[], float] = time.monotonic) -> None:
        """Look at the files every so often, and when asked, until `stop`."""
        looked = clock()
        while not stop.wait(POLL_SECONDS):
            if self._asked.is_set() or (self._seconds and clock() - looked >= self._seconds):
                self.look(stop)
                looked = clock()

    def look(self, stop: threading.Event | None = None) -> bool:
        """Look at the files, and take up what has changed; whether other rules are at work now."""
        asked = self._asked.is_set()
        self._asked.clear()
        try:
            stamps = _stamps(self._source)
            if stamps == self._stamps and not asked:
                return False
            stamps = self._settled(stamps, stop or threading.Event())
            taken = self._take_up(self._loaded(self.current), asked=asked)
        except (RuleError, OSError) as error:
            self._stamps = None  # looked at again next time, whatever the files say
            self._fail(f"the rules on disk cannot be taken up, the old ones go on: {error}")
            return False
        self._stamps = stamps
        self._fail(None)
        return taken

    def _settled(self, stamps: Stamps, stop: threading.Event) -> Stamps:
        """The stamps once no file has changed for a moment."""
        for _ in range(int(LONGEST_SETTLING / SETTLE_SECONDS)):
            if stop.wait(SETTLE_SECONDS):
                break
            before, stamps = stamps, _stamps(self._source)
            if before == stamps:
                break
        return stamps

    def _loaded(self, before: RuleSet | None) -> RuleSet:
        started = time.monotonic()
        rules = load_rule_set(self._source, before)
        if self._source.compiled and not rules.plan.rules:
            for refusal in rules.refused:
                _log_refusal(refusal)
            paths = ", ".join(map(str, self._source.paths)) or "an empty list"
            raise NoRuleError(f"rules: there is no rule that runs in {paths}")
        self.seconds = time.monotonic() - started
        log.debug("rules read", seconds=round(self.seconds, 3))
        return rules

    def _take_up(self, rules: RuleSet, *, asked: bool) -> bool:
        before = self.current
        if rules.same_as(before):
            if asked:
                log.info("rules unchanged", running=len(before.plan.rules))
            return False
        self.current = rules
        self._tell(rules, before)
        return True

    def _tell(self, rules: RuleSet, before: RuleSet | None) -> None:
        """Log what is new: all of it at first, later only what differs."""
        known = set() if before is None else {str(refusal) for refusal in before.refused}
        for refusal in rules.refused:
            if str(refusal) not in known:
                _log_refusal(refusal)
        out_of_reach = unreached(compiled.rule for compiled in rules.plan.rules)
        for group in out_of_reach:
            if str(group) not in self._said:
                self._said.add(str(group))
                log.warning("rules out of reach", rules=str(group))
        log.info(
            "rules loaded" if before is None else "rules changed",
            running=len(rules.plan.rules),
            refused=len(rules.refused),
            correlations=len(rules.correlations.rules),
            out_of_reach=sum(len(group.rules) for group in out_of_reach),
            **({} if before is None else _difference(before, rules)),
        )

    def _fail(self, reason: str | None) -> None:
        if reason == self._reason:
            return
        self._reason = reason
        self._failing(reason)
        if reason is None:
            log.info("rules on disk can be taken up again")
        else:
            log.error("rules not taken up", reason=reason)


class RenewedStage(Generic[T]):
    """A stage that is made anew when what it was made of is another: for state that only a start can build."""

    def __init__(self, name: str, current: Callable[[], T], make: Callable[[T], Stage]) -> None:
        self.name = name
        self._current = current
        self._make = make
        self._made_of = current()
        self._stage: Stage | None = make(self._made_of)

    def step(self, timeout: float) -> int:
        """See `Stage`."""
        now = self._current()
        if now is not self._made_of and now != self._made_of:
            log.info("stage begins anew with the changed rules", stage=self.name)
            self.close()
        self._made_of = now
        if self._stage is None:
            self._stage = self._make(now)
        return self._stage.step(timeout)

    def lag(self) -> int:
        """See `Stage`."""
        return 0 if self._stage is None else self._stage.lag()

    def close(self) -> None:
        """See `Stage`."""
        stage, self._stage = self._stage, None
        if stage is not None:
            stage.close()


def _difference(before: RuleSet, now: RuleSet) -> dict[str, int]:
    """How many rules and correlations came, went, and are others under the same id."""
    old, new = _digests(before), _digests(now)
    return {
        "added": len(new.keys() - old.keys()),
        "removed": len(old.keys() - new.keys()),
        "changed": sum(old[own] != new[own] for own in old.keys() & new.keys()),
    }


def _digests(rules: RuleSet) -> dict[str, str]:
    running = {compiled.rule.id: compiled.rule.digest for compiled in rules.plan.rules}
    return running | {rule.id: rule.digest for rule in rules.correlations.rules}


def _log_refusal(refusal: Refusal) -> None:
    log.warning("rule refused", file=str(refusal.path), line=refusal.line, rule=refusal.rule, reason=refusal.reason)


def _stamps(source: RuleSource) -> Stamps:
    """What tells whether files have changed without reading them; what cannot be looked at is left to who reads it."""
    stamps: dict[str, Stamp] = {}
    for path in source.paths:
        _stamp(path, stamps, RULE_SUFFIXES)
    for path in (*source.placeholders, *map(Path, source.pipelines)):
        _stamp(path, stamps, None)
    return stamps


def _stamp(path: Path, stamps: dict[str, Stamp], suffixes: Collection[str] | None) -> None:
    """Add the stamp of a file, or of all files below a folder that end in one of the suffixes."""
    folders: list[str] = []
    with contextlib.suppress(OSError):
        if path.is_dir():
            folders.append(str(path))
        else:
            stamps[str(path)] = _stamp_of(path.stat())
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif suffixes is None or entry.name.endswith(tuple(suffixes)):
                    stamps[entry.path] = ABSENT
                    with contextlib.suppress(OSError):  # a link to nothing
                        stamps[entry.path] = _stamp_of(entry.stat())


def _stamp_of(state: os.stat_result) -> Stamp:
    # The time of the inode moves also when a file becomes readable
    return max(state.st_mtime_ns, state.st_ctime_ns), state.st_size, state.st_ino
