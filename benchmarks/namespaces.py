"""The exchange of gradients over a network that is made on this machine.

    sudo env "PATH=$PATH" python -m benchmarks.namespaces [--rate 1gbit] [--delay 50us] [--overlap]

Each of two processes is in a network namespace of its own; a pair of virtual Ethernet devices joins
them, which `tc` limits to a rate in each direction (tbf) and, where the kernel has netem, delays.
What runs is `benchmarks/scaling.py allreduce`, or `overlap`, under Open MPI, over TCP. Two
processes need a processor each: on a shared one they measure each other. The namespaces are removed
again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
NAMES = ("addergraph0", "addergraph1")
SUBNET = "10.249.77"


def sh(command: str) -> None:
    subprocess.run(command.split(), check=True)


def connected(rate: str, delay: str | None) -> None:
    """Two namespaces with a device in each."""
    first, second = NAMES
    for name in NAMES:
        sh(f"ip netns add {name}")
        sh(f"ip -n {name} link set lo up")
    sh(f"ip link add ag0 netns {first} type veth peer name ag1 netns {second}")
    for number, name in enumerate(NAMES):
        sh(f"ip -n {name} addr add {SUBNET}.{number + 1}/24 dev ag{number}")
        sh(f"ip -n {name} link set ag{number} up")
        inside = f"ip netns exec {name} tc qdisc add dev ag{number}"
        if delay is None:
            sh(f"{inside} root tbf rate {rate} burst 128kb latency 50ms")
        else:
            sh(f"{inside} root netem rate {rate} delay {delay}")


def measured(command: str) -> None:
    """What a command of `benchmarks.scaling` measures, over TCP through the devices."""
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder) / "inside"
        inside.write_text('#!/bin/sh\nexec ip netns exec addergraph"$OMPI_COMM_WORLD_RANK" "$@"\n')
        inside.chmod(0o755)
        beside = Path(sys.executable).parent / "mpirun"
        mpirun = str(beside) if beside.exists() else shutil.which("mpirun")
        here = "--allow-run-as-root --oversubscribe --bind-to none -n 2"
        wires = f"--mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include {SUBNET}.0/24"
        server = "--prtemca if_include ag0 --mca ptl_base_if_include ag0"
        sh(
            f"ip netns exec {NAMES[0]} {mpirun} {here} {wires} {server} -x PYTHONPATH={ROOT} "
            f"{inside} {sys.executable} -m benchmarks.scaling {command}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--delay", help="one way, as 50us; needs netem")
    parser.add_argument("--repeat", type=int, default=30, help="of each all-reduce")
    parser.add_argument("--overlap", action="store_true", help="training steps instead")
    options = parser.parse_args()
    if os.getuid():
        parser.error("namespaces need root")
    try:
        connected(options.rate, options.delay)
        measured("overlap" if options.overlap else f"allreduce --repeat {options.repeat}")
    finally:
        for name in NAMES:  # its devices go with it
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
