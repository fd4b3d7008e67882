"""Who asks for an op's class or name outside `ops/`, and why: everything else asks its traits.

A dispatch is one of

* `isinstance` or `issubclass` with a class of ops, and `x.op == Relu()`;
* a lookup or comparison of `type(op)`, a dict by op classes, a `match` with op classes in it;
* a comparison of `op.name`, and a dict, set, list or tuple of nothing but two or more ops' names.

An `assert isinstance(...)` is none: it tells a type checker what a registration has decided.
"""

from __future__ import annotations

import ast
import importlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import get_args

import pytest

from addergraph import ops
from addergraph.codegen.kernels import families
from addergraph.ir import Op, registry

ROOT = Path(__file__).parent.parent

MOST = 34

# file -> how many dispatches it may have, and why it needs them.
ALLOWED: dict[str, tuple[int, str]] = {
    "addergraph/onnx/export_rules.py": (1, "a rule by op, where a standard operator says it all"),
    "addergraph/onnx/export_functions.py": (1, "bodies by op: a test walks all ops"),
    "addergraph/report/summary.py": (1, "the rate of a dropout, which is in no inference graph"),
    "addergraph/torch/rules.py": (1, "each op's equivalent in PyTorch, by name: a test walks it"),
    "addergraph/training/losses.py": (2, "a cross-entropy takes the logits of a softmax"),
    "codegen/emit/lowered.py": (2, "only 2-D adders have kernels that leave taps out"),
    "codegen/inspect/strict.py": (2, "what to use instead of an op, in words"),
    "codegen/kernels/__init__.py": (1, "kernels by op: test_every_op_has_a_kernel"),
    "codegen/kernels/forward/terms.py": (1, "the term of a contraction: distance or product"),
    "codegen/kernels/gradient/filter.py": (1, "the gradient's term: of an adder or a product"),
    "codegen/kernels/gradient/input.py": (1, "the gradient's term: of an adder or a product"),
    "codegen/kernels/pointwise.py": (2, "code by op: test_every_op_has_a_kernel"),
    "codegen/measure/tune.py": (2, "tuned are the contractions whose kernels have tiles"),
    "passes/canonicalize.py": (2, "rules about broadcast_to and pad as operands or producers"),
    "passes/fold_batch_norm.py": (1, "a pass about one op"),
    "passes/quantize/forget_scales.py": (1, "a pass about the ops that state a scale"),
    "passes/quantize/integers.py": (3, "rules by op, and what a rounding op states"),
    "passes/quantize/quantize.py": (2, "a softmax before an argmax or an output is left out"),
    "passes/quantize/rounded.py": (3, "rules by op, and what a rounding op states"),
    "passes/quantize/rules.py": (8, "rules by op, and what to do about ops that have none"),
}


def _op_classes(kind: type[Op] = Op) -> Iterator[type[Op]]:
    for below in kind.__subclasses__():
        yield below
        yield from _op_classes(below)


OWN = [kind for kind in _op_classes() if kind.__module__.startswith(ops.__name__)]
NAMES = {op.name for op in OWN if op.name}


def _is_of_ops(item: object) -> bool:
    """Whether `item` is an op class, or a union or tuple of some."""
    if isinstance(item, UnionType):
        item = get_args(item)
    if isinstance(item, tuple):
        return bool(item) and all(map(_is_of_ops, item))
    return item in OWN


def _imported(nodes: list[ast.AST]) -> Iterator[str]:
    """The names that a file imports and that stand for op classes."""
    for node in nodes:
        if not isinstance(node, ast.ImportFrom) or "ops" not in (node.module or "").split("."):
            continue
        inside = (node.module or "").rpartition("ops")[2]
        module = importlib.import_module(f"{ops.__name__}{inside}")
        for alias in node.names:
            if _is_of_ops(getattr(module, alias.name, None)):
                yield alias.asname or alias.name


def _mentions(tree: ast.AST, classes: set[str]) -> bool:
    return any(isinstance(n, ast.Name) and n.id in classes for n in ast.walk(tree))


