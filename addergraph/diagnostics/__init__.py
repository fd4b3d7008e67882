"""What a training run does and what a network confuses, as numbers and as pictures:
docs/diagnostics.md.

The numbers are NumPy; `pictures` needs matplotlib, the extra `addergraph[plot]`.
"""

from ..training.logs import read_log
from .activations import Activation, activations
from .diagnosis import Diagnosis, diagnose
from .distributions import Fit, Shape, shape_of
from .gradients import GradientHistory, GradientProbe, Recording, record_gradients, vanished
from .mistakes import Confusion, Mistake, confusion, worst_mistakes

__all__ = [
    "Activation", "Confusion", "Diagnosis", "Fit", "GradientHistory", "GradientProbe", "Mistake",
    "Recording", "Shape", "activations", "confusion", "diagnose", "read_log", "record_gradients",
    "shape_of", "vanished", "worst_mistakes",
]  # fmt: skip
