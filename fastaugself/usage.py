"""From a command line to the command it asks for; what the parser says, in this project's words."""

import contextlib
import difflib
import functools
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union

from .errors import UsageError

Command = Callable[..., Any]


@dataclass(frozen=True)
class Group:
    """A name that further commands follow. They are loaded when they are needed, because their imports take time."""

    about: str
    load: Callable[[], Mapping[str, Command]]


def choose(
    commands: Mapping[str, Command | Group], arguments: Sequence[str], *, prog: str, description: str | None = None
) -> Callable[[], Any]:
    """The command that a command line asks for, its options filled in: calling it runs it.

    commands: functions, or dataclasses whose instances are called. Help is printed and ends the process.
    Raises UsageError for an unknown command, with the nearest, and for options that do not fit.
    """
    name, *rest = arguments or ["nothing"]
    if name.startswith("-"):
        return _parsed(_union(commands), arguments, prog, description)
    if name not in commands:
        near = difflib.get_close_matches(name, commands, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"{prog} takes one of {', '.join(commands)}, got {name}{hint}")
    command, prog = commands[name], f"{prog} {name}"
    if isinstance(command, Group):
        return choose(command.load(), rest, prog=prog, description=command.about)
    return _parsed(_constructor(command), rest, prog)


def _parsed(form: Any, arguments: Sequence[str], prog: str, description: str | None = None) -> Any:
    import tyro

    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(form, args=list(arguments), prog=prog, description=description)
    except SystemExit as end:
        if end.code != 2:
            raise
        text = complaint.getvalue()
        near = re.search(r"Perhaps you meant:[│\s]+(--[\w.-]+)", text)
        hint = f"; did you mean {near[1]}?" if near else ""
        raise UsageError(f"{unboxed(text)}{hint} (all options: {prog} --help)") from None


def _union(commands: Mapping[str, Command | Group]) -> Any:
    """The commands as the parser wants them: a union of types, one of which the command line chooses."""
    from tyro.conf import subcommand

    types: list[Any] = [
        Annotated[Any, subcommand(name, constructor=_union(command.load()), description=command.about)]
        if isinstance(command, Group)
        else Annotated[Any, subcommand(name, constructor=_constructor(command))]
        for name, command in commands.items()
    ]
    return Union[tuple(types)]  # noqa: UP007  of a list that is made here


def _constructor(command: Command) -> Command:
    """What the parser calls; for a function a stand-in that returns the call, which is made when parsing is over."""
    if isinstance(command, type):
        return command

    @functools.wraps(command)
    def bound(*positional: Any, **named: Any) -> Callable[[], Any]:
        return functools.partial(command, *positional, **named)

    return bound


def unboxed(text: str) -> str:
    """The message in the box that the command-line parser draws, with or without line glyphs, as one line."""
    sections: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("╭") or (len(line) > 2 and set(line.strip("│ ")) <= set("─-╰╯")):
            sections.append([])
        else:
            sections[-1].append(line.strip("│ "))
    message = " ".join(sections[1] if len(sections) > 1 else sections[0])
    return re.sub(r"^Error parsing [\w .-]+: ", "", message) or text.strip()
