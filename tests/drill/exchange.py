"""Planted bugs in what goes to other programs and comes back: ONNX files, modules of PyTorch."""

from __future__ import annotations

from .mutant import Mutant, tests_of

ONNX, TORCH = "addergraph/onnx", "addergraph/torch"


def onnx(file: str, name: str) -> tuple[str, ...]:
    return tests_of(f"{ONNX}/{file}", name)


def torch(file: str, name: str) -> tuple[str, ...]:
    return tests_of(f"{TORCH}/{file}", name)


IMAGES = onnx("test_export_ops.py", "test_axes_and_sides_of_images_are_those_of_their_layout")

MUTANTS = (
    Mutant(
        "pads of a window go out as both rows, then both columns",
        f"{ONNX}/export_rules.py",
        "return top, left, bottom, right",
        "return top, bottom, left, right",
        IMAGES,
    ),
    Mutant(
        "an exported softmax is over columns",
        f"{ONNX}/export_rules.py",
        "axis=_axis(last, layout))",
        "axis=last)",
        IMAGES,
    ),
    Mutant(
        "an exported concat joins columns",
        f"{ONNX}/export_rules.py",
        "axis=_axis(_of(node, Concat).axis, layout))",
        "axis=_of(node, Concat).axis)",
        IMAGES,
    ),
    Mutant(
        "an exported pad has the order of the graph",
        f"{ONNX}/export_rules.py",
        "[side[n] for n in _order(x.type, layout)]",
        "[side[n] for n in range(x.type.rank)]",
        IMAGES,
    ),
    Mutant(
        "the operands of an exported batch norm change places",
        f"{ONNX}/export_rules.py",
        "(gamma, beta, mean, variance)]",
        "(beta, gamma, mean, variance)]",
        IMAGES,
    ),
    Mutant(
        "an own filter comes back as it is stored",
        f"{ONNX}/import_own.py",
        "if turned and array.ndim == 4 else array",
        "if turned and array.ndim == 5 else array",
        onnx("test_import_own.py", "test_filters_of_convolutions_come_back_as_they_were"),
    ),
    Mutant(
        "pads come in as begin and end of each axis",
        f"{ONNX}/import_windows.py",
        "zip(pads[:count], pads[count:], strict=True)",
        "zip(pads[::2], pads[1::2], strict=True)",
        onnx("test_import.py", "test_windows_with_other_padding_on_every_side"),
    ),
    Mutant(
        "padding counts in means that leave it out",
        f"{ONNX}/import_windows.py",
        "np.outer(rows.counted(padding), columns.counted(padding))",
        "np.outer(rows.counted(True), columns.counted(True))",
        onnx("test_import.py", "test_windows_with_other_padding_on_every_side"),
    ),
    Mutant(
        "a zero point is added where it is subtracted",
        f"{ONNX}/import_integers.py",
        "whole = ops.sub(whole, zero,",
        "whole = ops.add(whole, zero,",
        onnx("test_import.py", "test_integer_layers_have_the_integers_of_onnx_runtime"),
    ),
    Mutant(
        "the opset of a Clip is ignored",
        f"{ONNX}/import_pointwise.py",
        "named = call.opset < 11",
        "named = False",
        onnx("test_import.py", "test_attributes_that_became_inputs"),
    ),
    Mutant(
        "names of classes are not compared",
        f"{ONNX}/metadata.py",
        "if names != expected:",
        "if sorted(names) != sorted(expected):",
        onnx("test_import_own.py", "test_damaged_classes_are_refused"),
    ),
    Mutant(
        "the gradient of a filter has the other sign",
        f"{TORCH}/custom_ops.py",
        "df = adder2d_grad_filter(g, x, adder, *ctx.window) if",
        "df = -adder2d_grad_filter(g, x, adder, *ctx.window) if",
        torch("test_layer.py", "test_the_layer_and_its_gradients_are_the_published_ones"),
        needs="torch",
    ),
    Mutant(
        "the layer-adaptive rate counts filters",
        f"{TORCH}/custom_ops.py",
        "math.sqrt(adder.numel())",
        "math.sqrt(adder.shape[0])",
        torch("test_layer.py", "test_the_layer_and_its_gradients_are_the_published_ones"),
        needs="torch",
    ),
    Mutant(
        "a module loses the eta of its adder layers",
        f"{TORCH}/aten.py",
        "_HWIO, where=where, eta=eta)",
        "_HWIO, where=where, eta=None)",
        torch("test_from_torch.py", "test_adder_layers_keep_their_rate"),
        needs="torch",
    ),
    Mutant(
        "a model loses the eta of its adder layers",
        f"{TORCH}/rules.py",
        "return f.eta if isinstance(f, Parameter) else None",
        "return None",
        torch("test_to_torch.py", "test_a_step_there_is_a_step_here"),
        needs="torch",
    ),
    Mutant(
        "norms behind named outputs have no momentum",
        f"{TORCH}/importing.py",
        "{new.get(key, key): value for key",
        "{key: value for key",
        torch("test_from_torch.py", "test_named_outputs_train_as_the_others"),
        needs="torch",
    ),
)
