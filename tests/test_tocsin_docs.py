"""Documentation that is checked: commands, targets and links exist, and what exists is documented."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tocsin.cli import tocsin

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), *(REPOSITORY / "rules").rglob("*.md")])


def commands(group: click.Group, prefix: str = "tocsin") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}"


@pytest.mark.parametrize("command", sorted(commands(tocsin.load())))
def test_every_command_is_documented(command: str) -> None:
    *group, name = command.split()
    # also as one of several: `tocsin rules check | test`
    pattern = rf"{' '.join(group)} (?:[a-z-]+ \| )*{name}\b"
    assert any(re.search(pattern, page.read_text("utf-8")) for page in PAGES), f"{command} is in no page"


@pytest.mark.parametrize("command", sorted(commands(tocsin.load())))
def test_every_command_has_help(command: str) -> None:
    found: click.Command = tocsin
    for name in command.split()[1:]:
        assert isinstance(found, click.Group)
        found = found.commands[name]
    assert found.help


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_makefile_has_every_target_that_is_named() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"`?make ([a-z-]+)`", page.read_text("utf-8"))}
    assert named
    assert named <= targets


def test_decisions_are_numbered_once() -> None:
    numbers = [path.name[:4] for path in (REPOSITORY / "docs" / "decisions").glob("*.md")]
    assert sorted(numbers) == [f"{number:04}" for number in range(1, len(numbers) + 1)]
