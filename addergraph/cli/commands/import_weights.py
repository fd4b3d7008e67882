"""`addergraph import`: checkpoints of the authors' release, and ONNX files, become model files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ... import zoo
from ...errors import DataError, GraphError, StorageError, UnsupportedError, nearest, some
from ...files import storage
from ...ir import Array, Graph
from ...model import Model
from ...model.file import require_writable_model
from ...onnx.import_network import from_onnx
from ...quantization import Quantized
from ...settings import setting
from ...zoo import authors
from .. import options as shared

_TORCH = (b"PK", b"\x80")  # a zip archive (from PyTorch 1.6), or pickle
INSTALL = "pip install torch --index-url https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True, kw_only=True)
class Import:
    """The options of the command."""

    file: str = shared.file()
    network: str | None = setting(
        None,
        "Of a checkpoint: resnet20, resnet32, resnet18 or resnet50; resnet20-conv and so on for "
        "convolutions.",
        metavar="NAME",
        unset="none, and needed, of a checkpoint",
    )
    output: str = shared.model_output()
    adders: tuple[str, ...] = setting(
        (),
        "Of an ONNX file: convolutions that become adder layers, to be trained, by name or shell "
        'pattern; "inner" for all but the first. May be given again.',
        metavar="PATTERN",
        unset="none",
        many=True,
        kind=str,
    )
    dimension: tuple[str, ...] = setting(
        (),
        "Of an ONNX file: the size of an open dimension that is not the batch. May be given again.",
        unset="those that the file says",
        metavar="NAME=SIZE",
        many=True,
        kind=str,
    )


def import_weights(options: Import) -> None:
    """Reads FILE, an ONNX model or a state dict of `network`, and writes a model file."""
    output = options.output
    require_writable_model(output)
    made = _read_onnx(options) if is_onnx(options.file) else _read_checkpoint(options)
    made.save(output)
    weights = made.inference_weights() if isinstance(made, Quantized) else made.weights
    numbers = sum(array.size for array in weights.values())
    graph = made.graph if isinstance(made, Quantized) else made.graph(training=False)
    print(f"{len(weights)} arrays, {numbers:,} numbers; {_told(graph)}")
    if options.adders:
        adders = [n.name for n in graph.nodes if n.op.measures_distance]
        print(f"{len(adders)} adder layers, to be trained: {some(adders)}")
    if made.preprocessing is not None:
        print(made.preprocessing)
    print(f"wrote {output} ({storage.user_path(output).stat().st_size:,} bytes)")


def _told(graph: Graph) -> str:
    """What a network takes and gives: of one that tells classes apart, these."""
    if len(graph.inputs) == len(graph.outputs) == 1 and graph.outputs[0].type.rank == 2:
        sizes = "x".join(map(str, graph.inputs[0].type.shape[1:]))
        return f"{graph.outputs[0].type.shape[1]} classes, samples of {sizes}"
    ends = (", ".join(f"{v.name}: {v.type}" for v in vs) for vs in (graph.inputs, graph.outputs))
    return " -> ".join(ends)


def is_onnx(file: str) -> bool:
    """Whether it is called as an ONNX file, or begins as one and as nothing else that is read:
    field 1 of the message, the version of the format."""
    if file.lower().endswith(".onnx"):
        return True
    try:
        with open(storage.user_path(file), "rb") as opened:
            start = opened.read(9)
    except OSError:
        return False  # what reads it says why
    return start[:1] == b"\x08" and start[8:9] != b"{"


def _read_onnx(options: Import) -> Model | Quantized:
    if options.network is not None:
        raise DataError(
            f'--network {options.network}: "{options.file}" is an ONNX model, which has its own'
        )
    dimensions = {}
    for said in options.dimension:
        name, _, size = said.rpartition("=")
        if not name or not (size.isascii() and size.isdecimal() and len(size) < 10):
            raise DataError(f'--dimension "{said}": expected NAME=SIZE, as height=224')
        dimensions[name] = int(size)
    return from_onnx(options.file, adders=options.adders, dimensions=dimensions)


def _read_checkpoint(options: Import) -> Model:
    if options.adders or options.dimension:
        raise DataError(
            f'"{options.file}" is no ONNX model: --adders and --dimension are for those'
        )
    if options.network is None:
        raise DataError(
            f'"{options.file}" is a checkpoint, which does not say what network it is of: give '
            f"--network, one of {', '.join(authors.NETWORKS)}"
        )
    return imported(options.file, options.network)


def imported(file: str, network: str, input_shape: tuple[int, int, int] | None = None) -> Model:
    """The network with the weights of `file`; as many classes as its last layer has.

    `input_shape` is the network's own unless given. Raises GraphError for another network,
    StorageError for a file that cannot be read, UnsupportedError where PyTorch is needed and
    missing, DataError for keys or arrays that do not fit, all named.
    """
    if network not in authors.NETWORKS:
        raise GraphError(
            f'--network "{network}" has no weights to import{nearest(network, authors.NETWORKS)}; '
            f"known: {', '.join(authors.NETWORKS)}"
        )
    state = read_state(file)
    model = zoo.build(network, input_shape, authors.classes_of(state))
    model.weights = authors.import_weights(model, state, file)
    model.preprocessing = authors.preprocessing_of(network)
    return model


def read_state(file: str) -> dict[str, Array]:
    """The named arrays of a safetensors file or, through PyTorch, of one of its checkpoints.

    The first bytes tell which it is; the name may be anything (.pth, .th, .pth.tar).
    """
    data = storage.read_bytes(file)
    if data[8:9] == b"{":  # behind the length of the header
        return storage.foreign_tensors(file, data)
    if not any(data.startswith(start) for start in _TORCH) and data[257:262] != b"ustar":
        raise StorageError(
            f'"{file}" is neither a safetensors file nor a checkpoint of torch.save, or is damaged'
        )
    return _read_torch(file, data)


def _read_torch(file: str, data: bytes) -> dict[str, Array]:
    """`torch.load(weights_only=True)`: tensors and plain containers, no code."""
    try:
        import torch
    except ImportError:
        raise UnsupportedError(
            f'reading "{file}" needs PyTorch: {INSTALL}\n(or convert it where PyTorch is, with '
            "safetensors.torch.save_file, and import that)"
        ) from None
    return _arrays(file, _loaded(file, data, torch), torch)


def _loaded(file: str, data: bytes, torch: Any) -> object:
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # of any kind, by where the bytes go wrong; it advises to load without safety
        raise StorageError(
            f'"{file}" is damaged, or holds more than tensors, which is not loaded: it might run '
            "code. Write a state dict with torch.save(model.state_dict(), path)"
        ) from None


def _inner(file: str, found: object, torch: Any) -> object:
    """The state dict in a checkpoint, whose key is "state_dict", "net" or whatever its author
    chose; DataError where several could be meant. What has tensors itself is one."""
    if not isinstance(found, Mapping) or any(isinstance(v, torch.Tensor) for v in found.values()):
        return found
    inner = {
        key: value
        for key, value in found.items()
        if isinstance(value, Mapping) and any(isinstance(v, torch.Tensor) for v in value.values())
    }
    if len(inner) > 1 and "state_dict" not in inner:
        raise DataError(
            f'"{file}" holds several state dicts: {", ".join(map(str, inner))}; save the one that '
            "is meant with torch.save"
        )
    return inner.get("state_dict", next(iter(inner.values()), found))


def _arrays(file: str, found: object, torch: Any) -> dict[str, Array]:
    """The tensors of a state dict, or of the one inside a checkpoint: see `_inner`."""
    found = _inner(file, found, torch)
    if not isinstance(found, Mapping) or not found:
        raise DataError(f'"{file}" holds a {type(found).__name__}, expected a state dict')
    arrays = {}
    for key, tensor in found.items():
        dense = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
        if not isinstance(key, str) or not dense:
            raise DataError(
                f'"{file}": {key!r} is a {type(tensor).__name__}; a state dict maps names to '
                "dense tensors and nothing else"
            )
        real = tensor.detach().float() if tensor.is_floating_point() else tensor.detach()
        arrays[key] = real.numpy()
    return arrays
