"""The command line: options and help. What the commands do is in `commands/`, imported on use.

Exit status: 0 done, 1 a verification failed or a certificate is refused, 2 an error (one message
on stderr), 130 interrupted.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click

from .. import __version__
from ..errors import AdderGraphError, DataWarning, RangeWarning
from .options import (  # fmt: skip
    FAILED,
    Threads,
    batch,
    ends,
    example,
    normalize,
    one_thread,
    target,
    waiting_threads,
    weights,
)
from .training import check, diagnose, evaluate, import_, plot, recipe, train

ERROR, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line (`sys.argv` unless `arguments` are given) and ends the process."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    """The exit status. Errors that nobody foresaw pass through, with their traceback."""
    try:
        status = commands.main(arguments, prog_name="addergraph", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return ERROR
    except click.Abort:  # click's name for Ctrl-C
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except AdderGraphError as error:
        click.echo(f"error: {error}", err=True)
        return ERROR
    except MemoryError as error:  # what nobody asked about before
        what = str(error) or "out of memory"
        click.echo(f"error: {what}; take fewer samples or a smaller batch", err=True)
        return ERROR
    return int(status or 0)


def _show_warning(message: Warning | str, category: type[Warning], *where: Any) -> None:
    """Warnings about the network and the data in one line; others as Python shows them."""
    if issubclass(category, RangeWarning | DataWarning):
        click.echo(f"warning: {message}", err=True)
    else:
        click.echo(warnings.formatwarning(message, category, *where[:2]), err=True, nl=False)


class _InOrder(click.Group):
    """Lists the commands in the order of their declaration, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=example(
        "  addergraph train --data digits --model small-adder --output m.safetensors",
        "  addergraph compile m.safetensors --output build",
        "  addergraph verify m.safetensors",
    ),
)
@click.version_option(__version__, prog_name="addergraph")
def commands() -> None:
    """AdderGraph: train adder networks and compile them to native code.

    An adder layer compares an input with its filters by the sum of absolute differences, where a
    convolution multiplies. Commands read a model file (.safetensors), the text of a graph (.ag), or
    take the name of a built-in network, such as small-adder, lenet5_bn or resnet20: summary alone
    lists them.
    """


commands.add_command(train)
commands.add_command(recipe)
commands.add_command(evaluate)


@commands.command(
    epilog=example(
        "  addergraph quantize m.safetensors --data digits -o q.safetensors",
        "  addergraph quantize m.safetensors --data images.npz --bits 6 -o q.safetensors",
    )
)
@click.argument("file", metavar="MODEL")
@weights
@click.option(
    "--data", required=True, metavar="NAME[:PATH]",
    help="Samples to calibrate on: the training images of this, as for train; or FILE.npz with an "
    "array x and no labels, taken as it is.",
)  # fmt: skip
@normalize
@click.option(
    "--samples", type=click.IntRange(1), default=256, show_default=True,
    help="How many of them, from the start.",
)  # fmt: skip
@click.option(
    "--bits", type=click.IntRange(2, 8), help="[default: 8, or what the model was trained for]"
)
@click.option(
    "--requantize", type=click.Choice(["shift", "multiply"]), default="shift", show_default=True,
    help="Factors as sums of powers of two, or an integer product each.",
)  # fmt: skip
@click.option(
    "--terms", type=click.IntRange(1, 3),
    help="Powers of two in a factor.  [default: the fewest that serve]",
)  # fmt: skip
@click.option(
    "--quantile", type=click.FloatRange(0.5, 1.0, min_open=True), default=0.9997, show_default=True,
    help="Of an activation's values that its range has to hold.",
)  # fmt: skip
@click.option(
    "--reestimate/--no-reestimate", default=True, show_default=True,
    help="Move batch norms' statistics by what quantization changed.",
)  # fmt: skip
@click.option("-o", "--output", required=True, metavar="FILE.safetensors")
def quantize(**options: Any) -> None:
    """Make a trained network of adder layers one of integers alone.

    MODEL is a model (.safetensors), or the text of a graph (.ag) with its weights. The file that is
    written can be given to compile, run, verify and inspect; run takes the bytes that stand for an
    image. It answers with logits in i32.
    """
    from .commands import quantize

    quantize.quantize(quantize.Quantization(**options))


