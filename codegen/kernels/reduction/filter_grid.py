"""fake_quantize_filter: the largest magnitude of each output channel, then every tap on its grid.

    s[t] = max |F[...,t]| / end,  Y[...,t] = s[t] round(F[...,t] / s[t])      end = 2^(bits-1) - 1

The maxima are folded as `_fold.py` says and lie in the workspace, behind the partials; a barrier
later the taps are rounded in a nest (`_nest.py`), in f64. A maximum is exact in any order, so the
bits depend on nothing. Y may share the buffer of an equally laid out F.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from addergraph.ir.plan import align
from addergraph.ir.types import f32
from addergraph.ops.pointwise.fake_quantize import FakeQuantizeFilter

from ...emit.builder import Emitter, Register, constant
from .. import Kernel, kernel
from .._nest import Access, access, emit_nest
from ..pointwise import whole
from ._fold import Cut, Fold, Reduction
from .reduce import larger

MAGNITUDE = Fold(f32, 0.0, lambda e, registers: e.call("fabs", registers[0]), larger)


@kernel(FakeQuantizeFilter)
class FilterGridKernel(Kernel):
    """See the module's contract."""

    @property
    def cut(self) -> Cut:
        shape = self.call.inputs[0].shape
        return Cut(shape, range(len(shape) - 1))

    @property
    def partials(self) -> int:
        """Bytes of the partials of the maxima."""
        return align(self.cut.workspace(self.target.lanes, f32))

    @property
    def in_place(self) -> bool:
        return True

    @property
    def workspace(self) -> int:
        shape = self.call.inputs[0].shape
        return 0 if 0 in shape else self.partials + shape[-1] * f32.itemsize

    def emit(
        self, e: Emitter, inputs: Sequence[Any], outputs: Sequence[Any], workspace: Any
    ) -> None:
        (f,), (y,) = self.call.inputs, self.call.outputs
        if 0 in f.shape:
            return
        taps = access(f, inputs[0], f.shape)
        channels = (*[0] * (len(f.shape) - 1), f32.itemsize)
        largest = Access(e.at(workspace, self.partials), f32, channels)
        Reduction(
            e, self.cut, MAGNITUDE, [taps], [largest], lambda e, total: [total], workspace
        ).emit()
        e.barrier()
        made = access(y, outputs[0], f.shape)
        emit_nest(e, f.shape, [taps, largest], [made], lambda r, lanes: [self._rounded(e, *r)])

    def _rounded(self, e: Emitter, tap: Register, largest: Register) -> Register:
        assert isinstance(self.call.op, FakeQuantizeFilter)
        b, most = e.b, e.widen(largest)
        nothing, one, end = (constant(most.type, v) for v in (0.0, 1.0, self.call.op.end))
        scale = b.fdiv(b.select(b.fcmp_ordered("==", most, nothing), one, most), end)
        return e.narrow(b.fmul(scale, whole(e, b.fdiv(e.widen(tap), scale))))
