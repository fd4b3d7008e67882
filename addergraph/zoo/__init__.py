"""Networks by name: `zoo.build("resnet20")` is an untrained Model, `zoo.NETWORKS` lists them."""

from .form import Form
from .networks import NETWORKS, Network, build

__all__ = ["NETWORKS", "Form", "Network", "build"]
