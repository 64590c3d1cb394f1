"""From a command line to the command it asks for; what the parser says, in this project's words."""

import contextlib
import difflib
import functools
import io
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union

from ..errors import UsageError

Command = Callable[..., Any] | str
"""A function, a dataclass whose instances are called, or where one stands, as entry points say it: `module:attribute`.

What is named by its place is imported when it is asked for; with torch that takes seconds."""


@dataclass(frozen=True)
class Group:
    """A name that further commands follow."""

    about: str
    commands: Mapping[str, Command]


def choose(
    commands: Mapping[str, Command | Group], arguments: Sequence[str], *, prog: str, description: str | None = None
) -> Callable[[], Any]:
    """The command that a command line asks for, its options filled in: calling it runs it.

    Help is printed and ends the process.
    Raises UsageError for an unknown command, with the nearest, and for options that do not fit.
    """
    name, *rest = arguments or ["nothing"]
    if name.startswith("-"):
        whole = name.startswith("--tyro-")  # the shell completes what groups hold; help only names them
        return _parsed(_union(commands, whole=whole), arguments, prog, description)
    if name not in commands:
        near = difflib.get_close_matches(name, commands, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"{prog} takes one of {', '.join(commands)}, got {name}{hint}")
    command, prog = commands[name], f"{prog} {name}"
    if isinstance(command, Group):
        return choose(command.commands, rest, prog=prog, description=command.about)
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


def _union(commands: Mapping[str, Command | Group], *, whole: bool) -> Any:
    """The commands as the parser wants them: a union of types, one of which the command line chooses.

    whole: with what groups hold.
    """
    types: list[Any] = [_type(name, command, whole=whole) for name, command in commands.items()]
    return Union[tuple(types)]  # noqa: UP007  of a list that is made here


def _type(name: str, command: Command | Group, *, whole: bool) -> Any:
    from tyro.conf import subcommand

    if not isinstance(command, Group):
        return Annotated[Any, subcommand(name, constructor=_constructor(command))]
    inside = _union(command.commands, whole=True) if whole else bool
    return Annotated[Any, subcommand(name, constructor=inside, description=command.about)]


def _constructor(command: Command) -> Callable[..., Any]:
    """What the parser calls; for a function a stand-in that returns the call, which is made when parsing is over."""
    found: Callable[..., Any] = pkgutil.resolve_name(command) if isinstance(command, str) else command
    if isinstance(found, type):
        return found

    @functools.wraps(found)
    def bound(*positional: Any, **named: Any) -> Callable[[], Any]:
        return functools.partial(found, *positional, **named)

    return bound


def unboxed(text: str) -> str:
    """The message in the box that the command-line parser draws, with or without line glyphs, as one line."""
    sections: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("╭") or (len(line) > 2 and set(line.strip("│ ")) <= set("─-╰╯")):
            sections.append([])
        else:
            sections[-1].append(line.strip("│ "))
    listed = re.split("[─-]{5,}", text.partition("Missing from ")[2])[0]
    if missing := re.findall(r"^. {5}(\S.*?)[ │|]*$", listed, re.MULTILINE):  # descriptions stand further in
        return f"{' and '.join(missing)} must be given"
    message = " ".join(sections[1] if len(sections) > 1 else sections[0])
    for said, ours in _IN_OUR_WORDS.items():
        message = re.sub(said, ours, message)
    return message or text.strip()


# Of what the parser says: who could not parse, unless it is an option; and what Python says of values.
_IN_OUR_WORDS = {
    r"^Error parsing (?!--)[\w .-]+: ": "",
    r"^Error parsing (\S+): invalid literal for int\(\) with base 10: ": r"\1 takes a whole number, got ",
    r"^Error parsing (\S+): could not convert string to float: ": r"\1 takes a number, got ",
    r"^Error parsing (?=--)": "",
}
