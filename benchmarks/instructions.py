"""Instructions that a library executes for an image, counted by an emulator.

    python -m benchmarks.instructions q.safetensors       # as `addergraph quantize` writes it
    python -m benchmarks.instructions m.safetensors --float --targets aarch64-linux-gnu

Exports the network for each target, links it with examples/boards/linux.c into a static program,
and runs that under qemu-user with a plugin that counts (instructions.c): for one image and for
three, of zeros, half of whose difference it prints. A target that cannot have the network is left
out, with the reason. Of x86-64 the programs are those of the C compiler. Needs clang, lld,
qemu-user, which has no AVX-512, and a C compiler for this machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import addergraph as ag
from addergraph import compiler
from addergraph.errors import UnsupportedError
from addergraph.quantization import load_quantized
from addergraph.tables import Table
from tests.codegen.boards import LINUX, SOURCES, USER, static_program

HERE = Path(__file__).parent
DEFAULT = ("x86-64", "x86-64-v3", *(LINUX if "--float" in sys.argv else USER))
MAIN = """
#include "net.h"
#include "board.h"
static unsigned char in[1 << 22] __attribute__((aligned(64)));
static unsigned char out[1 << 16] __attribute__((aligned(64)));
static unsigned char arena[NET_ARENA_BYTES] __attribute__((aligned(NET_ARENA_ALIGN)));
int main(void)
{
    for (int i = 0; i < IMAGES; i++)
        if (net_run((const void *)in, (void *)out, arena) != 0)
            return 1;
    return 0;
}
"""


def plugin(folder: Path) -> Path:
    made = folder / "instructions.so"
    run("cc", "-shared", "-fPIC", "-O2", "-o", made, HERE / "instructions.c")
    return made


def run(*command: str | Path) -> str:
    """What the command prints as errors; ends the program where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        sys.exit(f"{command[0]} is not on the PATH")
    if done.returncode != 0:
        sys.exit(f"{command[0]}: {done.stderr.strip()[:500] or done.returncode}")
    return done.stderr


def executed(folder: Path, target: str, images: int, counts: Path) -> int:
    (folder / "main.c").write_text(MAIN)
    program, library = folder / f"run{images}", folder / "libnet.a"
    emulator = USER.get(target, ("", "qemu-x86_64 -cpu max"))[1].split()
    if target in USER:
        static_program(target, folder, library, program, f"-DIMAGES={images}")
    else:
        options = "-static", f"-I{folder}", f"-I{SOURCES}", f"-DIMAGES={images}"
        run("cc", *options, "-o", program, folder / "main.c", library)
    return int(run(*emulator, "-plugin", counts, program).split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file")
    parser.add_argument("--float", action="store_true", help="a model in f32, not one in integers")
    parser.add_argument("--targets", default=",".join(DEFAULT))
    options = parser.parse_args()
    found = ag.Model.load(options.file) if options.float else load_quantized(options.file)
    graph = found.graph(training=False) if isinstance(found, ag.Model) else found.graph
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        counts = plugin(Path(scratch))
        for target in options.targets.split(","):
            folder = Path(scratch) / target
            try:
                compiler.export(graph, folder, weights=found.weights, target=target, name="net")
            except (
                UnsupportedError
            ) as error:  # a core without a multiplier, a network that needs it
                print(error, file=sys.stderr)
                continue
            one, three = (executed(folder, target, images, counts) for images in (1, 3))
            rows.append([target, f"{(three - one) / 2e6:.3f}"])
    print("\n".join(Table(("target", "M instructions"), rows, words={"target"}).lines()))


if __name__ == "__main__":
    main()
