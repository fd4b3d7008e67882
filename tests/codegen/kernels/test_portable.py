"""Every op compiles for the targets that nothing here can run, without calling a library."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.codegen.emit.module import standalone
from addergraph.codegen.llvm import compile_object
from tests.addergraph.op_samples import SAMPLES
from tests.codegen.harness import make_call, undefined_symbols


@pytest.mark.slow
@pytest.mark.parametrize("target", ["aarch64-linux-gnu", "riscv64-linux-gnu"])
def test_every_op_compiles_for(target: str) -> None:
    for name, group in SAMPLES.items():
        sample = group[0].bound()
        operands = [np.zeros(t.sizes, t.dtype.numpy) for t in sample.types]
        call = make_call(sample.op, operands, target=target)
        missing = undefined_symbols(compile_object(standalone(call), call.target))
        assert not missing, f"{name} calls {missing}"
