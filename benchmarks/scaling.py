"""What several processes bring: measured times, and a model of what 2 to 256 nodes would take.

    python -m benchmarks.scaling steps [--network resnet20] [--batches 16 32 64 128]
    mpirun -n 2 python -m benchmarks.scaling allreduce
    mpirun -n 2 --bind-to none python -m benchmarks.scaling efficiency
    mpirun -n 2 --bind-to none python -m benchmarks.scaling overlap
    python -m benchmarks.scaling model [--cores 1]

`steps` measures a training step of one process (processor time of one thread, which neighbours on
the machine change least) and fits  t(b) = t0 + c b  to it. `allreduce` measures the exchange that
`fit` makes, of vectors up to 16 MiB. `efficiency` compares two processes of one thread with one
process of two threads at the same batch, in turns; while that runs, the other sleeps. `overlap`
compares steps whose gradients are exchanged in buckets, while others are computed, with such that
exchange all of them in the end; what neither can hide is the difference to a step without others.
`model` prints what these constants say of more nodes, for a batch B over p nodes and a gradient of
n bytes:

    T(p) = t0 + c B / p + A(n, p)
    A(n, 2) = alpha + beta n                                      both send all
    A(n, p) = 2 ceil(log2 p) (alpha + beta n)                     p = 3, or n below 64 KiB
    A(n, p) = 2 ceil(log2 p) alpha + 2 (p - 1) / p beta n         otherwise

That is a step that computes first and exchanges then; `fit` hides a part of it. The last two are
those that Open MPI chooses (its libnbc): a binomial tree up and down, and Rabenseifner's
reduce-scatter and all-gather. With synchronized statistics each batch norm adds four exchanges of a
few hundred bytes, A(512, p) each, and the step takes CUT times as long. A node is as fast as so
many of the cores that `steps` measured, an assumption from two cores on.
Source: Thakur, Rabenseifner, Gropp 2005, "Optimization of collective communication operations in
MPICH", International Journal of High Performance Computing Applications 19(1); Hockney 1994
(alpha and beta).
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from addergraph.training import SGD, launched
from addergraph.training.buckets import BUCKET
from addergraph.training.parallel import ParallelStep
from addergraph.training.replicas import Communicator, Replicas
from addergraph.training.step import TrainStep
from addergraph.zoo import build

NODES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
ALL = 1 << 40  # bytes: more than any gradient has
TOLD, NAP = 16_002, 2e-3  # tag of a message that ends a sleep; seconds between looks for it
CUT = 1.36  # a step with synchronized statistics fuses less: ResNet-20, 64 images, one process
SHAPES = {"resnet20": ((32, 32, 3), 10), "resnet50": ((224, 224, 3), 1000)}


@dataclass(frozen=True)
class Link:
    """alpha in s, beta in s a byte."""

    name: str
    alpha: float
    beta: float

    def allreduce(self, size: float, nodes: int) -> float:
        """Seconds of one of so many bytes."""
        if nodes <= 2:
            return (nodes - 1) * (self.alpha + self.beta * size)
        rounds = 2 * math.ceil(math.log2(nodes))
        if nodes == 3 or size < 65_536:
            return rounds * (self.alpha + self.beta * size)
        return rounds * self.alpha + 2 * (nodes - 1) / nodes * self.beta * size


@dataclass(frozen=True)
class Task:
    """A network on a data set; `fixed` and `image` in s, as `steps` measures them."""

    name: str
    fixed: float
    image: float
    gradient: int  # bytes that are exchanged
    norms: int
    images: int
    epochs: int
    batch: int  # of one process, and of all in strong scaling

    def step(self, batch: float, nodes: int, link: Link, synchronized: bool = False) -> float:
        """Seconds of a step of so many samples in all."""
        computed, exchanged = self.fixed + self.image * batch / nodes, 0.0
        if synchronized and nodes > 1:
            computed *= CUT
            exchanged = 4 * self.norms * link.allreduce(512, nodes)
        return computed + exchanged + link.allreduce(self.gradient, nodes)


# Ethernet: latency of TCP between two hosts in one rack, and 94 % of the line rate. Assumed.
LINKS = (
    Link("1 Gbit/s Ethernet", 50e-6, 8 / 0.94e9),
    Link("10 Gbit/s Ethernet", 25e-6, 8 / 9.4e9),
    Link("100 Gbit/s, RDMA", 2e-6, 8 / 94e9),
)
# Measured by `steps`: one thread of an Intel Xeon (family 6, model 207, AVX-512).
TASKS = (
    Task("ResNet-20 on CIFAR-10", 0.0, 3.77e-3, 4 * 274_072, 21, 50_000, 400, 256),
    Task("ResNet-50 on ImageNet", 98.9e-3, 416e-3, 4 * 25_614_152, 53, 1_281_167, 150, 256),
)


def best(call: Callable[[], object], count: int, clock: Callable[[], float]) -> float:
    """Seconds of the fastest of so many calls, behind one that warms up."""
    call()
    found = []
    for _ in range(count):
        start = clock()
        call()
        found.append(clock() - start)
    return min(found)


def fitted(sizes: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """a and b of a + b x, by least squares of relative errors; neither is negative."""
    x, y = np.asarray(sizes, float), np.asarray(seconds, float)
    rows = np.stack([1 / y, x / y], axis=1)
    (a, b), *_ = np.linalg.lstsq(rows, np.ones(len(x)), rcond=None)
    return max(float(a), 0.0), max(float(b), 0.0)


def step_of(
    network: str, batch: int, threads: int, replicas: Replicas | None = None, bucket: int = BUCKET
) -> Any:
    """A training step of a network, and a batch (this process's part of it) on which it runs."""
    shape, classes = SHAPES[network]
    model = build(network, shape, classes, 0)
    options: dict[str, Any] = {
        "label_smoothing": 0.0, "gradient": "full_precision", "engine": "native",
        "threads": threads, "seed": 0,
    }  # fmt: skip
    if replicas is None:
        step, own = TrainStep(model, batch, SGD(), **options), batch
    else:
        options |= {"replicas": replicas, "synchronize": False, "bucket": bucket}
        step, own = ParallelStep(model, batch, SGD(), **options), sum(replicas.sizes(batch))
    random = np.random.default_rng(0)
    x = random.normal(size=(own, *shape)).astype(np.float32)
    y = np.eye(classes, dtype=np.float32)[random.integers(0, classes, own)]
    return lambda: step.run([x], [y], 1e-6, batch)


def steps(options: argparse.Namespace) -> None:
    found = []
    for batch in options.batches:
        call = step_of(options.network, batch, 1)
        found.append(best(call, options.repeat, time.thread_time))
        print(f"batch {batch:4}: {1e3 * found[-1]:8.1f} ms, {batch / found[-1]:6.1f} images/s")
    fixed, image = fitted(options.batches, found)
    print(f"t(b) = {1e3 * fixed:.2f} ms + {1e3 * image:.3f} ms b")


def allreduce(options: argparse.Namespace) -> None:
    with Replicas(launched.communicator()) as replicas:
        sizes, found = [1 << k for k in range(6, 25, 2)], []
        for size in sizes:
            vector, out = np.ones(size // 4, np.float32), np.empty(size // 4, np.float32)
            shares = np.ones(replicas.parts, np.float32)
            call = functools.partial(replicas.mean, [vector], shares, out)
            mine = best(call, options.repeat, time.perf_counter)
            found.append(float(replicas.gather(np.array([mine])).max()))
            if replicas.is_first:
                print(f"{size:10,} bytes: {1e6 * found[-1]:10.1f} us")
        # The ends of the table: between them caches, and bursts that a network lets pass, show.
        alpha, beta = min(found[:3]), found[-1] / sizes[-1]
        if replicas.is_first:
            print(
                f"{replicas.size} processes: the smallest {1e6 * alpha:.1f} us, the largest "
                f"{1e-9 / beta:.3f} GB/s"
            )


def efficiency(options: argparse.Namespace) -> None:
    """Images a second of all processes with one thread each, over those of process 1 alone with as
    many threads as there are processes."""
    communicator = launched.communicator()
    with Replicas(communicator) as replicas:
        shared = step_of(options.network, options.batch, 1, replicas)
        alone = (
            step_of(options.network, options.batch, replicas.size) if replicas.is_first else None
        )
        ratios = []
        for turn in range(options.repeat):
            replicas.any(True)
            start = time.perf_counter()
            for _ in range(options.steps):
                shared()
            several = time.perf_counter() - start
            replicas.any(True)
            if alone is None:
                sleep_until_told(communicator)
                continue
            start = time.perf_counter()
            for _ in range(options.steps):
                alone()
            one = time.perf_counter() - start
            tell_others(communicator)
            ratios.append(one / several)
            print(
                f"turn {turn}: {replicas.size} processes {1e3 * several / options.steps:.1f} ms, "
                f"one with {replicas.size} threads {1e3 * one / options.steps:.1f} ms",
                flush=True,
            )
        if replicas.is_first:
            print(f"median ratio {np.median(ratios):.3f} at batch {options.batch}")


def overlap(options: argparse.Namespace) -> None:
    """Milliseconds of a step with buckets and with one exchange, in turns, and without any."""
    with Replicas(launched.communicator()) as replicas, Replicas(None) as alone:
        own = sum(replicas.sizes(options.batch))
        calls = {
            "buckets": step_of(options.network, options.batch, 1, replicas),
            "one exchange": step_of(options.network, options.batch, 1, replicas, ALL),
            "none": step_of(options.network, own, 1, alone),
        }
        found: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(options.repeat):
            for name, call in calls.items():
                replicas.any(True)
                start = time.perf_counter()
                for _ in range(options.steps):
                    call()
                found[name].append(1e3 * (time.perf_counter() - start) / options.steps)
        if replicas.is_first:
            medians = {name: float(np.median(times)) for name, times in found.items()}
            print(", ".join(f"{name} {took:.1f} ms" for name, took in medians.items()))


def sleep_until_told(communicator: Communicator | None) -> None:
    """Waits for `tell_others` of process 1 without the processor: whoever waits inside of MPI polls
    and takes time from what is measured."""
    assert communicator is not None, "process 1 is alone"
    while not communicator.Iprobe(0, TOLD):
        time.sleep(NAP)
    communicator.Recv(np.empty(1, np.uint8), 0, TOLD)


def tell_others(communicator: Communicator | None) -> None:
    """Ends the sleep of all other processes."""
    others = range(1, 1 if communicator is None else communicator.Get_size())
    for rank in others:
        communicator.Isend(np.zeros(1, np.uint8), rank, TOLD).Wait()


def model(options: argparse.Namespace) -> None:
    for one in TASKS:
        task = replace(one, fixed=one.fixed / options.cores, image=one.image / options.cores)
        print(f"\n{task.name}: {1e3 * task.fixed:.1f} ms + {1e3 * task.image:.2f} ms an image, "
              f"{task.gradient:,} bytes")  # fmt: skip
        for link in LINKS:
            print(f"  {link.name}: alpha {1e6 * link.alpha:g} us, {1e-9 / link.beta:.2f} GB/s")
            print(
                "  nodes | 256 in all: ms, speedup, days | 256 a node: ms, efficiency | "
                "256, synchronized: ms"
            )
            for nodes in NODES:
                print(_row(task, nodes, link))


def _row(task: Task, nodes: int, link: Link) -> str:
    strong = task.step(task.batch, nodes, link)
    weak = task.step(task.batch * nodes, nodes, link)
    synchronized = task.step(task.batch, nodes, link, synchronized=True)
    alone = task.step(task.batch, 1, link)
    days = strong * task.epochs * math.ceil(task.images / task.batch) / 86_400
    return (
        f"  {nodes:5} | {1e3 * strong:9.1f} {alone / strong:6.1f} {days:9.2f} | {1e3 * weak:9.1f} "
        f"{alone / weak:5.2f} | {1e3 * synchronized:9.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    made = commands.add_parser("steps")
    made.add_argument("--network", default="resnet20", choices=SHAPES)
    made.add_argument("--batches", type=int, nargs="+", default=[16, 32, 64, 128])
    made.add_argument("--repeat", type=int, default=5)
    made.set_defaults(run=steps)
    made = commands.add_parser("allreduce")
    made.add_argument("--repeat", type=int, default=200)
    made.set_defaults(run=allreduce)
    made = commands.add_parser("efficiency")
    made.add_argument("--network", default="resnet20", choices=SHAPES)
    made.add_argument("--batch", type=int, default=128)
    made.add_argument("--repeat", type=int, default=7)
    made.add_argument("--steps", type=int, default=5)
    made.set_defaults(run=efficiency)
    made = commands.add_parser("overlap")
    made.add_argument("--network", default="resnet20", choices=SHAPES)
    made.add_argument("--batch", type=int, default=128)
    made.add_argument("--repeat", type=int, default=7)
    made.add_argument("--steps", type=int, default=3)
    made.set_defaults(run=overlap)
    made = commands.add_parser("model")
    made.add_argument("--cores", type=int, default=1, help="of a node")
    made.set_defaults(run=model)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
