"""What an exported integer network takes: one byte a filter tap, little else, and a small arena."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from addergraph import compiler, zoo
from addergraph.codegen.emit.lowered import Lowered, planned_call
from addergraph.codegen.export import aot
from addergraph.codegen.export.entry import emit_library
from addergraph.codegen.export.interface import interface_of
from addergraph.codegen.inspect.elf import read_elf
from addergraph.codegen.kernels import kernel_for
from addergraph.codegen.kernels.forward.dense import DenseKernel
from addergraph.codegen.kernels.forward.terms import ByteTerm
from addergraph.codegen.targets.lookup import target_named
from addergraph.model.engines import Interpreted
from addergraph.passes.quantize.quantize import quantize
from addergraph.quantization import QuantizationSettings, Quantized

NETWORKS = {
    "all-adder": zoo.build("all-adder"),
    "resnet20": zoo.build("resnet20"),
}


def integers(name: str) -> Quantized:
    """Filters and batch norms of no meaning, but different in each channel; k is 3."""
    model, rng = NETWORKS[name], np.random.default_rng(0)
    weights = dict(model.weights)
    for key, array in weights.items():
        low, high = {"mean": (-110, -90), "variance": (500, 5000)}.get(key.split(".")[-1], (0, 0))
        if high or low:
            weights[key] = np.asarray(rng.uniform(low, high, array.shape), np.float32)
    x = rng.normal(size=(1, *model.input_shape)).astype(np.float32)
    how = QuantizationSettings(terms=3)
    return quantize(model.graph(training=False), weights, x, how, Interpreted())


def padding(lowered: Lowered) -> int:
    """Bytes of packed filters for channels that fill up vectors."""
    total = 0
    for node in lowered.main.nodes:
        kernel = kernel_for(planned_call(lowered, node))
        if isinstance(kernel, DenseKernel) and isinstance(kernel.g.term, ByteTerm):
            g, channel = kernel.g, kernel.block_bytes // kernel.width
            total += g.groups * (kernel.blocks * kernel.width - g.outputs) * channel
    return total


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_what_a_program_takes(name: str) -> None:
    made = integers(name)
    taps = sum(w.size for w in NETWORKS[name].weights.values() if w.ndim > 1)
    assert taps == sum(w.nbytes for w in made.weights.values() if w.dtype != np.int32)
    # As `export` lowers it: without the numbers, no lists of taps.
    lowered = compiler.lower(made.graph, target_named("x86-64-v4"))
    _, (level,) = emit_library([lowered], interface_of(lowered), exact=False)
    parameters = sum(w.nbytes for w in made.weights.values())
    assert parameters < level.facts.weights_bytes - padding(lowered) <= 1.05 * parameters
    assert lowered.plan.arena_bytes <= 1.1 * lowered.plan.lower_bound_bytes


def test_read_only_data_of_the_objects(tmp_path: Path) -> None:
    """Golden vector and metadata aside; the code has its own constants."""
    made = integers("all-adder")
    built = compiler.build(made.graph, made.weights, target="x86-64-v3")
    exported = aot.export(built, made.weights, tmp_path, shared=False)
    sections = read_elf(exported.code.read_bytes(), "code").sections
    constants = sum(s.size for s in sections if s.name.startswith(".rodata"))
    packed = json.loads(exported.metadata.read_text())["weights_bytes"]
    parameters = sum(w.nbytes for w in made.weights.values())
    assert packed + constants - padding(built.lowered) <= 1.05 * parameters
