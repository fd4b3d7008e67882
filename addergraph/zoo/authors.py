"""The authors' names for the weights of residual networks (github.com/huawei-noah/AdderNet).

    theirs                                 ours                          shapes
    conv1.weight                           first.f                       OIHW -> HWIO
    bn1.{weight,bias,                      first_bn.{gamma,beta,         [C]
         running_mean,running_var}                   mean,variance}
    layer2.0.conv1.{adder|weight}          stage2.block0.conv1.f         OIHW -> HWIO
    layer2.0.bn1.*                         stage2.block0.bn1.*           [C]
    layer2.0.downsample.0.{adder|weight}   stage2.block0.skip.f          OIHW -> HWIO
    layer2.0.downsample.1.*                stage2.block0.skip_bn.*       [C]
    fc.{weight,bias}                       last.{f,b}                    [T,K,1,1] or [T,K] -> [K,T]
    bn2.*                                  last_bn.*                     [C]

An adder's filter is called `adder`, a convolution's `weight`. Names may start with `module.`, as
DataParallel writes them, and `_orig_mod.`, as torch.compile does; `num_batches_tracked` is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

from ..data import Normalize, Preprocessing
from ..errors import DataError
from ..ir import Array, Graph, Parameter
from ..model import Model

NETWORKS = tuple(
    f"{name}{form}"
    for name in ("resnet20", "resnet32", "resnet18", "resnet50")
    for form in ("", "-conv")
)

CIFAR = Normalize((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

_WRAPPERS = ("module.", "_orig_mod.")
_LAYERS = {"first": "conv1", "first_bn": "bn1", "last": "fc", "last_bn": "bn2"}
_PARTS = {"skip": "downsample.0", "skip_bn": "downsample.1"}
_FIELDS = {
    "gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var",
    "b": "bias",
}  # fmt: skip
_BLOCK = re.compile(r"stage(\d+)\.block(\d+)\.(\w+)")


def import_weights(model: Model, state: Mapping[str, Array], where: str) -> dict[str, Array]:
    """The weights of `model`, a residual network of the zoo, from the authors' `state`.

    Raises DataError that lists, for the file `where`, every missing key, every unexpected one,
    every array of a wrong shape or kind and every one with values that are not finite.
    """
    state = _plain_names(state, where)
    graph = model.graph(training=False)
    theirs = {p: _their_name(graph, p) for p in graph.parameters}
    weights, bad = {}, []
    for parameter, key in theirs.items():
        if key in state:
            problem = _problem(parameter, state[key])
            if problem:
                bad.append(f"{key}: {problem}")
            else:
                weights[parameter.name] = _our_layout(parameter, state[key])
    missing = [key for key in theirs.values() if key not in state]
    unexpected = sorted(state.keys() - set(theirs.values()))
    if bad or missing or unexpected:
        raise DataError(_refusal(where, model, bad, missing, unexpected))
    return weights


def preprocessing_of(network: str) -> Preprocessing:
    """What the authors' main.py (CIFAR-10) and test.py (ImageNet) do to a pixel, for one of
    NETWORKS."""
    small = network.startswith(("resnet20", "resnet32"))
    return Preprocessing(CIFAR if small else IMAGENET, channels="rgb")


def classes_of(state: Mapping[str, Array]) -> int | None:
    """The number of classes by the shape of the last layer's weights; None where they lack."""
    for key, array in state.items():
        if _plain_name(key) in ("fc.weight", "fc.adder") and array.ndim >= 2:
            return int(array.shape[0])
    return None


def _plain_name(key: str) -> str:
    """Without what DataParallel and torch.compile put before a name."""
    while key.startswith(_WRAPPERS):
        key = key.partition(".")[2]
    return key


def _plain_names(state: Mapping[str, Array], where: str) -> dict[str, Array]:
    """Without wrappers' prefixes and the batch counters; DataError where two names become one."""
    found: dict[str, Array] = {}
    for key, array in state.items():
        name = _plain_name(key)
        if name.endswith(".num_batches_tracked"):
            continue
        if name in found:
            raise DataError(f'"{where}" has "{name}" twice, once as "{key}"; keep one of them')
        found[name] = array
    return found


def _their_name(graph: Graph, parameter: Parameter) -> str:
    layer, _, field = parameter.name.rpartition(".")
    block = _BLOCK.fullmatch(layer)
    if block:
        part = _PARTS.get(block[3], block[3])
        layer = f"layer{block[1]}.{block[2]}.{part}"
    else:
        layer = _LAYERS[layer]
    if field == "f":
        return f"{layer}.{_filter_name(graph, parameter)}"
    return f"{layer}.{_FIELDS[field]}"


def _filter_name(graph: Graph, parameter: Parameter) -> str:
    (user,) = (node for node in graph.nodes if parameter in node.inputs)
    return "adder" if user.op.measures_distance else "weight"


def _their_shapes(parameter: Parameter) -> list[tuple[int, ...]]:
    """The shapes that an array for `parameter` may have in a state; the first is the authors'."""
    sizes = parameter.type.sizes
    if len(sizes) == 4:
        return [(sizes[3], sizes[2], sizes[0], sizes[1])]
    if len(sizes) == 2:
        return [(sizes[1], sizes[0], 1, 1), (sizes[1], sizes[0])]
    return [sizes]


def _problem(parameter: Parameter, array: Array) -> str:
    """What is wrong with the array, in a few words, or nothing."""
    shapes = _their_shapes(parameter)
    if array.shape not in shapes:
        return f"expected {' or '.join(map(_shown, shapes))}, found {_shown(array.shape)}"
    if array.dtype.kind != "f":
        return f"expected real numbers, found {array.dtype}"
    if not np.isfinite(array.astype(np.float32)).all():
        return "has values that are not finite in f32"
    return ""


def _our_layout(parameter: Parameter, array: Array) -> Array:
    array = array.astype(np.float32)
    if parameter.type.rank == 4:
        array = array.transpose(2, 3, 1, 0)
    elif parameter.type.rank == 2:
        array = array.reshape(array.shape[:2]).T
    return np.ascontiguousarray(array)


def _shown(shape: Iterable[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _refusal(
    where: str, model: Model, bad: list[str], missing: list[str], unexpected: list[str]
) -> str:
    lines = [f'"{where}" does not hold the weights of {model.name}:']
    if len(missing) == len(model.weights):
        found, expected = (", ".join(keys[:3]) for keys in (unexpected, missing))
        return f"{lines[0]} its names are {found or 'none'}, ..., expected {expected}, ..."
    for what, keys in (("missing", missing), ("unexpected", unexpected)):
        if keys:
            lines += [f"  {len(keys)} {what}:", *(f"    {key}" for key in keys)]
    if bad:
        lines += [f"  {len(bad)} that do not fit:", *(f"    {line}" for line in bad)]
    return "\n".join(lines)
