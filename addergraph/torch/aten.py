"""What each ATen op is here: RULES, by the op's name without its overload.

Sources: the schemas of PyTorch's native_functions.yaml, the documentation of torch.nn.functional.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from .. import ops
from ..ir.trace import Tensor
from ..layers._parameters import ONES, STANDARD_NORMAL, ZEROS, he_normal
from .site import BACK, ORDER, Constant, Site, ours

Rule = Callable[[Site], Any]
RULES: dict[str, Rule] = {}
_HWIO = (2, 3, 1, 0)


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


# --- layers with weights --------------------------------------------------------------------------


@_rule("conv2d", "convolution")
def _conv2d(site: Site) -> Tensor:
    if site["transposed"]:
        site.refuse("is a transposed convolution, which there is not here: upsample, then convolve")
    x, weight = site.tensor("input"), site["weight"]
    if len(site.shape("input")) != 4:
        site.refuse("takes no image; expected [N, C, H, W]")
    size = weight.value.shape if isinstance(weight, Constant) else (1,)
    where = site.layer_of("weight")
    f = site.parameter("weight", "f", he_normal(math.prod(size[1:])), _HWIO, where=where)
    dilation, stride = site.pair("dilation", (1,)), site.pair("stride", (1,))
    return ops.conv2d(
        x, f, _bias(site, "bias", where), stride=stride,
        padding=_padding(site, size[2:], stride, dilation), dilation=dilation,
        groups=int(site["groups"]), name=where,
    )  # fmt: skip


def _padding(
    site: Site, size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Sequence[int]:
    """(top, bottom, left, right), of numbers or of a rule."""
    if not isinstance(site["padding"], str):
        rows, columns = site.pair("padding", (0,))
        return rows, rows, columns, columns
    if site["padding"] == "valid":
        return 0, 0, 0, 0
    spans = [d * (k - 1) for k, d in zip(size, dilation, strict=True)]
    return tuple(side for n in spans for side in (n // 2, n - n // 2))  # "same" is of stride 1


@_rule("addergraph::adder2d")
def _adder2d(site: Site) -> Tensor:
    eta, where = site["eta"], site.layer_of("adder")
    f = site.parameter("adder", "f", STANDARD_NORMAL, _HWIO, where=where, eta=eta)
    return ops.adder2d(
        site.tensor("x"), f, _bias(site, "b", where), stride=site.pair("stride"),
        padding=_padding(site, (), (), ()), dilation=site.pair("dilation"),
        groups=int(site["groups"]), name=where,
    )  # fmt: skip


@_rule("linear")
def _linear(site: Site) -> Tensor:
    if len(site.shape("input")) != 2:
        site.refuse("is applied to more than rows; flatten them: expected [N, K]")
    inputs, where = site.shape("input")[1], site.layer_of("weight")
    f = site.parameter("weight", "f", he_normal(inputs), (1, 0), where=where)
    return ops.dense(site.tensor("input"), f, _bias(site, "bias", where), name=where)


def _bias(site: Site, name: str, where: str) -> Tensor | None:
    return None if site[name] is None else site.parameter(name, "b", ZEROS, where=where)


@_rule("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm")
def _batch_norm(site: Site) -> Any:
    x = site.tensor("input")
    if x.type.rank not in (2, 4) or site["training"] or site["running_mean"] is None:
        site.refuse("is no batch norm with running statistics over [N, C] or [N, C, H, W]")
    channels = site.shape("input")[1]
    where = site.layer_of("running_mean")
    learned = {"weight": ("gamma", ONES), "bias": ("beta", ZEROS)}
    gamma, beta = (
        site.fixed(where, *how, channels)
        if site[name] is None
        else site.parameter(name, *how, where=where)
        for name, how in learned.items()
    )
    mean = site.parameter("running_mean", "mean", ZEROS, where=where)
    variance = site.parameter("running_var", "variance", ONES, where=where)
    y = ops.batch_norm(x, mean, variance, gamma, beta, epsilon=float(site["eps"]), name=where)
    site.importing.momentum[y.name] = float(site["momentum"])
    return y if site.op == "batch_norm" else [y]


# --- elementwise ----------------------------------------------------------------------------------


def _unary(op: Callable[..., Tensor]) -> Rule:
    return lambda site: op(site.tensor("self"), name=site.name)


def _composed(of: Callable[[Tensor], Tensor]) -> Rule:
    return lambda site: of(site.tensor("self"))


def _hard_sigmoid(x: Tensor) -> Tensor:
    return ops.relu6(x + 3.0) * (1.0 / 6.0)


RULES |= {
    "relu": _unary(ops.relu),
    "relu6": _unary(ops.relu6),
    "sigmoid": _unary(ops.sigmoid),
    "tanh": _unary(ops.tanh),
    "neg": _unary(ops.neg),
    "exp": _unary(ops.exp),
    "log": _unary(ops.log),
    "sqrt": _unary(ops.sqrt),
    "abs": _unary(ops.abs),
    "hardsigmoid": _composed(_hard_sigmoid),
    "hardswish": _composed(lambda x: x * _hard_sigmoid(x)),
    "silu": _composed(lambda x: x * ops.sigmoid(x)),
    "square": _composed(lambda x: x * x),
    "reciprocal": _composed(lambda x: 1.0 / x),
    "rsqrt": _composed(lambda x: 1.0 / ops.sqrt(x)),
}


@_rule("leaky_relu")
def _leaky_relu(site: Site) -> Tensor:
    return ops.leaky_relu(site.tensor("self"), slope=float(site["negative_slope"]), name=site.name)


@_rule("hardtanh", "clamp", "clamp_min", "clamp_max")
def _clamp(site: Site) -> Tensor:
    names = ("min_val", "max_val") if site.op == "hardtanh" else ("min", "max")
    x, (low, high) = site.tensor("self"), (site[name] for name in names)
    if isinstance(low, Tensor | Constant) or isinstance(high, Tensor | Constant):
        site.refuse("has tensors as bounds; expected numbers")
    if low is None and high is None:
        site.refuse("has no bound")
    if low is None:
        return ops.minimum(x, float(high), name=site.name)
    if high is None:
        return ops.maximum(x, float(low), name=site.name) if low else ops.relu(x, name=site.name)
    if (low, high) == (0, 6):
        return ops.relu6(x, name=site.name)
    return ops.clip(x, float(low), float(high), name=site.name)


def _binary(op: Callable[..., Tensor], first: str = "self", second: str = "other") -> Rule:
    def rule(site: Site) -> Tensor:
        rank = len(site.result)
        a, b = site.operand(first, rank), site.operand(second, rank)
        if site["rounding_mode"] is not None:
            site.refuse("rounds; only exact quotients are known")
        alpha = site["alpha"]
        scaled = b if alpha in (None, 1) else b * float(alpha)
        return op(a, scaled, name=site.node.name)

    return rule


RULES |= {
    "add": _binary(ops.add),
    "sub": _binary(ops.sub),
    "mul": _binary(ops.mul),
    "div": _binary(ops.div),
    "maximum": _binary(ops.maximum),
    "minimum": _binary(ops.minimum),
    "rsub": _binary(lambda a, b, name: ops.sub(b, a, name=name)),
}


@_rule("pow")
def _pow(site: Site) -> Tensor:
    if isinstance(site["exponent"], Tensor | Constant) or not isinstance(site["self"], Tensor):
        site.refuse("has no plain number as exponent")
    power: Tensor = site.tensor("self") ** site["exponent"]
    return power


# --- pools and sums -------------------------------------------------------------------------------


def _pooled(site: Site, op: Callable[..., Tensor], x: Tensor) -> Tensor:
    window = site.pair("kernel_size")
    stride = site.pair("stride", window)
    rows, columns = site.pair("padding", (0,))
    y = op(x, window, stride=stride, padding=(rows, rows, columns, columns), name=site.name)
    if y.shape[1:3] != site.result[2:]:
        site.refuse("rounds its size up; expected ceil_mode=False")
    return y


@_rule("max_pool2d", "max_pool2d_with_indices")
def _max_pool2d(site: Site) -> Any:
    if site.pair("dilation", (1,)) != (1, 1):
        site.refuse("is a pool with dilation")
    y = _pooled(site, ops.max_pool2d, site.tensor("self"))
    return y if site.op == "max_pool2d" else [y]


@_rule("avg_pool2d")
def _avg_pool2d(site: Site) -> Tensor:
    if site["divisor_override"] is not None:
        site.refuse("has a divisor of its own")
    if any(site.pair("padding", (0,))) and not site["count_include_pad"]:
        site.refuse("leaves padding out of its means; expected count_include_pad=True")
    return _pooled(site, ops.avg_pool2d, site.tensor("self"))


@_rule("adaptive_avg_pool2d", "_adaptive_avg_pool2d")
def _adaptive_avg_pool2d(site: Site) -> Tensor:
    x, (rows, columns) = site.tensor("self"), site.result[2:]
    height, width = site.shape("self")[2:]
    if (rows, columns) == (1, 1):
        return ops.reshape(ops.global_avg_pool(x, name=site.name), ("N", 1, 1, x.shape[3]))
    if height % rows or width % columns:
        site.refuse(f"makes {rows}x{columns} of {height}x{width} by windows of different sizes")
    window = (height // rows, width // columns)
    return ops.avg_pool2d(x, window, stride=window, name=site.name)


def _reduction(op: Callable[..., Tensor]) -> Rule:
    def rule(site: Site) -> Tensor:
        x, rank = site.tensor("self"), len(site.shape("self"))
        dims = site["dim"]
        dims = [dims] if isinstance(dims, int) else list(dims or range(rank))
        axes = tuple(sorted({site.axis(int(d), rank) for d in dims}))
        if 0 in axes:
            site.refuse("takes samples together; expected axes other than the batch")
        if site["keepdim"]:
            return op(x, axes, keepdims=True, name=site.name)
        if rank == 4 and axes == (1, 2) and op is ops.reduce_mean:
            return ops.global_avg_pool(x, name=site.name)
        y = op(x, axes, keepdims=False, name=site.name)
        left = [d for d in (ORDER if rank == 4 else range(rank)) if site.axis(d, rank) not in axes]
        order = [left.index(d) for d in sorted(left)]
        return y if order == sorted(order) else ops.transpose(y, tuple(order))

    return rule


RULES |= {
    "mean": _reduction(ops.reduce_mean),
    "sum": _reduction(ops.reduce_sum),
    "amax": _reduction(ops.reduce_max),
}


@_rule("softmax", "_softmax")
def _softmax(site: Site) -> Tensor:
    x, rank = site.tensor("self"), len(site.shape("self"))
    if site.axis(int(site["dim"]), rank) != rank - 1:
        site.refuse("is not over channels, or the last axis of rows")
    return ops.softmax(x, name=site.name)


# --- movement -------------------------------------------------------------------------------------


@_rule(
    "view", "reshape", "flatten", "unsqueeze", "squeeze", "_unsafe_view", "unflatten",
    "_reshape_copy", "view_copy",
)  # fmt: skip
def _reshape(site: Site) -> Tensor:
    """The elements in PyTorch's order of axes; where an image has one pixel or one channel, ours
    is the same."""
    x, before, after = site.tensor("self"), site.shape("self"), site.result
    if not after or after[0] != before[0]:
        site.refuse("changes the axis of the batch, which has to stay the first")
    if len(before) == 4 and not _is_same_order(before):
        x = ops.transpose(x, BACK)
    if len(after) != 4:
        return ops.reshape(x, ("N", *after[1:]), name=site.name)
    if _is_same_order(after):
        return ops.reshape(x, ("N", *ours(after)[1:]), name=site.name)
    return ops.transpose(ops.reshape(x, ("N", *after[1:])), ORDER, name=site.name)


def _is_same_order(shape: Sequence[int]) -> bool:
    return shape[1] == 1 or shape[2] * shape[3] == 1


@_rule("permute", "transpose")
def _permute(site: Site) -> Tensor:
    rank = len(site.shape("self"))
    order = list(range(rank))
    if site.op == "permute":
        order = [int(d) % rank for d in site["dims"]]
    else:
        a, b = int(site["dim0"]) % rank, int(site["dim1"]) % rank
        order[a], order[b] = b, a
    if order[0]:
        site.refuse("moves the axis of the batch, which has to stay the first")
    if rank == 4:
        order = [ORDER.index(order[axis]) for axis in ORDER]
    return ops.transpose(site.tensor("self"), tuple(order), name=site.name)


@_rule("cat", "concat")
def _cat(site: Site) -> Tensor:
    tensors, rank = site["tensors"], len(site.result)
    if not all(isinstance(t, Tensor) for t in tensors):
        site.refuse("joins constants")
    axis = site.axis(int(site["dim"]), rank)
    if not axis:
        site.refuse("joins samples")
    return tensors[0] if len(tensors) == 1 else ops.concat(tensors, axis, name=site.name)


@_rule("slice")
def _slice(site: Site) -> Tensor:
    x, shape = site.tensor("self"), site.shape("self")
    dim = int(site["dim"]) % len(shape)
    if int(site["step"]) != 1 or (not dim and site.result[0] != shape[0]):
        site.refuse("takes samples, or every so many elements; expected a range of another axis")
    if not dim:
        return x
    first, last, _ = slice(site["start"], site["end"]).indices(shape[dim])
    return _range(site, dim, first, max(first, last))


def _range(site: Site, dim: int, first: int, last: int) -> Tensor:
    """Part of an axis, which is counted as in PyTorch."""
    x, axis = site.tensor("self"), site.axis(dim, len(site.shape("self")))
    start, stop = [0] * x.type.rank, list(x.shape)
    start[axis], stop[axis] = first, last
    return ops.slice(x, tuple(start), tuple(stop), name=site.name)


@_rule("select")
def _select(site: Site) -> Tensor:
    shape = site.shape("self")
    dim = int(site["dim"]) % len(shape)
    if not dim:
        site.refuse("takes one sample; expected an axis other than the batch")
    place = int(site["index"]) % shape[dim]
    y = _range(site, dim, place, place + 1)
    return ops.reshape(ops.transpose(y, BACK) if len(shape) == 4 else y, ("N", *site.result[1:]))


@_rule("constant_pad_nd", "pad")
def _pad(site: Site) -> Tensor:
    x, rank, sides = site.tensor("self"), len(site.shape("self")), [int(n) for n in site["pad"]]
    if site["mode"] not in (None, "constant") or min(sides) < 0 or len(sides) > 2 * (rank - 1):
        site.refuse("pads with more than a constant, or an axis of the batch, or by less than 0")
    before, after = [0] * rank, [0] * rank
    for number in range(len(sides) // 2):  # from the last axis on
        axis = site.axis(-1 - number, rank)
        before[axis], after[axis] = sides[2 * number], sides[2 * number + 1]
    return ops.pad(x, tuple(before), tuple(after), float(site["value"] or 0.0), name=site.name)


@_rule("upsample_nearest2d")
def _upsample(site: Site) -> Tensor:
    name = _operand(site)
    (height, width), (rows, columns) = site.shape(name)[2:], site.result[2:]
    if rows % height or columns % width:
        site.refuse(f"makes {rows}x{columns} of {height}x{width}; expected whole multiples")
    factors = (rows // height, columns // width)
    return ops.resize_nearest(site.tensor(name), factors, name=site.name)


@_rule("clone", "alias", "contiguous", "detach", "lift_fresh_copy", "_to_copy", "to", "dropout")
def _same(site: Site) -> Tensor:
    return site.tensor(_operand(site))


@_rule("addergraph::dropout")
def _dropout(site: Site) -> Tensor:
    """A module's; a function's, which is there in training alone, leaves no trace."""
    x, rate = site.tensor("x"), float(site["rate"])
    return site.importing.leave_out(x, rate, site.name, site.is_only_reader("x"))


def _operand(site: Site) -> str:
    """What a schema calls the only tensor."""
    return "self" if site["input"] is None else "input"


__all__ = ["RULES"]
