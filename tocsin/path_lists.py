"""Options that take one path or more: `--rules a b --events c d`.

Click gives an option a fixed number of values, so that shells' globs (`--events *.evtx`) would not work. This command
repeats such an option before each value that follows it, up to the next option; click then sees `--rules a --rules b`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click


class PathListCommand(click.Command):
    """A command whose `multiple` options take all the values that follow them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the options, then parse as ever."""
        lists = {name for option in self.params if getattr(option, "multiple", False) for name in option.opts}
        return super().parse_args(ctx, list(repeat_options(args, lists)))


def repeat_options(args: Sequence[str], lists: set[str]) -> Iterator[str]:
    """The arguments, with an option of `lists` before each of its values."""
    current: str | None = None  # the list option whose values are being read
    first = False
    for index, argument in enumerate(args):
        if argument == "--":
            yield from args[index:]
            return
        if argument.startswith("-") and argument != "-":
            name = argument.partition("=")[0]
            current, first = (name, "=" not in argument) if name in lists else (None, False)
        elif current is not None:
            if not first:
                yield current
            first = False
        yield argument