@commands.command(
    epilog=example(
        "  addergraph summary resnet20",
        "  addergraph summary resnet20 --first adder --last adder",
    )
)
@click.argument("file", required=False)
@ends
def summary(file: str | None, **options: Any) -> None:
    """Print the layers: shapes, parameters, arithmetic, energy.

    FILE is a model (.safetensors), the text of a graph (.ag), or the name of a network; without it
    the built-in networks are listed.
    """
    from .commands import show

    if file is None:
        show.networks()
    else:
        show.summary(file, **options)


commands.add_command(check)
commands.add_command(diagnose)
commands.add_command(plot)
commands.add_command(import_)


@commands.command(
    epilog=example(
        "  addergraph inspect small-adder",
        "  addergraph inspect m.safetensors --plan --census",
        "  addergraph inspect m.safetensors --dot | dot -Tsvg > graph.svg",
    )
)
@click.argument("file")
@click.option("--passes", is_flag=True, help="Print the graph after each pass.")
@click.option("--plan", is_flag=True, help="Print what stands where in the arena.")
@click.option("--census", is_flag=True, help="Count the instructions of the kernels, by kind.")
@click.option("--dot", is_flag=True, help="Print the declared graph in DOT, and nothing else.")
@batch
@target
def inspect(file: str, **options: Any) -> None:
    """Print the graph as declared and as compiled, or views of it.

    FILE is a model (.safetensors), the text of a graph (.ag), or the name of a network.
    """
    from .commands import show

    show.inspect(file, show.Inspection(**options))


@commands.command(
    name="compile",
    epilog=example(
        "  addergraph compile m.safetensors --output build",
        "  addergraph compile net.ag --weights net.npz -o build --target aarch64-linux-gnu",
    ),
)
@click.argument("file")
@click.option("-o", "--output", "folder", required=True, metavar="FOLDER", help="Made if need be.")
@click.option("--name", help="Of the library and its functions.  [default: the graph's]")
@weights
@batch
@target
@click.option(
    "--tune-for", metavar="CPU",
    help="Choose kernels for this machine: an x86 CPU name, generic or host. The code runs on "
    "every machine of the target.  [default: the CPU that --target names, else generic]",
)  # fmt: skip
@click.option(
    "--multiplication-free", is_flag=True,
    help="Refuse a network that needs a product anywhere, and shift and add all addresses.",
)  # fmt: skip
def compile_(**options: Any) -> None:
    """Write a C library: object, archive, header, example program.

    FILE is a model (.safetensors), the text of a graph (.ag), or the name of a network.
    """
    from .commands import native

    native.compile_library(**options)


@commands.command(
    epilog=example(
        "  addergraph certify build/libnet.a",
        "  addergraph certify firmware/net.o --json net.certificate.json",
    )
)
@click.argument("file")
@click.option(
    "--json", metavar="FILE.json", help="The certificate.  [default: certificate.json beside FILE]"
)
def certify(**options: Any) -> int:
    """Check that compiled code multiplies nothing.

    FILE is an object, a static archive or a shared library for x86-64, AArch64, Thumb or RISC-V.
    Every instruction is decoded and must be known and no product. Needs capstone:
    pip install 'addergraph[certify]'. The exit status is 1 when something is refused.
    """
    from .commands import certify as command

    return 0 if command.certify(**options) else FAILED


