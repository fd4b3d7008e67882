"""`addergraph import`: checkpoints of the authors' release become model files."""

from __future__ import annotations

import io
import pickle  # for the name of its error alone
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import zoo
from ...errors import DataError, GraphError, StorageError, UnsupportedError, nearest
from ...files import storage
from ...ir import Array
from ...model import Model
from ...model.file import require_writable_model
from ...settings import NOTHING, setting
from ...zoo import authors
from .. import options as shared

# What PyTorch raises on bytes that are no checkpoint depends on where they go wrong.
_TORCH_ERRORS = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError,
    TypeError, OSError,
)  # fmt: skip
INSTALL = "pip install torch --index-url https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True, kw_only=True)
class Import:
    """The options of the command."""

    file: str = shared.file()
    network: str = setting(
        NOTHING,
        "resnet20, resnet32, resnet18 or resnet50; resnet20-conv and so on for convolutions.",
        metavar="NAME",
    )
    output: str = setting(NOTHING, short="-o", metavar="FILE.safetensors")


def import_weights(options: Import) -> None:
    """Reads FILE, a state dict of `network`, and writes a model file."""
    output = options.output
    require_writable_model(output)
    model = imported(options.file, options.network)
    model.save(output)
    parameters = sum(array.size for array in model.weights.values())
    print(
        f"{len(model.weights)} arrays, {parameters:,} numbers; {model.output_shape[0]} classes, "
        f"samples of {'x'.join(map(str, model.input_shape))}"
    )
    print(f"wrote {output} ({storage.user_path(output).stat().st_size:,} bytes)")


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
    return model


def read_state(file: str) -> dict[str, Array]:
    """The named arrays of a `.safetensors` or, through PyTorch, a `.pth` or `.pt` file."""
    readers: dict[str, Callable[[str], dict[str, Array]]] = {
        ".safetensors": _read_safetensors, ".pth": _read_torch, ".pt": _read_torch,
    }  # fmt: skip
    suffix = Path(file).suffix
    if suffix not in readers:
        raise StorageError(f'"{file}": expected a checkpoint that ends in {", ".join(readers)}')
    return readers[suffix](file)


def _read_safetensors(file: str) -> dict[str, Array]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = storage.read_bytes(file)
    try:
        state: dict[str, Array] = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f'"{file}" is damaged or no safetensors file: {error}') from None
    return state


def _read_torch(file: str) -> dict[str, Array]:
    """`torch.load(weights_only=True)`: tensors and plain containers, no code."""
    data = storage.read_bytes(file)
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
    except _TORCH_ERRORS:  # its message advises to load the file without safety
        raise StorageError(
            f'"{file}" is damaged, or holds more than tensors, which is not loaded: it might run '
            "code. Write a state dict with torch.save(model.state_dict(), path)"
        ) from None


def _arrays(file: str, found: object, torch: Any) -> dict[str, Array]:
    """The tensors of a state dict, or of one under the key "state_dict"."""
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
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
