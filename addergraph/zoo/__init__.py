"""Networks by name: `zoo.build("small-adder")` is an untrained Model, `zoo.NETWORKS` lists them."""

from .small import NETWORKS, Network, build

__all__ = ["NETWORKS", "Network", "build"]
