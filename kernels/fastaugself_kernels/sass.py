"""What the control flow of compiled code says without running it: loops, and instructions on the longest way through.

Reads the text of `nvdisasm -c`. The way through a kernel is made of basic blocks; a loop counts as often as the caller
says that it goes round, and where the code forks, the longer side counts. A fork that is rarely taken therefore makes
the figure an upper bound, and the figure is the same on every run.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

_LABEL = re.compile(r"^\s*(\.L_\w+):")
_INSTRUCTION = re.compile(r"^\s+(?:/\*[0-9a-f]+\*/)?\s*(?:@(!?U?P\w+)\s+)?([A-Z][A-Z0-9_.]+)([^;]*);")
_TARGET = re.compile(r"`\((\.L_\w+)\)")


@dataclass(frozen=True)
class Block:
    """Instructions that are only entered at the first and left after the last one."""

    opcodes: tuple[str, ...]
    successors: tuple[int, ...]


@dataclass(frozen=True)
class Loop:
    """A loop by its header, with the loops inside it in the order of the code."""

    header: int
    blocks: frozenset[int]
    inner: tuple["Loop", ...] = field(repr=False)

    @property
    def shape(self) -> str:
        """The nesting, as brackets: a loop with two loops inside is "[[][]]"."""
        return f"[{''.join(loop.shape for loop in self.inner)}]"


def blocks(text: str) -> list[Block]:
    """Basic blocks of one kernel, the entry first."""
    instructions: list[tuple[str, bool, str | None]] = []  # opcode, whether it is conditional, label that it goes to
    labels: dict[str, int] = {}
    for line in text.splitlines():
        if found := _LABEL.match(line):
            labels[found[1]] = len(instructions)
        elif found := _INSTRUCTION.match(line):
            guard, opcode, operands = found.groups()
            label = _TARGET.search(operands)
            # A second predicate can stand among the operands, as in "@P2 BRA P4, `(.L_x_13)".
            conditional = bool(guard) or bool(re.match(r"\s*!?U?P\w+,", operands))
            jumps = opcode.startswith(("BRA", "CALL.REL.NOINC"))  # ptxas also calls what does not return
            instructions.append((opcode, conditional, label[1] if label and jumps else None))
    ends = {i + 1 for i, (opcode, _, target) in enumerate(instructions) if target or opcode in ("EXIT", "RET")}
    starts = sorted({0, *labels.values(), *ends} - {len(instructions)})
    number = {start: i for i, start in enumerate(starts)}
    found_blocks = []
    for start, end in zip(starts, [*starts[1:], len(instructions)], strict=True):
        opcode, conditional, target = instructions[end - 1]
        successors = [] if target is None else [number[labels[target]]]
        stops = (target is not None or opcode in ("EXIT", "RET")) and not conditional
        if not stops and end in number:
            successors.append(number[end])
        found_blocks.append(Block(tuple(opcode for opcode, _, _ in instructions[start:end]), tuple(successors)))
    return found_blocks


def loops(code: Sequence[Block]) -> tuple[Loop, ...]:
    """The outermost loops, in the order of the code; what cannot be reached, as the trap at the end, is none."""
    order, dominators = _dominators(code)
    bodies: dict[int, set[int]] = {}
    for block in order:
        for header in code[block].successors:
            if header in dominators[block]:
                bodies.setdefault(header, {header}).update(_reaching(code, block, header))
    by_size = sorted(bodies.items(), key=lambda item: len(item[1]))
    made: list[Loop] = []
    for header, body in by_size:
        inner = [loop for loop in made if loop.header in body]
        made = [loop for loop in made if loop.header not in body]
        made.append(Loop(header, frozenset(body), tuple(sorted(inner, key=lambda loop: loop.header))))
    return tuple(sorted(made, key=lambda loop: loop.header))


def longest(
    code: Sequence[Block],
    trips: Sequence[float],
    weigh: Callable[[Block], float] = lambda block: len(block.opcodes),
    shares: Mapping[int, float] | None = None,
) -> float:
    """Instructions that one thread executes on the longest way through the code.

    trips: how often each loop goes round, in the order of the code, outer loops before the loops inside them.
    weigh: what to count of a block; the longest way is that of the most of it.
    shares: of blocks by their number, how often they run when the way leads through them, if not always.
    Raises ValueError where the code has another number of loops.
    """
    outermost = loops(code)
    flat = list(_flatten(outermost))
    if len(flat) != len(trips):
        shape = "".join(loop.shape for loop in outermost)
        raise ValueError(f"the code has {len(flat)} loops, {shape or 'none'}, and there are {len(trips)} trip counts")
    often = shares or {}
    times = {loop.header: count for loop, count in zip(flat, trips, strict=True)}

    def cost(nodes: frozenset[int], entry: int, inside: Sequence[Loop], header: int | None) -> float:
        """Of the longest way from `entry` on among `nodes`; edges back to `header` end it."""
        belongs = {block: loop for loop in inside for block in loop.blocks}
        weights: dict[int, float] = {}

        def follow(block: int) -> float:
            if block in weights:
                return weights[block]
            here: float
            loop = belongs.get(block)
            if loop is None:
                here, left = weigh(code[block]) * often.get(block, 1.0), set(code[block].successors)
            else:
                here = times[loop.header] * cost(loop.blocks, loop.header, loop.inner, loop.header)
                left = {exit for body in loop.blocks for exit in code[body].successors} - loop.blocks
            after = [follow(exit) for exit in left if exit in nodes and exit != header]
            weights[block] = here + max(after, default=0.0)
            return weights[block]

        return follow(entry)

    return cost(frozenset(range(len(code))), 0, outermost, None)


def _flatten(nest: Sequence[Loop]) -> list[Loop]:
    return [loop for outer in nest for loop in (outer, *_flatten(outer.inner))]


def _reaching(code: Sequence[Block], block: int, header: int) -> set[int]:
    """Blocks from which `block` is reached without passing `header`."""
    before: dict[int, set[int]] = {}
    for i, one in enumerate(code):
        for successor in one.successors:
            before.setdefault(successor, set()).add(i)
    found, open_ = {header, block}, [block] if block != header else []
    while open_:
        for predecessor in before.get(open_.pop(), ()):
            if predecessor not in found:
                found.add(predecessor)
                open_.append(predecessor)
    return found


def _dominators(code: Sequence[Block]) -> tuple[list[int], dict[int, set[int]]]:
    """Reachable blocks, and for each the blocks that every way to it passes."""
    order, open_ = [], [0]
    while open_:
        block = open_.pop()
        if block not in order:
            order.append(block)
            open_.extend(code[block].successors)
    before: dict[int, list[int]] = {block: [] for block in order}
    for block in order:
        for successor in code[block].successors:
            before[successor].append(block)
    dominators = {block: set(order) for block in order}
    dominators[0] = {0}
    changed = True
    while changed:
        changed = False
        for block in order[1:]:
            new = set.intersection(*(dominators[one] for one in before[block])) | {block}
            if new != dominators[block]:
                dominators[block], changed = new, True
    return order, dominators
