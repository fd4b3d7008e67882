"""Ways to cut a layer for the sparse adder that its cost model would not choose."""

from __future__ import annotations

from dataclasses import dataclass

from addergraph.codegen.kernels import Call, Kernel
from addergraph.codegen.kernels.forward.dense import DenseKernel
from addergraph.codegen.kernels.forward.geometry import Geometry
from addergraph.codegen.kernels.sparse._f32_tile import SparseTile, sampled
from addergraph.codegen.kernels.sparse._patches import Patches
from addergraph.codegen.kernels.sparse.sparse_f32 import SparseAdderKernel
from addergraph.ops.fused import Fused


@dataclass(frozen=True)
class Cut:
    """A tile in numbers, each cut down to what a layer and a target have room for."""

    samples: int
    bands: int
    chunks: int
    rows: int
    columns: int
    filters: int
    channels: int
    strip_rows: int

    def tile(self, g: Geometry, lanes: int) -> SparseTile:
        """Where there are few lanes, samples go first, then bands."""
        chunks = min(self.chunks, g.width, lanes)
        bands = min(self.bands, g.height, lanes // chunks)
        samples = min(self.samples, g.samples, lanes // (chunks * bands))
        patches = Patches(sampled(g), lanes, samples, bands, chunks)
        strip_rows = min(self.strip_rows, patches.rows)
        rows = min(self.rows, strip_rows)
        return SparseTile(
            patches, rows, min(self.columns, patches.columns), strip_rows - strip_rows % rows,
            min(self.filters, g.outputs), self.channels,
        )  # fmt: skip

    def __call__(self, call: Call) -> Kernel:
        """The kernel with this tile: a family."""
        body = call.op.body if isinstance(call.op, Fused) else None
        tile = self.tile(DenseKernel(call, body).g, call.target.lanes)
        return SparseAdderKernel(call, body, tile)
