"""Tests the remedies of error messages: reads the options after "pass" and runs the command line again with them.

A remedy is written "pass --a 1 --b 2, or --c 3": two alternatives, the first of two options, which are passed together.
"unknown option --x; did you mean --y?" is one too.
"""

import re
from collections.abc import Callable, Sequence

Refusal = Callable[[Sequence[str]], str | None]
"""The message with which a command line is refused; None if it is accepted."""

_OPTION = r"--[a-z][\w.-]*"
_VALUE = r"(?!--|or\b|and\b|with\b|too\b)[^\s,]+"
_ALTERNATIVE = re.compile(rf"({_OPTION}(?: {_VALUE})*)(?: {_OPTION}(?: {_VALUE})*)*")


def remedies(message: str) -> list[list[str]]:
    """The alternatives that a message offers, each as arguments to pass together; empty if it offers none.

    Raises AssertionError for text after "pass" from which no option can be copied.
    """
    found = []
    for text in re.split(r"\bpass (?=--)", message)[1:]:
        first, *others = re.split(r",? or (?=--)", re.split(r"[;:)](?=\s|$)", text)[0])
        for part in (first, *others):
            words = re.split(r", (?!or --)", part)[0]  # an explanation may follow a comma
            assert _ALTERNATIVE.fullmatch(words), f"not options that can be copied: {words!r} in {message!r}"
            found.append(words.split())
    return found


def with_remedy(arguments: Sequence[str], remedy: Sequence[str]) -> list[str]:
    """The arguments with the options of a remedy, in place of the same options."""
    replaced = {_switch(word) for word in remedy if word.startswith("--")}
    kept, keep = [], True
    for argument in arguments:
        if argument.startswith("--"):
            keep = _switch(argument.split("=")[0]) not in replaced
        if keep:
            kept.append(argument)
    return [*kept, *remedy]


def take_remedies(refusal: Refusal, arguments: Sequence[str], *, most: int = 3) -> int:
    """Takes every alternative of every message until all are accepted. Returns the longest chain of remedies.

    Raises AssertionError if a message offers no remedy, if its remedy leads back to the same complaint, and if a chain
    has more than `most` remedies.
    """
    return _follow(refusal, list(arguments), most, ())


def _follow(refusal: Refusal, arguments: list[str], most: int, before: tuple[str, ...]) -> int:
    message = refusal(arguments)
    if message is None:
        return len(before)
    complaint = re.sub(r"-?\d[\w.]*", "#", re.split(r"[;:] (?=pass|did)", message)[0])
    assert complaint not in before, f"{' '.join(arguments)}: the remedy leads back to: {message}"
    assert len(before) < most, f"{' '.join(arguments)}: more than {most} remedies, the last: {message}"
    if meant := re.search(r"unknown option (\S+?); did you mean (\S+?)\?", message):
        tries = [[meant[2] if argument == meant[1] else argument for argument in arguments]]
    else:
        tries = [with_remedy(arguments, remedy) for remedy in remedies(message)]
    assert tries, f"no remedy in: {message}"
    return max(_follow(refusal, again, most, (*before, complaint)) for again in tries)


def _switch(option: str) -> str:
    """An option without the `no-` that negates it."""
    return re.sub(r"^(--(?:[\w-]+\.)?)no-", r"\1", option)
