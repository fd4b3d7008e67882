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
from pathlib import Path

import numpy as np

import addergraph as ag
from addergraph import zoo
from addergraph.codegen.export.aot import Exported
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
        return ag.compile(
            graph, weights=weights, target=level, cache=False, multiplication_free=strict
        )
    except UnsupportedError:
        assert strict
        return None


def check_export(program: Program, folder: Path) -> int:
    """Exports `program` and runs both programs; how many runs there were.

    AssertionError with what a sanitizer or the program said, or where bits differ.
    """
    made = program.export(folder, name=NAME, shared=False)
    arrays = _inputs(program.graph)
    expected = program.run(arrays)
    files = [folder / f"in{i}.bin" for i in range(len(arrays))]
    for path, array in zip(files, arrays, strict=True):
        array.tofile(path)
    outputs = [folder / f"out{i}.bin" for i in range(len(expected))]
    example = _cc(folder / "example-main", [made.example, made.archive])
    _run([example])
    _run([example, *files, *outputs])
    _require(outputs, expected)
    for placement in (0, 1):
        guarded = _guarded(program, made, folder, placement)
        _run([guarded, str(placement), *files, *outputs])
        _require(outputs, expected)
    return 4


def _inputs(graph: Graph) -> list[Array]:
    """One sample."""
    rng = np.random.default_rng(7)
    types = [v.type.bind(1) for v in graph.inputs]
    return [
        rng.random(t.sizes).astype(np.float32)
        if t.dtype.name == "f32"
        else rng.integers(0, 256, t.sizes).astype(t.dtype.numpy)
        for t in types
    ]


def _guarded(program: Program, made: Exported, folder: Path, placement: int) -> Path:
    """The program of `guarded.c` for this library, its weights at the end or start of a page."""
    size = program.built.facts.weights_bytes
    before = -size % PAGE if placement else 0
    assembly, data = folder / "weights.s", folder / "renamed.o"
    assembly.write_text(WEIGHTS.format(page=PAGE, before=before, size=size, name=NAME))
    symbol = f"{NAME}_data_weights=original_weights"
    _run(["objcopy", f"--redefine-sym={symbol}", "--globalize-symbol=original_weights",
          made.data, data])  # fmt: skip
    generated = folder / "generated.h"
    generated.write_text(_generated(program, made))
    flags = [f'-DGENERATED="{generated}"', "-pthread", "-Wall", "-Wextra", "-Werror"]
    return _cc(folder / "guarded", [*flags, SOURCE, assembly, made.code, data])


def _generated(program: Program, made: Exported) -> str:
    graph = program.graph
    types = [v.type.bind(1) for v in (*graph.inputs, *graph.outputs)]
    pointers = ", ".join(f"(void *)(d)[{i}]" for i in range(len(types)))
    upper = NAME.upper()
    return f"""
#include "{made.header}"
enum {{ INPUTS = {len(graph.inputs)}, OUTPUTS = {len(graph.outputs)}, WITH_THREADS = 1 }};
static const size_t sizes[] = {{{", ".join(str(t.nbytes) for t in types)}}};
#define WEIGHTS_BYTES {program.built.facts.weights_bytes}u
#define ARENA_BYTES {upper}_ARENA_BYTES
#define RUN(d, arena) {NAME}_run({pointers}, arena)
#define RUN_PART(d, arena, thread, threads) {NAME}_run_part({pointers}, arena, thread, threads)
#define SELFTEST(arena) {NAME}_selftest(arena)
"""


def _cc(made: Path, sources: Sequence[str | Path]) -> Path:
    _run(["cc", "-std=c99", *SANITIZED, "-o", made, *sources])
    return made


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=RUN_LIMIT
    )
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}\n{done.stderr[-4000:]}"


def _require(outputs: Sequence[Path], expected: Sequence[Array]) -> None:
    for path, array in zip(outputs, expected, strict=True):
        assert path.read_bytes() == array.tobytes(), f"{path.name}: the bits differ"


def campaign(names: Sequence[str], say: object = print) -> int:
    """All of them; 1 if any failed."""
    counts: Counter[str] = Counter()
    for what, program in programs(names or list(zoo.NETWORKS)):
        if program is None:
            counts["refused by strict mode"] += 1
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                counts["runs"] += check_export(program, Path(folder))
                counts["libraries"] += 1
                print(f"ok   {what}", flush=True)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                counts["failed"] += 1
                print(f"FAIL {what}: {error}", flush=True)
    print(", ".join(f"{n} {name}" for name, n in counts.items()))
    return int(counts["failed"] > 0)
