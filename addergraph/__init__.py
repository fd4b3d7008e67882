"""AdderGraph: a compiler and training system for adder networks.

    import addergraph as ag
    from addergraph import Model, layers, ops

    graph = ag.trace(lambda x, f: ops.relu(ops.adder2d(x, f, padding=1)),
                     ag.tensor("f32", ("N", 8, 8, 16)), ag.tensor("f32", (3, 3, 16, 32)))
    program = ag.compile(graph)         # native code for this machine
    ag.verify(graph, program)           # against NumPy, which says what a graph means

Public names are loaded on first use, so that importing the package stays cheap.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

if os.path.isfile(os.path.join(os.path.dirname(__file__), "codegen")):
    raise ImportError(
        "this copy of AdderGraph has lost its symbolic links: addergraph/codegen is a file, where "
        "a clone has a link to ../codegen. On Windows, allow links (developer mode) and clone with "
        "`git clone -c core.symlinks=true`; or install a wheel, which has folders instead"
    )

# Not lazy: importing the submodule `trace` binds its name here, and the function must win.
from .ir.trace import trace

if TYPE_CHECKING:
    from . import errors, layers, ops
    from .compiler import compile, compile_layers, export, grad, load_native
    from .errors import AdderGraphError
    from .ir import Graph
    from .ir.interpreter import interpret
    from .ir.text import parse
    from .ir.types import tensor
    from .model import Model
    from .model.clipping import activation_bounds
    from .model.device import DeviceTraining
    from .model.quantization import quantization_aware, quantize
    from .onnx.export import to_onnx
    from .onnx.import_network import from_onnx, graph_from_onnx
    from .torch.front import from_torch, to_torch
    from .verification.layers import verify_layers
    from .verification.outputs import verify

__version__ = "0.1.0"

__all__ = [
    "AdderGraphError",
    "DeviceTraining",
    "Graph",
    "Model",
    "__version__",
    "activation_bounds",
    "compile",
    "compile_layers",
    "errors",
    "export",
    "from_onnx",
    "from_torch",
    "grad",
    "graph_from_onnx",
    "interpret",
    "layers",
    "load_native",
    "ops",
    "parse",
    "quantization_aware",
    "quantize",
    "tensor",
    "to_onnx",
    "to_torch",
    "trace",
    "verify",
    "verify_layers",
]

_HOME = {
    "AdderGraphError": ".errors",
    "DeviceTraining": ".model.device",
    "Graph": ".ir",
    "Model": ".model",
    "activation_bounds": ".model.clipping",
    "compile": ".compiler",
    "compile_layers": ".compiler",
    "export": ".compiler",
    "from_onnx": ".onnx.import_network",
    "from_torch": ".torch.front",
    "grad": ".compiler",
    "graph_from_onnx": ".onnx.import_network",
    "interpret": ".ir.interpreter",
    "load_native": ".compiler",
    "parse": ".ir.text",
    "quantization_aware": ".model.quantization",
    "quantize": ".model.quantization",
    "tensor": ".ir.types",
    "to_onnx": ".onnx.export",
    "to_torch": ".torch.front",
    "verify": ".verification.outputs",
    "verify_layers": ".verification.layers",
}
_SUBMODULES = ("errors", "layers", "ops")

if not TYPE_CHECKING:  # type checkers see the imports above and must refuse any other name

    def __getattr__(name: str) -> object:
        if name in _SUBMODULES:
            return importlib.import_module(f".{name}", __name__)
        if name not in _HOME:
            importlib.import_module(".habits", __name__).refuse(__name__, name)
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(_HOME[name], __name__), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
