"""Speed without the hardware: cycles of each kernel's inner loop, as llvm-mca counts them.

    python -m benchmarks.cycles --target cortex-a76 --int8
    python -m benchmarks.cycles --target aarch64-linux-gnu --cpus cortex-a53 --model lenet5_bn

For each contraction of a network the innermost loop that sums most terms is run by llvm-mca's model
of a core, which has no caches and foresees every branch. Of each kernel the table says:

    terms   summed by one iteration of the loop
    limit   cycles for 16 terms of the instructions that make terms, |x - f| and its sum or the
            multiply-add, where nothing else is executed and none waits for another
    ratio   cycles of the whole loop, loads and broadcasts included, over that limit
    stack   instructions of the loop that read or write the stack: registers that were spilled

Ends with status 1 where a kernel is above `--most` times its limit, or a loop spills. llvm-mca is
part of LLVM (Debian: llvm).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

import addergraph as ag
from addergraph import compiler, zoo
from addergraph.codegen import llvm
from addergraph.codegen.emit.module import emit_program
from addergraph.codegen.targets.lookup import target_named
from addergraph.codegen.targets.target import Target
from addergraph.ir import Graph
from addergraph.tables import Table

ITERATIONS = 200
_WITHOUT = (
    "-skip-unsupported-instructions=lack-sched"  # as llvm-mca advises where a model lacks one
)
SAMPLES = 8  # that calibrate a network in integers: its numbers are of no matter here


@dataclass(frozen=True)
class Sum:
    """Instructions that make terms: `counted` adds up `terms` of them, `others` go with it."""

    counted: str
    terms: int
    others: str = "$^"

    def of(self, body: Sequence[str]) -> int:
        return self.terms * sum(bool(re.match(self.counted, line)) for line in body)

    def alone(self, body: Sequence[str]) -> list[str]:
        """The instructions that make terms, none of which waits for another."""
        made = [line for line in body if re.match(f"({self.counted}|{self.others})", line)]
        return [_renamed(line, number) for number, line in enumerate(made)]


def _renamed(line: str, number: int) -> str:
    """The instruction with a result of its own and operands that nothing writes."""
    registers = iter([f"v{number % 24}", *["v30", "v31", "v29"]])
    return re.sub(r"v\d+", lambda _: next(registers), line)


SUMS = {  # by what stands first in the names of kernels
    "adder_u8": (
        Sum("udot", 16, "uabd"),
        Sum("uadalp.*8h, .*16b", 16, "uabd"),
        Sum("uadalp.*4s, .*8h", 16, "uabd|uaddlp"),
    ),
    "adder_f32": (Sum(r"fadd.*\.4s", 4, r"(fabd|smin).*\.4s"),),
    "product_u8": (Sum("[su]dot", 16), Sum("sadalp.*4s, .*8h", 8, r"mul.*\.8h")),
    "product_f32": (Sum(r"fmla.*\.4s", 4),),
}


@dataclass(frozen=True)
class Loop:
    kernel: str
    body: tuple[str, ...]
    sum: Sum

    @property
    def terms(self) -> int:
        return self.sum.of(self.body)

    @property
    def stack(self) -> int:
        return sum("[sp" in line for line in self.body)


def functions(assembly: str) -> dict[str, list[str]]:
    """Symbol -> its lines: labels, and instructions without comments."""
    found, lines = dict[str, list[str]](), list[str]()
    for line in assembly.splitlines():
        text = line.split("//")[0].strip()
        if text.endswith(":"):
            if not text.startswith((".L", "L")):
                lines = found.setdefault(text[:-1], [])
            lines.append(text)
        elif text and not text.startswith("."):
            lines.append(re.sub(r"\s+", " ", text))
    return found


def loops(lines: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The bodies of innermost loops: from a label to the branch back to it, no other between."""
    at = {line[:-1]: i for i, line in enumerate(lines) if line.endswith(":")}
    last = -1
    for i, line in enumerate(lines):
        begin = at.get(line.split(" ")[-1], len(lines))
        if begin > i or begin < last:
            continue
        last = i
        yield tuple(text for text in lines[begin : i + 1] if not text.endswith(":"))


