"""The most stack that a call takes, read off the assembly of its code: an upper bound.

A function takes all that its instructions subtract from the stack pointer, each counted once (none
stands in a loop, and what pairs with an addition is counted too), and what its callee takes that
takes most. Where the stack pointer is set in another way, or a function outside is called, nothing
is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from addergraph.errors import UnsupportedError

from .instructions import IF

PAGE = 4096  # bytes, of the stack of Windows on x86-64


@dataclass(frozen=True)
class _Machine:
    """How one assembly language moves its stack pointer.

    takes    an instruction that subtracts group 1: bytes, or registers in braces
    gives    instructions that only add, or set what was saved before
    touches  whatever else writes the stack pointer
    calls    calls and tail calls of group 1
    per_call bytes of a return address; red_zone: bytes below the pointer that leaves may use
    """

    takes: re.Pattern[str]
    gives: re.Pattern[str]
    touches: re.Pattern[str]
    calls: re.Pattern[str]
    per_call: int
    red_zone: int
    word: int


def _machine(
    takes: str,
    gives: str,
    touches: str,
    calls: str,
    *,
    per_call: int = 0,
    red_zone: int = 0,
    word: int = 8,
) -> _Machine:
    one, two, three, four = (re.compile(rf"\s*(?:{t})") for t in (takes, gives, touches, calls))
    return _Machine(one, two, three, four, per_call, red_zone, word)


_MACHINES = {
    "x86_64": _machine(
        r"(?:pushq\s+(\S+)|subq\s+\$(\d+), %rsp|addq\s+\$-(\d+), %rsp|andq\s+\$-(\d+), %rsp)",
        r"popq|addq\s+\$\d+, %rsp|subq\s+\$-\d+, %rsp|movq\s+%rbp, %rsp|leaq\s+-?\d+\(%rbp\), %rsp",
        r"\w+\s+(?:[^#]*, )?%rsp\s*(?:#|$)",
        r"(?:callq?|j\w+)\s+([A-Za-z_]\S*)",
        per_call=8, red_zone=128,
    ),
    "aarch64": _machine(
        r"(?:sub\s+sp, sp, #(\d+)\b(?!, lsl)|st\w+\s.*\[sp, #-(\d+)\]!)",
        r"ld\w+\s.*\[sp\], #|add\s+sp, sp, #|mov\s+sp, x29",
        r"\w+\s+w?sp, |.*\[sp[^\]]*\]!|.*\[sp\], ",
        r"(?:bl|b)\s+([A-Za-z_]\S*)",
    ),
    "riscv": _machine(
        r"(?:c\.)?addi\s+sp, sp, -(\d+)",
        r"addi\s+sp, (?:sp, \d|s0, -)|add\s+sp, sp, ",
        r"\w[\w.]*\s+sp, ",
        r"(?:call|tail|jal|j)\s+([A-Za-z_]\S*)",
    ),
    "thumb": _machine(
        rf"(?:v?push{IF}(?:\.w)?\s+\{{([^}}]*)\}}|subw?(?:\.w)?\s+(?:sp, )?sp, #(\d+)"
        r"|str\w*\s.*\[sp, #-(\d+)\]!)",
        rf"v?pop{IF}(?:\.w)?\s|addw?{IF}(?:\.w)?\s+(?:sp, )?sp, #|ldr\w*\s.*\[sp\], #",
        r"v?(?:push|pop)\S*\s|v?(?:stm|ldm)\S*\s+sp!|(?!cmp|st)\w+(?:\.w)?\s+sp, "
        r"|.*\[sp[^\]]*\]!|.*\[sp\], ",
        rf"bl?{IF}(?:\.w)?\s+([A-Za-z_]\S*)",
        word=4,
    ),
}  # fmt: skip


@dataclass
class _Function:
    takes: int = 0
    calls: set[str] = field(default_factory=set)
    known: bool = True


def stack_bytes(assembly: str, triple: str, entries: Iterable[str]) -> int | None:
    """The most bytes of stack that a call of one of `entries` takes; None where it is not known.

    Calls through a pointer are not followed: they are the caller's own function.
    """
    if "-apple-" in triple:
        triple, assembly = "aarch64", _as_of_elf(assembly)
    name = next((n for n in _MACHINES if triple.startswith(n)), None)
    if name is None:
        return None
    machine = _MACHINES[name]
    functions = _functions(assembly, machine)
    found = [_depth(functions, entry, machine, ()) for entry in entries]
    if None in found:
        return None
    return max(depth for depth in found if depth is not None) + machine.red_zone


def require_frames_below_a_page(assembly: str, triple: str) -> None:
    """UnsupportedError for code for Windows with a function that takes a page of stack or more:
    the system adds the page below the last one when it is touched, and this code probes none."""
    functions = _functions(assembly, _MACHINES["x86_64"])
    for name, function in functions.items():
        if function.takes >= PAGE:
            raise UnsupportedError(
                f"{name} takes {function.takes} bytes of stack, and code for {triple} at most "
                f"{PAGE - 1} in one function: a call has too many tensors; make the network of "
                "fewer layers, or compile it for Linux"
            )


def _as_of_elf(assembly: str) -> str:
    """Assembly for macOS: labels of no function begin with L, names of C with an underscore."""
    local = re.sub(r"(?<![\w.$])L(?=[A-Za-z]\w*\d)", ".L", assembly)
    return re.sub(r"(?<![\w.$])_(?=[A-Za-z_])", "", local)


def _functions(assembly: str, machine: _Machine) -> Mapping[str, _Function]:
    functions: dict[str, _Function] = {}
    current = _Function()
    for line in assembly.splitlines():
        if label := re.match(r"([A-Za-z_][\w.$]*):", line):
            current = functions.setdefault(label[1], _Function())
        elif took := machine.takes.match(line):
            current.takes += _bytes(next(g for g in took.groups() if g is not None), machine.word)
        elif called := machine.calls.match(line):
            current.calls.add(called[1].removesuffix("@PLT"))
        elif machine.touches.match(line) and not machine.gives.match(line):
            current.known = False
    return functions


def _bytes(operand: str, word: int) -> int:
    """A number as it is, registers by their count: d8 of ARM is one of 64 bits."""
    if operand.isdigit():
        return int(operand)
    return word * sum(2 if name.strip()[0] == "d" else 1 for name in operand.split(","))


def _depth(
    functions: Mapping[str, _Function], name: str, machine: _Machine, callers: tuple[str, ...]
) -> int | None:
    function = functions.get(name)
    if function is None or not function.known or name in callers:
        return None
    depths = [_depth(functions, called, machine, (*callers, name)) for called in function.calls]
    if None in depths:
        return None
    deepest = max((depth for depth in depths if depth is not None), default=0)
    return machine.per_call + function.takes + deepest
