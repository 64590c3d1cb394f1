"""Command dispatch on top of tyro; rewrites its error messages."""

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
"""A function, a dataclass whose instances are callable, or the location of one as `module:attribute`.

A location is imported only when its command runs; with torch that takes seconds."""


@dataclass(frozen=True)
class Group:
    """A group of subcommands. about: one line for the help."""

    about: str
    commands: Mapping[str, Command]


def choose(
    commands: Mapping[str, Command | Group], arguments: Sequence[str], *, prog: str, description: str | None = None
) -> Callable[[], Any]:
    """Parses a command line and returns the chosen command with its options; calling the result runs it.

    arguments: without the program's name. `--help` prints and ends the process.
    Raises UsageError for an unknown command, with the nearest name, and for invalid options.
    """
    name, *rest = arguments or ["nothing"]
    if name.startswith("-"):
        whole = name.startswith("--tyro-")  # completion needs the subcommands of groups; help lists only the groups
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
    """The commands as a union of types, which tyro parses as subcommands.

    whole: include the subcommands of groups.
    """
    types: list[Any] = [_type(name, command, whole=whole) for name, command in commands.items()]
    return Union[tuple(types)]  # noqa: UP007  X | Y needs the types written out


def _type(name: str, command: Command | Group, *, whole: bool) -> Any:
    from tyro.conf import subcommand

    if not isinstance(command, Group):
        return Annotated[Any, subcommand(name, constructor=_constructor(command))]
    inside = _union(command.commands, whole=True) if whole else bool
    return Annotated[Any, subcommand(name, constructor=inside, description=command.about)]


def _constructor(command: Command) -> Callable[..., Any]:
    """What tyro calls with the parsed options: a class itself, or a wrapper that returns the bound function call."""
    found: Callable[..., Any] = pkgutil.resolve_name(command) if isinstance(command, str) else command
    if isinstance(found, type):
        return found

    @functools.wraps(found)
    def bound(*positional: Any, **named: Any) -> Callable[[], Any]:
        return functools.partial(found, *positional, **named)

    return bound


def unboxed(text: str) -> str:
    """The message in the box that tyro draws, as one line; the box may be drawn with Unicode or ASCII."""
    sections: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("╭") or (len(line) > 2 and set(line.strip("│ ")) <= set("─-╰╯")):
            sections.append([])
        else:
            sections[-1].append(line.strip("│ "))
    listed = re.split("[─-]{5,}", text.partition("Missing from ")[2])[0]
    if missing := re.findall(r"^. {5}(\S.*?)[ │|]*$", listed, re.MULTILINE):  # descriptions are indented further
        return f"{' and '.join(missing)} must be given"
    message = " ".join(sections[1] if len(sections) > 1 else sections[0])
    for pattern, replacement in _REPLACEMENTS.items():
        message = re.sub(pattern, replacement, message)
    return message or text.strip()


# Removes the name of the parser in front of a message, and rephrases Python's errors about numbers.
_REPLACEMENTS = {
    r"^Error parsing (?!--)[\w .-]+: ": "",
    r"^Error parsing (\S+): invalid literal for int\(\) with base 10: ": r"\1 takes a whole number, got ",
    r"^Error parsing (\S+): could not convert string to float: ": r"\1 takes a number, got ",
    r"^Error parsing (?=--)": "",
}