def kind_of(symbol: str) -> str | None:
    found = re.match(r"(adder|conv2d|dense|matmul)\w*?_(u8|(?:\w+_)?f32)_", symbol)
    if found is None or "_grad_" in symbol:
        return None
    term = "adder" if found[1] == "adder" else "product"
    return f"{term}_{'u8' if found[2] == 'u8' else 'f32'}"


def busiest(symbol: str, lines: Sequence[str]) -> Loop | None:
    sums = SUMS[kind] if (kind := kind_of(symbol)) else ()
    found = [Loop(symbol, body, sum) for sum in sums for body in loops(lines)]
    return max(found, key=lambda loop: loop.terms, default=None)


def cycles(body: Sequence[str], target: Target, cpu: str) -> float:
    """Cycles of one iteration among many."""

    def run(iterations: int) -> str:
        command = [tool(), f"-mtriple={target.triple}", f"-mcpu={cpu}"]
        command += [f"-mattr={target.features}"] * bool(target.features)
        for more in ((), (_WITHOUT,)):
            made = subprocess.run(
                [*command, *more, f"-iterations={iterations}"],
                input="\n".join(body), capture_output=True, text=True, check=False,
            )  # fmt: skip
            if _WITHOUT not in made.stderr:
                break
        if made.returncode != 0:
            sys.exit(f"llvm-mca: {made.stderr.strip()[:500]}")
        return made.stdout

    def total_of(text: str) -> int:
        return int(re.search(r"Total Cycles:\s+(\d+)", text)[1])  # type: ignore[index]

    total = total_of(run(2 * ITERATIONS)) - total_of(run(ITERATIONS))
    return total / ITERATIONS


def tool() -> str:
    """The newest llvm-mca: older ones model some cores by an older one."""
    found = (shutil.which(f"llvm-mca{ending}") for ending in ("-22", "-21", "-20", "-19", ""))
    newest = next(filter(None, found), None)
    return newest or sys.exit("llvm-mca is not on the PATH; it is part of LLVM (Debian: llvm)")


def network(name: str, int8: bool) -> Graph:
    """With random filters, and no weights at hand: dense kernels."""
    model = zoo.build(name)
    if not int8:
        return model.graph(training=False)
    images = np.random.default_rng(0).standard_normal((SAMPLES, *model.input_shape), np.float32)
    return ag.quantize(model, images).graph


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--target", default="aarch64-linux-gnu")
    parser.add_argument("--cpus", help="which rate the code; default: the one it is made for")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--most", type=float, default=1.25)
    options = parser.parse_args()
    target = target_named(options.target)
    cpus = (options.cpus or target.machine.name).split(",")
    module, _ = emit_program(compiler.lower(network(options.model, options.int8), target))
    assembly = llvm.compile_assembly(str(module), target)
    found = [
        loop for symbol, lines in functions(assembly).items() if (loop := busiest(symbol, lines))
    ]
    rows, worst = [], 0.0
    for loop in found:
        row = [loop.kernel, str(loop.terms), str(loop.stack)]
        for cpu in cpus:
            whole = cycles(loop.body, target, cpu)
            least = cycles(loop.sum.alone(loop.body), target, cpu)
            worst = max(worst, whole / least)
            row += [f"{16 * least / loop.terms:.2f}", f"{whole / least:.2f}"]
        rows.append(row)
    heads = [
        "kernel",
        "terms",
        "stack",
        *(f"{cpu} {what}" for cpu in cpus for what in ("limit", "ratio")),
    ]
    print("\n".join(Table(heads, rows, words={"kernel"}).lines()))
    return int(worst > options.most or any(loop.stack for loop in found))


if __name__ == "__main__":
    sys.exit(main())
