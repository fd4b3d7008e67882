"""The padding of layers: zeros on four sides, or a rule that follows the size of the image.

"valid" pads nothing. "same" makes ceil(H / stride) rows of H, by as few zeros as that takes, half
of them on either side and the odd one at the bottom or right, as TensorFlow has it:

    total = max((ceil(H / s) - 1) s + (k - 1) d + 1 - H, 0)
    top = floor(total / 2), bottom = total - top;  columns likewise
"""

from __future__ import annotations

from ..errors import ShapeError, nearest
from ..ir.attributes import Padding, Pair, padding
from ..ir.trace import Tensor

SAME, VALID = "same", "valid"
RULES = (SAME, VALID)
SidesOrRule = int | Pair | Padding | str


def sides_or_rule(where: str, given: object) -> SidesOrRule:
    """Four sides, or one of RULES; ShapeError for anything else."""
    if not isinstance(given, str):
        return padding(where, given)
    if given not in RULES:
        raise ShapeError(
            f'{where}: padding="{given}"{nearest(given.lower(), RULES)} must be an int, (vertical, '
            'horizontal), (top, bottom, left, right), "same" or "valid"'
        )
    return given


def sides(
    where: str, given: SidesOrRule, x: Tensor, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)
) -> Padding:
    """The zeros on four sides of images `x`."""
    if given == VALID:
        return 0, 0, 0, 0
    if given != SAME:
        return padding(where, given)
    if x.type.rank != 4:
        raise ShapeError(f"{where}: input must be NHWC (rank 4), found {x.type}")
    top, bottom = _same(int(x.shape[1]), kernel[0], stride[0], dilation[0])
    return top, bottom, *_same(int(x.shape[2]), kernel[1], stride[1], dilation[1])


def _same(extent: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    made = -(-extent // stride)
    total = max((made - 1) * stride + (kernel - 1) * dilation + 1 - extent, 0)
    return total // 2, total - total // 2
