"""The page docs/ops.md and the stub of `ops` for type checkers, from the ops themselves.

python -m addergraph.report.reference_docs > docs/ops.md
python -m addergraph.report.reference_docs stub > addergraph/ops/__init__.pyi
"""

from __future__ import annotations

import inspect
import sys

from .. import ops
from ..ir import KINDS, Op, registry
from ..ir.text_attributes import Attribute, attributes

_HEAD = """\
# Ops

Made from the op registry: `python -m addergraph.report.reference_docs > docs/ops.md`.
Do not edit it.

What an op means is in `addergraph/ops/`: its shape rule, NumPy reference, gradient and range rule.
Activations are NHWC, filters HWIO. Letters: n batch, h w output row and column, i j kernel row and
column, k input channel, t output channel, s stride, d dilation, p the padding above or to the left,
g the gradient of the result. Attributes are written as in the textual IR; one without a default
must be given.

*Surrogate* ops have the gradient that the paper gives them, which is not the derivative. Ops that
are *not differentiable* end the backward pass. *Not per sample* means that rows of the result
depend on other rows of the batch, so that a graph with the op compiles for a bound batch only.

NaN has one rule, for the interpreter and for compiled code alike: each op makes of it what its
section says, and no pass takes that away. Where nothing is said, a result with a NaN among the
elements that it is computed from is NaN. That a value is always the same number, as `relu` of sums
that are never positive, is proven for numbers only: it is warned about and still computed, so that
`relu(adder2d(x, f))` is NaN where x holds one. The sign and payload of a NaN say nothing.
"""


def ops_markdown() -> str:
    """The page: a table of contents by kind, then one section per op."""
    known = dict(sorted(registry().items()))
    contents = []
    for kind in KINDS:
        names = [f"[{n}](#{n})" for n, op in known.items() if op.kind == kind]
        contents.append(f"* {kind}: {', '.join(names)}")
    return "\n".join([_HEAD, *contents, "", *map(_section, known.values())])


def ops_stub() -> str:
    """What type checkers see of `ops`: each function by the module that defines it."""
    package = f"{ops.__name__}."
    places = sorted((getattr(ops, n).__module__.removeprefix(package), n) for n in ops.__all__)
    lines = [f"from .{module} import {name} as {name}" for module, name in places]
    head = ["# Made by `python -m addergraph.report.reference_docs stub`.", ""]
    return "\n".join([*head, *lines, "", "__all__: list[str]", ""])


def _section(op: type[Op]) -> str:
    """Heading, facts, attributes, equation and contract of one op."""
    equation, _, rest = inspect.cleandoc(op.__doc__ or "").partition("\n\n")
    facts: list[str] = [op.kind]
    facts += ["surrogate gradient"] if op.surrogate else []
    facts += ["not differentiable"] if op.not_differentiable else []
    if op.per_sample is not True:
        facts.append("per sample or not by its attributes" if op.per_sample else "not per sample")
    results = [f"`{name}`" for name in op.result_names if name]
    listed, body = attributes(op)
    lines = [f"## {op.name}", "", f"*{', '.join(facts)}*", "", "```text", equation, "```", ""]
    lines += [rest, ""] if rest else []
    lines += [f"Results: {', '.join(results)}.", ""] if results else []
    if listed or body:
        bodies = [f"* `{body}`: a graph"] if body else []
        lines += ["Attributes:", "", *map(_line, listed), *bodies, ""]
    return "\n".join(lines)


def _line(attribute: Attribute) -> str:
    """`` * `stride=(1,1)`: 2 times an integer ``, with the default where there is one."""
    default = "" if attribute.default is None else f"={attribute.default}"
    return f"* `{attribute.name}{default}`: {attribute.kind.expected}"


if __name__ == "__main__":
    print(ops_stub() if sys.argv[1:] == ["stub"] else ops_markdown(), end="")