def _is_op(node: ast.AST) -> bool:
    """Whether `node` is called `op`, by itself or as an attribute."""
    return (node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")) == "op"


def _is_type_of_op(node: ast.AST) -> bool:
    called = (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "type"
    )
    return called and _is_op(node.args[0])  # type: ignore[attr-defined]


def _is_op_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "name" and _is_op(node.value)


def _are_names(items: list[ast.expr] | list[ast.expr | None]) -> bool:
    values = [item.value for item in items if isinstance(item, ast.Constant)]
    return len(items) > 1 and len(values) == len(items) and NAMES.issuperset(map(str, values))


LOOKED_AT = (
    ast.Call, ast.Subscript, ast.Compare, ast.Dict, ast.Set, ast.Tuple, ast.List, ast.Match
)  # fmt: skip


def _is_dispatch(node: ast.AST, classes: set[str]) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, kinds]):
            return _mentions(kinds, classes)
        case ast.Call(func=ast.Attribute(attr="get"), args=[key, *_]):
            return _is_type_of_op(key)
        case ast.Call(
            func=ast.Attribute(value=name, attr="startswith" | "endswith" | "removesuffix")
        ):
            return _is_op_name(name)
        case ast.Subscript(slice=key):
            return _is_type_of_op(key)
        case ast.Compare(left=left, comparators=others):
            sides = [left, *others]
            made = any(isinstance(s, ast.Call) and _mentions(s.func, classes) for s in sides)
            return made or any(_is_type_of_op(s) or _is_op_name(s) for s in sides)
        case ast.Dict(keys=keys):
            return _are_names(keys) or any(k is not None and _mentions(k, classes) for k in keys)
        case ast.Set(elts=items) | ast.Tuple(elts=items) | ast.List(elts=items):
            return _are_names(items)
        case ast.Match(cases=cases):
            return any(
                isinstance(n, ast.MatchClass) and _mentions(n.cls, classes)
                for case in cases
                for n in ast.walk(case.pattern)
            )
    return False


def _asserted(nodes: list[ast.AST]) -> set[ast.AST]:
    return {
        inner for node in nodes if isinstance(node, ast.Assert) for inner in ast.walk(node.test)
    }


def dispatches(root: Path) -> list[tuple[str, int, str]]:
    """File, line and text of each in the product below `root`."""
    found = []
    for path in sorted(
        p for f in ("addergraph", "passes", "codegen") for p in (root / f).rglob("*.py")
    ):
        file = str(path.relative_to(root))
        if file.startswith(("addergraph/ops/", "addergraph/passes/", "addergraph/codegen/")):
            continue  # the ops; symlinks
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = list(ast.walk(tree))
        classes, asserted = set(_imported(nodes)), _asserted(nodes)
        classes |= {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple | ast.BinOp)
            if _mentions(node.value, classes)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        found += [
            (file, node.lineno, ast.unparse(node).splitlines()[0])
            for node in nodes
            if isinstance(node, LOOKED_AT) and node not in asserted and _is_dispatch(node, classes)
        ]
    return sorted(found)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("isinstance(x, Relu | Full) or isinstance(x, int)", 1),
        ("BOTH = (Relu, Full)\nisinstance(x, BOTH)", 1),
        ("TABLE = {Relu: 1, Full: 2}\nTABLE[type(node.op)]\nTABLE.get(type(op))", 3),
        ("node.op == Relu() or node.op.name in known or other.name in known", 2),
        ('{"relu", "full"} | {"relu", "blue"}', 1),
        ("match x:\n  case Relu() | Full():\n    pass\n  case int():\n    pass", 1),
        ("Relu() if node.op.cheap else fields(type(node.op))", 0),
    ],
)
def test_the_count_finds(text: str, count: int, tmp_path: Path) -> None:
    head = "from ..ops.pointwise.relu import Relu\nfrom ..ops.pointwise.full import Full\n"
    (tmp_path / "passes").mkdir()
    (tmp_path / "passes" / "one.py").write_text(head + text)
    assert len(dispatches(tmp_path)) == count


def test_dispatches_outside_ops_have_a_reason() -> None:
    found = dispatches(ROOT)
    print(f"{len(found)} dispatches on an op's class or name outside ops/")
    shown = "\n".join(f"{file}:{line} {text}" for file, line, text in found)
    counts = Counter(file for file, _, _ in found)
    assert not [file for file in counts if counts[file] > ALLOWED.get(file, (0, ""))[0]], shown
    assert len(found) <= MOST, shown


def test_every_op_has_a_kernel() -> None:
    assert set(families()) == set(registry().values())
