"""Layouts of tensors of four axes, and the names in files of our own that tell of them.

A value is called as in the graph in the layout that it is computed in. The Transpose that makes it
in another layout is called `conv1.nchw`, and what stands between the two operators of one op
`conv1.pool`. Both may have a number behind them (`conv1.nchw_1`) where the name was taken.
`export_writer.py` writes these names, `import_own.py` reads them.
"""

from __future__ import annotations

import re

NHWC, NCHW, OIHW = "nhwc", "nchw", "oihw"
FROM_NHWC = {NCHW: (0, 3, 1, 2), OIHW: (3, 2, 0, 1)}
"""The axes of the graph in the order of the layout; a filter's are HWIO in the graph."""
TO_NHWC = {NCHW: (0, 2, 3, 1), OIHW: (2, 3, 1, 0)}
"""The axes of the layout in the order of the graph."""
POOL, INDEX = "pool", "index"  # what is between the operators of one op

_NUMBER = r"(?:_\d+)?$"  # of `ir.graph.free_name`
_LAID_OUT = re.compile(rf"\.({'|'.join((NHWC, NCHW, OIHW))}){_NUMBER}")
_BETWEEN = re.compile(rf"\.({'|'.join((POOL, INDEX))}){_NUMBER}")


def laid_out(name: str, layout: str) -> str:
    """What the value is called in another layout than its own."""
    return f"{name}.{layout}"


def layout_of(name: str) -> tuple[str, str | None]:
    """The value that a name stands for, and the layout that the name tells, if it tells one."""
    found = _LAID_OUT.search(name)
    return (name[: found.start()], found[1]) if found else (name, None)


def between(name: str, part: str) -> str:
    """What the result of the first operator of two is called that are the op `name`."""
    return f"{name}.{part}"


def op_around(name: str) -> str | None:
    """The op between whose operators the tensor of this name stands; None where it tells none."""
    found = _BETWEEN.search(name)
    return name[: found.start()] if found else None
