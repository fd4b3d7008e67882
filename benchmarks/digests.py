"""Digests of compiled objects, to prove that a change of structure leaves the emitted code alone.

    python -m benchmarks.digests --jobs 2 > before.txt
    ... change the compiler ...
    python -m benchmarks.digests --jobs 2 --compare before.txt      # ends with 1 if any differs
    python -m benchmarks.digests --quick --compare before.txt       # small graphs only, a minute

Compiles a fixed set of graphs without the object cache: each network of the zoo, for inference and
for training, in f32 and in integers, and graphs of single ops with their gradients. Prints one line
for each object, sorted, with the first 64 bits of the SHA-256 of

    object   the object file
    code     what of it is loaded: sections, relocations, exported symbols. Equal although the
             object differs: names of functions inside it changed, and nothing else
    weights  the block of weights that its calls take
    plan     the memory plan as text

A target that does not accept a graph has the error's name in place of the object. Progress goes to
stderr. Every target is named, and what runs to calibrate is compiled for plain x86-64, so that the
machine's CPU decides nothing; the machine has to be an x86-64 one, though.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import multiprocessing
import os
import struct
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import addergraph as ag
from addergraph import Graph, Model, zoo
from addergraph.errors import AdderGraphError
from addergraph.training.losses import loss_of
from addergraph.training.optimizers import SGD, Adam, Optimizer
from benchmarks.digest_graphs import F32, INTEGERS, LAYERS, OTHERS, PRODUCTS, Described, traced

X86 = ("x86-64", "x86-64-v3", "x86-64-v4")
NEWEST = X86[-1:]
HOSTED = (*X86, "toy", "aarch64-linux-gnu", "riscv64-linux-gnu")
BARE = ("riscv32i", "riscv64i", "thumbv6m", "thumbv7em")
CALIBRATION_TARGET = "x86-64"
BATCH = 4
Targets = tuple[str, ...]
Columns = tuple[str, ...]  # object, code, weights, plan
Digests = dict[tuple[str, str], Columns]  # (case, target) ->


# -- what is not public: the only lines that know where it lives -----------------------------------


@functools.cache
def compiler() -> Any:
    """The module of `build` and `train_step_graph`; its `without_weights` is pinned.

    `ag.quantize` compiles for the host, whose float instructions would decide the last bits of
    the scales.
    """
    from addergraph import compiler as module

    os.environ["ADDERGRAPH_CACHE"] = ""

    def pinned(graph: Graph) -> Any:
        PINNED.append(graph)
        return module.build(graph, target=CALIBRATION_TARGET)

    module.without_weights = pinned
    return module


PINNED: list[object] = []  # an entry for each pinned compilation


def calibrated(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What `ag.quantize` or `ag.quantization_aware` makes. RuntimeError if it is not pinned."""
    before = len(PINNED)
    made = function(*arguments, **options)
    if len(PINNED) == before:
        raise RuntimeError(
            f"{function.__name__} does not compile by what compiler() replaces, so that its "
            "scales depend on this machine; make compiler() replace what it calls"
        )
    return made


def packed_weights(built: Any, weights: Mapping[str, Any]) -> bytes:
    """The block that the calls of a program take: packed constants, or the state of updates."""
    from addergraph.codegen.emit.lowered import pack_weights
    from addergraph.codegen.run.jit import main_weights
    from addergraph.ir.state import State, initial_weights

    lowered = built.lowered
    numbers = {**initial_weights(lowered.source), **weights}
    if lowered.main.updates:
        state = State(lowered.main.parameters)
        state.load(numbers)
        return bytes(state.blob)
    return bytes(pack_weights(built.facts, lowered, main_weights(lowered, numbers)))


def read_object(code: bytes) -> Any:
    from addergraph.codegen.inspect.elf import read_elf

    return read_elf(code, "object")


