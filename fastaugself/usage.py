"""What the command-line parser says, in this project's words."""

import re


def unboxed(text: str) -> str:
    """The message in the box that the command-line parser draws, with or without line glyphs, as one line."""
    sections: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("╭") or (len(line) > 2 and set(line.strip("│ ")) <= set("─-╰╯")):
            sections.append([])
        else:
            sections[-1].append(line.strip("│ "))
    message = " ".join(sections[1] if len(sections) > 1 else sections[0])
    return re.sub(r"^Error parsing [\w.]+: (?=--)", "", message) or text.strip()
