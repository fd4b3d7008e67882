"""The exported C of every network of the zoo, under AddressSanitizer and UBSan, between guards.

Each network in f32 and as integers, and in strict mode where it has no products, is exported for
every x86 level of this machine. Two programs run it:

* the example that is exported, compiled with both sanitizers: the self-test, and a call on files;
* `guarded.c`, also compiled with them. Sanitizers do not see into the kernels, which are linked as
  they are; so inputs, outputs, arena and weights each lie against a page that may not be touched,
  once behind and once before it.

Outputs must have the bits of the program in this process.
"""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import addergraph as ag
from addergraph import zoo
from addergraph.codegen.export.library import Exported
from addergraph.codegen.run.jit import Program
from addergraph.errors import QuantizationWarning, RangeWarning, UnsupportedError
from addergraph.ir import Array, Graph
from tests.campaigns.graphs import LEVELS
from tests.score import network

SOURCE = Path(__file__).with_name("guarded.c")
SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
NAME = "net"
PAGE = 4096
FORMS = ("", ":int8")
RUN_LIMIT = 1200.0  # seconds

WEIGHTS = """
    .section .guarded,"aw",@progbits
    .balign {page}
    .globl guard_below, guard_above, guarded_weights, {name}_data_weights
guard_below:
    .zero {page}
    .zero {before}
guarded_weights:
{name}_data_weights:
    .zero {size}
    .balign {page}
guard_above:
    .zero {page}
    .section .note.GNU-stack,"",@progbits
"""


def programs(names: Iterable[str]) -> Iterator[tuple[str, Program | None]]:
    """Each network and form, level and mode; None where strict mode refuses it."""
    for name in names:
        for form in FORMS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RangeWarning)
                warnings.simplefilter("ignore", QuantizationWarning)
                graph, weights = network(name + form)
            for level in LEVELS:
                for strict in (False, True):
                    what = f"{name}{form} {level}{' strict' * strict}"
                    yield what, _compiled(graph, weights, level, strict)


def _compiled(graph: Graph, weights: dict[str, Array], level: str, strict: bool) -> Program | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RangeWarning)
            return ag.compile(
                graph, weights=weights, target=level, cache=False, multiplication_free=strict
            )
    except UnsupportedError:
        assert strict
        return None


def exported(program: Program, folder: Path) -> Export:
    """The library of `program`, a call's inputs, and what the call has to give."""
    made = program.export(folder, name=NAME, shared=False)
    rng = np.random.default_rng(7)
    types = [v.type.bind(1) for v in program.graph.inputs]
    arrays = [
        rng.random(t.sizes).astype(np.float32)
        if t.dtype.name == "f32"
        else rng.integers(0, 256, t.sizes).astype(t.dtype.numpy)
        for t in types
    ]
    inputs = [folder / f"in{i}.bin" for i in range(len(arrays))]
    for path, array in zip(inputs, arrays, strict=True):
        array.tofile(path)
    built = Export(made, program.built.facts.weights_bytes, inputs, program.run(arrays))
    built.generated.write_text(_generated(program, made))
    built.compile()
    return built


@dataclass(frozen=True)
class Export:
    """A library, the bytes of its weights, and the inputs and outputs of one call."""

    made: Exported
    weights_bytes: int
    inputs: list[Path]
    expected: tuple[Array, ...]

    @property
    def folder(self) -> Path:
        return self.made.header.parent

    @property
    def generated(self) -> Path:
        """What `guarded.c` includes."""
        return self.folder / "generated.h"

    def compile(self) -> None:
        """The object of `guarded.c`, and the data of the library with its weights renamed."""
        include = f'-DGENERATED="{self.generated}"'
        _cc(self.folder / "guarded.o", "-c", include, "-Wall", "-Wextra", "-Werror", SOURCE)
        symbol = f"--redefine-sym={NAME}_data_weights=original_weights"
        _run("objcopy", symbol, self.made.data, self.folder / "renamed.o")

    def check(self) -> int:
        """Runs everything; how many runs there were. AssertionError where one ends badly."""
        assert self.made.example is not None
        example = _cc(self.folder / "example-main", self.made.example, self.made.archive)
        _run(example)
        self._check_call(example)
        for placement in (0, 1):
            self.check_between_guards(placement)
        return 4

    def check_between_guards(self, placement: int) -> None:
        """With every buffer, and the weights, at the start (0) or the end (1) of its pages."""
        assembly, size = self.folder / "weights.s", self.weights_bytes
        before = -size % PAGE if placement else 0
        assembly.write_text(WEIGHTS.format(page=PAGE, before=before, size=size, name=NAME))
        objects = [self.folder / "guarded.o", self.made.code, self.folder / "renamed.o"]
        self._check_call(
            _cc(self.folder / "guarded", "-pthread", assembly, *objects), str(placement)
        )

    def _check_call(self, program: Path, *arguments: str) -> None:
        outputs = [self.folder / f"out{i}.bin" for i in range(len(self.expected))]
        _run(program, *arguments, *self.inputs, *outputs)
        for path, array in zip(outputs, self.expected, strict=True):
            assert path.read_bytes() == array.tobytes(), f"{program.name}: the bits differ"


def _generated(program: Program, made: Exported) -> str:
    graph = program.graph
    types = [v.type.bind(1) for v in (*graph.inputs, *graph.outputs)]
    pointers = ", ".join(f"(void *)(d)[{i}]" for i in range(len(types)))
    return f"""
#include "{made.header}"
enum {{ INPUTS = {len(graph.inputs)}, OUTPUTS = {len(graph.outputs)} }};
static const size_t sizes[] = {{{", ".join(str(t.nbytes) for t in types)}}};
#define WEIGHTS_BYTES {program.built.facts.weights_bytes}u
#define ARENA_BYTES {NAME.upper()}_ARENA_BYTES
#define RUN(d, arena) {NAME}_run({pointers}, arena)
#define RUN_PART(d, arena, thread, threads) {NAME}_run_part({pointers}, arena, thread, threads)
#define SELFTEST(arena) {NAME}_selftest(arena)
"""


def _cc(made: Path, *sources: str | Path) -> Path:
    _run("cc", "-std=c99", *SANITIZED, "-o", made, *sources)
    return made


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=RUN_LIMIT
    )
    assert done.returncode == 0, (
        f"{Path(command[0]).name} ended with {done.returncode}\n{done.stderr[-4000:]}"
    )


def campaign(names: Sequence[str]) -> int:
    """All networks, or those of these names; 1 if any failed."""
    counts: Counter[str] = Counter()
    for what, program in programs(names or list(zoo.NETWORKS)):
        if program is None:
            counts["refused by strict mode"] += 1
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                counts["runs"] += exported(program, Path(folder)).check()
                counts["libraries"] += 1
                print(f"ok   {what}", flush=True)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                counts["failed"] += 1
                print(f"FAIL {what}: {error}", flush=True)
    print(", ".join(f"{n} {name}" for name, n in counts.items()))
    return int(counts["failed"] > 0)
