"""What the benchmarks of layers time and how: shapes, chains, slopes."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from ...errors import DataError

ROUNDS = 3  # times that each program runs at least, each time it has a turn
TURN = 0.005  # seconds of calls of one program, where others have threads that take time to sleep
VISITS = 3  # turns that each layer and each of its peers has
MOST_VISITS = 12  # where the slope of a layer comes out impossible


@dataclass(frozen=True)
class Layer:
    """A windowed layer as networks have them: square images, padding that keeps odd kernels' size.

    network  where the layer is from; size: height and width of the input image
    beside   not to be chained, although the shape would
    """

    network: str
    inputs: int
    size: int
    outputs: int
    kernel: int
    stride: int = 1
    beside: bool = False

    @property
    def padding(self) -> int:
        return self.kernel // 2

    @property
    def made(self) -> int:
        """Height and width of the output."""
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def chains(self) -> bool:
        """Whether programs chain the layer: its output has its input's shape."""
        return self.inputs == self.outputs and self.stride == 1 and not self.beside

    @property
    def counts(self) -> tuple[int, ...]:
        """How many layers the programs have whose times give the slope. Side by side each has a
        filter of its own, and more than four of the largest would not stay in the cache."""
        return (1, 2, 4, 8) if self.chains else (1, 2, 3, 4)

    @property
    def filters(self) -> int:
        """Different filters in the largest program: a chain is of identical layers."""
        return 1 if self.chains else max(self.counts)

    @property
    def window(self) -> int:
        """Taps of one filter: the reduction length of one output."""
        return self.kernel * self.kernel * self.inputs

    def terms(self, batch: int) -> int:
        """|x - f| (or multiply-adds) of a batch, those on padding included."""
        return batch * self.made * self.made * self.outputs * self.window

    def __str__(self) -> str:
        stride = f" /{self.stride}" if self.stride > 1 else ""
        image = f"{self.inputs}x{self.size}x{self.size}"
        return f"{image} -> {self.outputs}, {self.kernel}x{self.kernel}{stride}"


def _resnet(network: str, widths: tuple[int, ...], size: int) -> list[Layer]:
    """The distinct layers of a network of basic blocks whose first stage sees `size` pixels."""
    made = [Layer(network, widths[0], size, widths[0], 3)]
    for narrow, wide in itertools.pairwise(widths):
        made += [
            Layer(network, narrow, size, wide, 3, 2),
            Layer(network, narrow, size, wide, 1, 2),
            Layer(network, wide, size // 2, wide, 3),
        ]
        size //= 2
    return made


# The 7x7 stem of ResNet-18 is neither 3x3 nor 1x1.
LAYERS = (
    Layer("ResNet-20", 3, 32, 16, 3),
    *_resnet("ResNet-20", (16, 32, 64), 32),
    *_resnet("ResNet-18", (64, 128, 256, 512), 56),
)


@dataclass(frozen=True)
class Timing:
    """Seconds: the best and the median of many runs."""

    best: float
    median: float


class Slope:
    """Seconds that one more layer takes: the least-squares line through (layers, time of a call).

    programs  number of layers -> a call that runs them
    threads   of each call
    """

    def __init__(self, programs: Mapping[int, Callable[[], object]], threads: int = 1) -> None:
        self._programs, self._turn = programs, TURN if threads > 1 else 0.0
        self._times: dict[int, list[float]] = {count: [] for count in programs}
        for call in programs.values():
            call()

    def run(self, seconds: float) -> None:
        """Times the programs for `seconds`, ROUNDS times at least. They take turns, so that a slow
        spell of the machine meets them all."""
        end = time.perf_counter() + seconds
        rounds = 0
        while rounds < ROUNDS or time.perf_counter() < end:
            rounds += 1
            for count, call in self._programs.items():
                self._times[count] += _calls(call, self._turn)

    @property
    def timing(self) -> Timing:
        """Of all runs so far."""
        return Timing(
            line_slope({n: min(t) for n, t in self._times.items()}),
            line_slope({n: median(t) for n, t in self._times.items()}),
        )


def _calls(call: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each call, of one at least."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keeps this thread, and all that it starts, on the last `threads` of its processors.

    DataError where it has fewer; without effect where the system pins nothing.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    if threads > len(allowed):
        raise DataError(
            f"{threads} threads want as many processors, this process has {len(allowed)}: "
            "ask for fewer --threads"
        )
    os.sched_setaffinity(0, sorted(allowed)[-threads:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def line_slope(points: Mapping[int, float]) -> float:
    """The slope of the least-squares line through the points."""
    x0, y0 = sum(points) / len(points), sum(points.values()) / len(points)
    return sum((x - x0) * (y - y0) for x, y in points.items()) / sum((x - x0) ** 2 for x in points)