@commands.command(
    epilog=example(
        "  addergraph run m.safetensors --input x.npz --output y.npz",
        "  addergraph run --native build --input x.npz --output y.npz",
    )
)
@click.argument("file", required=False)
@click.option("--native", "folder", metavar="FOLDER", help="An exported library: runs its code.")
@click.option(
    "-i", "--input", "inputs", required=True, metavar="X.npz", help="Arrays named as the inputs."
)
@click.option("-o", "--output", required=True, metavar="Y.npz", help="Arrays named as the outputs.")
@weights
@click.option(
    "--engine", type=click.Choice(["native", "reference"]), default="native", show_default=True
)
@one_thread
def run(**options: Any) -> None:
    """Run a network on arrays from a file.

    FILE is a model (.safetensors), the text of a graph (.ag), or the name of a network.
    """
    from .commands import native

    native.run(**options)


@commands.command(
    epilog=example(
        "  addergraph verify m.safetensors",
        "  addergraph verify m.safetensors --native build --samples 1000",
        "  addergraph verify m.safetensors --layers --plot errors.png",
    )
)
@click.argument("file")
@weights
@click.option("--native", "folder", metavar="FOLDER", help="Check this exported library instead.")
@click.option(
    "--input", "inputs", metavar="X.npz", help="Samples to compare on.  [default: random ones]"
)
@click.option(
    "--samples", type=click.IntRange(1),
    help="Random samples.  [default: 100 for the outputs, 16 for --layers]",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@batch
@target
@one_thread
@click.option("--layers", is_flag=True, help="Also each layer, on the inputs that it has there.")
@click.option("--plot", metavar="FILE.png", help="Draw the error of each layer.")
def verify(file: str, **options: Any) -> int:
    """Compare native code with the NumPy reference.

    FILE is a model (.safetensors), the text of a graph (.ag), or the name of a network.
    The exit status is 1 when an output differs by more than rounding can explain, or with --layers
    a layer, of which the first is named.
    """
    from .commands import native

    return 0 if native.verify(file, native.Verification(**options)) else FAILED


@commands.command(
    epilog=example(
        "  addergraph bench m.safetensors --batch 1 --threads 1",
        "  addergraph bench m.safetensors --profile",
        "  addergraph bench --layers --plot roofline.png",
        "  addergraph bench --layers --dtype u8 --threads all --only ResNet-20",
        "  addergraph bench --layers --tune 60",
    )
)
@click.argument("file", required=False)
@weights
@click.option(
    "--batch", type=click.IntRange(1), help="Images of a call.  [default: 64; of a profile: 1]"
)
@click.option(
    "--threads", type=Threads(), metavar="N|all", callback=waiting_threads,
    help="Threads of a call.  [default: 1 and all; of --layers: 1]",
)  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(0.0), default=2.0, show_default=True,
    help="How long to time each program.",
)  # fmt: skip
@target
@click.option("--profile", is_flag=True, help="Time each kernel inside the network, and alone.")
@click.option(
    "--tune", type=click.FloatRange(0.0), metavar="SECONDS",
    help="Search for the fastest kernels; compare with those that are chosen without.",
)  # fmt: skip
@click.option(
    "--layers", is_flag=True,
    help="Time the layers of ResNet-20 and ResNet-18, beside PyTorch and ONNX Runtime.",
)  # fmt: skip
@click.option(
    "--dtype", type=click.Choice(["f32", "u8", "u6"]),
    help="Operands of the layers; u8, and u6 (6 bits), beside int8 convolutions.  [default: f32]",
)  # fmt: skip
@click.option("--only", metavar="TEXT", help="The layers that hold this, as 'ResNet-20' or '64x8'.")
@click.option("--peers/--no-peers", default=True, show_default=True, help="Time convolutions, too.")
@click.option("--json", metavar="FILE.json", help="Write what --layers measures.")
@click.option("--markdown", metavar="FILE.md", help="Write its tables.")
@click.option("--plot", metavar="FILE.png", help="Draw the layers under the machine's roofline.")
def bench(**options: Any) -> int:
    """Time an image in NumPy and natively, beside the measured peak.

    FILE is a model (.safetensors), the text of a graph (.ag), or the name of a network; small-adder
    where it is not given. The exit status is 1 when a measured share of the peak is above 1.
    """
    from .bench import bench

    return 0 if bench.run(**options) else FAILED
