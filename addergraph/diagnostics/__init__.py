"""What a training run does, as numbers and as pictures: docs/diagnostics.md.

The numbers are NumPy; `pictures` needs matplotlib, the extra `addergraph[plot]`.
"""

from ..training.logs import read_log
from .activations import Activation, activations
from .diagnosis import Diagnosis, diagnose
from .distributions import Fit, Shape, shape_of
from .gradients import GradientHistory, GradientProbe, Recording, record_gradients, vanished

__all__ = [
    "Activation", "Diagnosis", "Fit", "GradientHistory", "GradientProbe", "Recording", "Shape",
    "activations", "diagnose", "read_log", "record_gradients", "shape_of", "vanished",
]  # fmt: skip
