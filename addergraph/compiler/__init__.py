"""The front door: a graph goes through the passes into native code.

The only part of this package that knows `passes` and `codegen`; it imports them when called.
"""

from .graphs import (
    announced,
    findings,
    grad,
    optimize,
    quantization_aware_graph,
    quantized,
    relu_peaks,
    require_statistics,
    roundings,
    segments,
    train_halves,
    train_step_graph,
)
from .learning import saved_state
from .lowering import TUNE_SECONDS, build, lower, points_after
from .measures import (
    arena_bytes,
    board_of,
    census,
    certify,
    cpus_of,
    measure_peak,
    memory_plan_text,
    profile,
    require_linker,
    size_of,
    tune_graph,
)
from .programs import (
    cached,
    channel_moments,
    compile,
    compile_as,
    compile_layers,
    export,
    has_native_code,
    is_compiled,
    load,
    load_native,
    main_weights,
    without_weights,
)

__all__ = [
    "TUNE_SECONDS", "announced", "arena_bytes", "board_of", "build", "cached", "census", "certify",
    "channel_moments", "compile", "compile_as", "compile_layers", "cpus_of", "export", "findings",
    "grad", "has_native_code", "is_compiled", "load", "load_native", "lower", "main_weights",
    "measure_peak", "memory_plan_text", "optimize", "points_after", "profile",
    "quantization_aware_graph", "quantized", "relu_peaks", "require_linker", "require_statistics",
    "roundings", "saved_state", "segments", "size_of", "train_halves", "train_step_graph",
    "tune_graph", "without_weights",
]  # fmt: skip