# -- digests ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """What is compiled.

    weights  numbers of parameters; those that are not here are as the graph declares them
    known    whether the compiler sees them: they choose between dense and sparse kernels
    strict   without products
    """

    graph: Graph
    weights: Mapping[str, Any]
    known: bool = True
    strict: bool = False
    batch: int | None = None


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def digests(source: Source, target: str) -> Columns:
    known = source.weights if source.known else None
    try:
        built = compiler().build(
            source.graph, known, batch=source.batch, target=target, cache=False,
            multiplication_free=source.strict,
        )  # fmt: skip
    except AdderGraphError as error:
        return (type(error).__name__, "-", "-", "-")
    weights = packed_weights(built, source.weights)
    plan = repr(built.lowered.plan).encode()
    return tuple(map(digest, (built.code, loaded(built.code), weights, plan)))


_ALLOCATED, _RELA, _REL = 2, 4, 9  # sh_flags; sh_type


def loaded(code: bytes) -> bytes:
    """What a linker makes of an object, without the names of what is inside it."""
    elf = read_object(code)
    parts: list[object] = [
        (s.name, s.type, s.flags, s.size, s.data) for s in elf.sections if s.flags & _ALLOCATED
    ]
    parts += sorted((s.name, _place(elf, s), s.size, s.kind) for s in elf.symbols if s.exported)
    addends = [a for s in elf.sections if s.type in (_RELA, _REL) for a in _addends(s)]
    parts += [
        (elf.sections[r.section].name, r.offset, r.type, _place(elf, r.symbol), addend)
        for r, addend in zip(elf.relocations, addends, strict=True)
    ]
    return repr(parts).encode()


def _place(elf: Any, symbol: Any) -> tuple[object, ...]:
    """A symbol by where it is; by its name where it is elsewhere."""
    if symbol.undefined:
        return (symbol.name,)
    inside = symbol.section < len(elf.sections)
    return (elf.sections[symbol.section].name if inside else symbol.section, symbol.value)


def _addends(table: Any) -> list[int]:
    """Of each relocation; those of REL tables are in the code."""
    if table.type == _REL:
        return [0] * (table.size // table.entry_size)
    layout = "<16xq" if table.entry_size == 24 else "<8xi"
    return [addend for (addend,) in struct.iter_unpack(layout, table.data)]


# -- the networks of the zoo -----------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """`quick`: the targets of it that are in the quick subset. `cost`: about seconds in all."""

    name: str
    make: Callable[[], Source]
    targets: Targets
    quick: Targets = ()
    cost: float = 1.0


@functools.cache
def network(name: str, ends: str | None = None, size: int | None = None) -> Model:
    """Of the zoo, or the one of LAYERS.

    ends  kind of the first and the last layer
    size  of square RGB images, and ten classes; otherwise as the table of the zoo says
    """
    if name in zoo.NETWORKS:
        shape, classes = ((size, size, 3), 10) if size else (None, None)
        return zoo.build(name, shape, classes, first=ends, last=ends)
    model = Model(input_shape=(9, 9, 8), name=name)
    for layer in LAYERS[name]:
        model.add(layer)
    return model


def inference(name: str, known: bool, batch: int | None) -> Source:
    model = network(name)
    return Source(model.graph(training=False), model.weights, known, batch=batch)


PLAIN, FULL = "sgd", "full_precision"
STEPS: dict[str, tuple[Optimizer, str, float, str]] = {  # loss, label smoothing, gradient
    PLAIN: (SGD(), "cat_cross_entropy", 0.0, FULL),
    "sgd-bare": (SGD(momentum=0.0, weight_decay=0.0), "mean_squared_error", 0.0, FULL),
    "nesterov": (SGD(nesterov=True, clip_norm=1.0), "cat_cross_entropy", 0.1, FULL),
    "adam": (Adam(weight_decay=1e-2), "cat_cross_entropy", 0.0, "sign"),
    "adam-l2": (
        Adam(weight_decay=1e-4, decoupled=False, average=0.99, clip_norm=2.0),
        "cat_cross_entropy", 0.0, FULL,
    ),
    "average": (SGD(average=0.9), "mean_squared_error", 0.0, "sign"),
}  # fmt: skip


def training(name: str, kind: str, bits: int | None = None) -> Source:
    """A training step; with `bits`, one that rounds as the integers of so many bits will."""
    model = network(name)
    if bits is not None:
        model = calibrated(ag.quantization_aware, settled(name), samples(model), bits=bits)
    optimizer, loss, smoothing, gradient = STEPS[kind]
    forward = model.graph(training=True, batch=BATCH)
    graph = compiler().train_step_graph(
        forward, loss_of(loss, label_smoothing=smoothing), optimizer, gradient=gradient
    )
    return Source(graph, model.weights)


def samples(model: Model) -> Any:
    shape = 2 * BATCH, *model.input_shape
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@functools.cache
def settled(name: str, ends: str | None = None, size: int | None = None) -> Model:
    """A network whose batch norms have the statistics of the samples.

    With those that they start from, the sums of distances leave nothing above zero for a relu.
    """
    model = network(name, ends, size)
    graph = model.graph(training=True, batch=2 * BATCH)
    before = dict(model.weights)
    program = compiler().compile(graph, weights=before, target=CALIBRATION_TARGET)
    program(samples(model))
    made = model.rounded({})
    made.weights = {
        # One step of momentum 0.1 went a tenth of the way.
        name: array + 10 * (program.state.views[name] - array)
        for name, array in before.items()
    }
    return made


def integers(
    name: str,
    kind: str,
    ends: str | None = None,
    size: int | None = None,
    *,
    strict: bool = False,
) -> Source:
    """The quantized network; with shifts, two powers of two in each factor."""
    model = settled(name, ends, size)
    terms = 2 if kind == "shift" else None
    made = calibrated(ag.quantize, model, samples(model), requantize=kind, terms=terms)
    return Source(made.graph, made.weights, strict=strict)


def zoo_cases() -> Iterator[Case]:
    for name, entry in zoo.NETWORKS.items():
        size = entry.input_shape[0]
        cases = large_cases if size > 100 else medium_cases if size > 28 else small_cases
        yield from cases(name, entry.body == "adder")


def large_cases(name: str, adds: bool) -> Iterator[Case]:
    """The networks of ImageNet take long: one x86 level for most of the questions.

    `adds`: whether there are filters whose numbers choose kernels.
    """
    yield inference_case(name, True, None, X86, 40)
    yield inference_case(name, True, BATCH, NEWEST, 20)
    if adds:
        yield inference_case(name, False, None, X86[1:2], 15)
    yield training_case(name, PLAIN, NEWEST, 40)
    yield integers_case(name, "shift", NEWEST, 30, size=64)  # to calibrate is long, too


def medium_cases(name: str, adds: bool) -> Iterator[Case]:
    yield inference_case(name, True, None, X86, 12)
    yield inference_case(name, True, BATCH, X86, 14)
    if adds:
        yield inference_case(name, False, None, X86[1:2], 4)
        yield inference_case(name, False, BATCH, X86[1:2], 4)
    yield training_case(name, PLAIN, NEWEST, 12)
    yield integers_case(name, "shift", X86, 35)
    yield integers_case(name, "multiply", NEWEST, 18)


def small_cases(name: str, adds: bool) -> Iterator[Case]:
    yield inference_case(name, True, None, HOSTED, 6, quick=X86[1:2])
    yield inference_case(name, True, BATCH, HOSTED, 6)
    if adds:
        yield inference_case(name, False, None, X86[1:], 2)
        yield inference_case(name, False, BATCH, X86[1:], 2)
    quick = NEWEST if name == "deck" else ()
    yield training_case(name, PLAIN, (*X86, "aarch64-linux-gnu"), 15, quick=quick)
    for kind in ("shift", "multiply"):
        yield integers_case(name, kind, HOSTED, 12, quick=quick)


def special_cases() -> Iterator[Case]:
    """Each kind of training step, rounding in training, strict code, layers outside the zoo."""
    for kind in STEPS:
        if kind != PLAIN:
            smaller = X86[1:2] if kind == "adam-l2" else ()
            yield training_case("deck", kind, HOSTED, 8, quick=smaller)
    for name, bits in (("all-adder", 8), ("small-conv", 4), ("lenet5_bn", 3)):
        yield training_case(name, PLAIN, X86, 20, bits=bits)
    for name, targets, quick in (
        ("all-adder", (*HOSTED, *BARE), (X86[1], BARE[0])),
        ("lenet5_bn", (*X86, *BARE), ()),
        ("resnet20", (*NEWEST, *BARE[::2]), ()),
        ("adders", (*HOSTED, *BARE), ()),
    ):
        make = functools.partial(integers, name, "shift", "adder", strict=True)
        yield Case(f"{name}/int8-strict", make, targets, quick, 8 * len(targets))
    for name in LAYERS:
        yield inference_case(name, True, None, HOSTED, 3)
        for kind in ("shift", "multiply"):
            yield integers_case(name, kind, HOSTED, 10)


def inference_case(
    name: str, known: bool, batch: int | None, targets: Targets, cost: float, quick: Targets = ()
) -> Case:
    form = ("open" if batch is None else "bound") + ("-weights" if known else "")
    make = functools.partial(inference, name, known, batch)
    return Case(f"{name}/{form}", make, targets, quick, cost)


def training_case(
    name: str, kind: str, targets: Targets, cost: float, bits: int | None = None,
    quick: Targets = (),
) -> Case:  # fmt: skip
    form = kind if bits is None else f"{bits}bits"
    make = functools.partial(training, name, kind, bits)
    return Case(f"{name}/train-{form}", make, targets, quick, cost)


def integers_case(
    name: str, kind: str, targets: Targets, cost: float, size: int | None = None,
    quick: Targets = (),
) -> Case:  # fmt: skip
    make = functools.partial(integers, name, kind, None, size)
    return Case(f"{name}/int8-{kind}", make, targets, quick, cost)


# -- graphs of single ops --------------------------------------------------------------------------


def op_source(table: Mapping[str, Described], name: str, gradient: bool) -> Source:
    function, types = table[name]
    graph = traced(function, *types)
    if gradient:
        graph = graph.bind(3) if graph.is_open else graph
        values = (*graph.inputs, *(p for p in graph.parameters if p.trainable))
        graph = ag.grad(graph, [v.name for v in values])
    return Source(graph, {})


def op_cases() -> Iterator[Case]:
    for kind, table, targets in (
        ("f32", F32, HOSTED), ("f32", OTHERS, HOSTED), ("integers", INTEGERS, (*HOSTED, *BARE)),
        ("integers", PRODUCTS, (*HOSTED, BARE[0])),
    ):  # fmt: skip
        quick = NEWEST if kind == "f32" else (NEWEST[0], BARE[0])
        for name in table:
            make = functools.partial(op_source, table, name, False)
            yield Case(f"{kind}/{name}", make, targets, quick)
            if table is F32:
                make = functools.partial(op_source, table, name, True)
                yield Case(f"{kind}/{name}/grad", make, targets, X86[1:2], 2)


# -- the command -----------------------------------------------------------------------------------


def all_cases() -> dict[str, Case]:
    return {c.name: c for c in (*zoo_cases(), *special_cases(), *op_cases())}


def selected(
    words: Sequence[str], targets: Iterable[str] | None, quick: bool
) -> dict[str, Targets]:
    """The targets of each case whose name has one of the words (any, if there are none)."""
    found = {}
    for case in all_cases().values():
        chosen = [t for t in (case.quick if quick else case.targets) if not targets or t in targets]
        if chosen and (not words or any(word in case.name for word in words)):
            found[case.name] = tuple(chosen)
    return found


def compiled(chosen: tuple[str, Targets]) -> tuple[str, Digests, float]:
    """The lines of one case, and the CPU seconds that they took."""
    start, (name, targets) = time.process_time(), chosen
    compiler()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ranges: what is compiled was never trained
        source = all_cases()[name].make()
        made = {(name, target): digests(source, target) for target in targets}
    return name, made, time.process_time() - start


def run(chosen: Mapping[str, Targets], jobs: int) -> Digests:
    cases, found = all_cases(), Digests()
    work = sorted(chosen.items(), key=lambda item: -cases[item[0]].cost)
    with multiprocessing.Pool(jobs) as pool:
        for count, (name, made, seconds) in enumerate(pool.imap_unordered(compiled, work), 1):
            found |= made
            print(f"{count}/{len(work)} {name} {seconds:.1f} s", file=sys.stderr, flush=True)
    return found


def show(found: Digests) -> list[str]:
    return [" ".join((*key, *columns)) for key, columns in sorted(found.items())]


def read(path: Path) -> Digests:
    rows = (line.split() for line in path.read_text().splitlines())
    return {(case, target): tuple(columns) for case, target, *columns in rows}


def differences(before: Digests, after: Digests, whole: bool) -> list[str]:
    """What `after` has otherwise; of the `whole` set, also what it has no longer."""
    lines = [f"{' '.join(key)}: gone" for key in sorted(before.keys() - after.keys()) if whole]
    for key, columns in sorted(after.items()):
        old = before.get(key)
        if old is None:
            lines.append(f"{' '.join(key)}: new")
        elif old != columns:
            names = ("object", "code", "weights", "plan")
            changed = [n for n, a, b in zip(names, old, columns, strict=True) if a != b]
            lines.append(f"{' '.join(key)}: other {', '.join(changed)}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD",
                        help="cases whose name has one of the words")  # fmt: skip
    parser.add_argument("--targets", nargs="+", choices=(*HOSTED, *BARE))
    parser.add_argument("--quick", action="store_true", help="under a minute: small graphs only")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--compare", type=Path, metavar="FILE",
                        help="print what differs from an output; status 1 if anything")  # fmt: skip
    given = parser.parse_args(arguments)
    before = read(given.compare) if given.compare else None
    chosen = selected(given.only, given.targets, given.quick)
    if not chosen:
        parser.error("there is no case of these words and targets")
    found = run(chosen, given.jobs)
    whole = not (given.only or given.targets or given.quick)
    lines = show(found) if before is None else differences(before, found, whole)
    print("\n".join(lines), end="\n" if lines else "")
    print(f"{len(found)} objects, {digest(chr(10).join(show(found)).encode())}", file=sys.stderr)
    return int(before is not None and bool(lines))


if __name__ == "__main__":
    sys.exit(main())
