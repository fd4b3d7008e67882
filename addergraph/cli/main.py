"""The command line: commands and help. What they do, and their options, is in `commands/` and
`bench/`, imported on use.

Exit status: 0 done, 1 a verification failed or a certificate is refused, 2 an error (one message
on stderr), 130 interrupted, 143 and 129 ended by SIGTERM and SIGHUP, which act as Ctrl-C does.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import click

from .. import __version__
from ..errors import (
    AdderGraphError,
    DataWarning,
    EnvironmentWarning,
    QuantizationWarning,
    RangeWarning,
)
from .options import Command, examples

ERROR, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line (`sys.argv` unless `arguments` are given) and ends the process."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may have letters that its encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings(), _ends_as_interrupts() as received:
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        status = _run(arguments)
    sys.exit(128 + received[0] if received else status)


@contextlib.contextmanager
def _ends_as_interrupts() -> Iterator[list[int]]:
    """Makes the signals that end a process raise KeyboardInterrupt, and tells which came: work is
    then left as Ctrl-C leaves it. Signals that are ignored, as by nohup, stay so."""
    received: list[int] = []

    def stop(number: int, frame: object) -> None:
        if not received:  # others are not to interrupt what is done about the first
            received.append(number)
            raise KeyboardInterrupt

    known = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        known = []  # Python handles signals in the main thread alone
    taken = [number for number in known if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _run(arguments: Sequence[str] | None) -> int:
    """The exit status. Errors that nobody foresaw pass through, with their traceback."""
    try:
        status = commands.main(arguments, prog_name="addergraph", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return ERROR
    except (click.Abort, KeyboardInterrupt):  # click's name for Ctrl-C
        _say("interrupted")
        return INTERRUPTED
    except AdderGraphError as error:
        _say(f"error: {error}")
        return ERROR
    except MemoryError as error:  # what nobody asked about before
        what = str(error) or "out of memory"
        _say(f"error: {what}; take fewer samples or a smaller batch")
        return ERROR
    except OSError as error:
        if error.filename is not None:  # else of a standard stream: ours have become StorageError
            raise
        _give_up_stdout()
        _say(f"error: cannot write the output: {error.strerror or error}")
        return ERROR
    return int(status or 0)


def _say(text: str) -> None:
    """On stderr, where there is one still."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def _give_up_stdout() -> None:
    """What is still to be written goes nowhere: Python would report it again at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_warning(message: Warning | str, category: type[Warning], *where: Any) -> None:
    """Warnings of our own in one line; others as Python shows them."""
    ours = RangeWarning | DataWarning | EnvironmentWarning | QuantizationWarning
    if issubclass(category, ours):
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
    epilog=examples(
        "addergraph train --data digits --model small-adder --output m.safetensors",
        "addergraph compile m.safetensors --output build",
        "addergraph verify m.safetensors",
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


for command in (
    Command(
        "train",
        "commands.train.train",
        "Train a network and write it to a model file.",
        "addergraph train --data digits --epochs 30 -o m.safetensors",
        "addergraph train --model resnet20 --data cifar10:PATH --recipe cvpr2020 --resume",
        "addergraph train --model m.safetensors --quantize-bits 4 --recipe integers "
        "-o m4.safetensors",
        "mpirun -n 4 addergraph train --model resnet20 --data cifar10:PATH --recipe cvpr2020",
        shares=True,
    ),
    Command(
        "recipe",
        "commands.train.show_recipe",
        """Print a recipe as a file that train reads back.

        NAME is a built-in recipe or a file; without it they are listed.
        """,
        "addergraph recipe cvpr2020 > my.toml",
    ),
    Command(
        "evaluate",
        "commands.evaluate.evaluate",
        """Print the accuracy on held-out images.

        MODEL is a model (.safetensors), an int8 model that quantize made, or the text of a
        graph (.ag) with its weights. The images are the test part of the data; all of them where
        there is none. They have to enter as the network was trained on them, which train prints.
        """,
        "addergraph evaluate m.safetensors --data digits",
        "addergraph evaluate q.safetensors --data cifar10:PATH --normalize statistics",
    ),
    Command(
        "predict",
        "commands.predict.predict",
        """Print the likeliest classes of images.

        MODEL is a model (.safetensors), or an int8 model that quantize made, that knows what a
        pixel is, as train writes it. An image is a PNG, JPEG, BMP or PPM file, an array (.npy, or
        .npz with x), or a folder, whose images are taken in the order of their names. The exit
        status is 1 when one cannot be read; the others are predicted all the same.
        """,
        "addergraph predict m.safetensors cat.png",
        "addergraph predict m.safetensors photos --top 5 --json",
    ),
    Command(
        "clip",
        "commands.clip.clip",
        """Bound the activations of a trained network from above.

        MODEL is a model (.safetensors). In the model that is written each relu is limited to a
        quantile of what it gives on training images. Compiled f32 networks are then faster: an
        adder layer behind it adds its input as it is where a filter is above the limit. The bounds
        are printed, and the accuracy before and after, on the validation part of the data or on
        the test part where there is none.
        """,
        "addergraph clip m.safetensors --data digits -o clipped.safetensors",
        "addergraph clip m.safetensors --data cifar10:PATH --quantile 0.9999 -o c.safetensors",
    ),
    Command(
        "quantize",
        "commands.quantize.quantize",
        """Quantize a trained network to an int8 model.

        MODEL is a model (.safetensors), or the text of a graph (.ag) with its weights. The file
        that is written can be given to compile, run, verify and inspect; run takes
        quantized images (u8) and returns i32 logits.
        """,
        "addergraph quantize m.safetensors --data digits -o q.safetensors",
        "addergraph quantize m.safetensors --data images.npz --bits 6 -o q.safetensors",
    ),
    Command(
        "summary",
        "commands.show.summary",
        """Print the layers: shapes, parameters, arithmetic, energy.

        FILE is a model (.safetensors), the text of a graph (.ag), or the name of a network;
        without it the built-in networks are listed.
        """,
        "addergraph summary resnet20",
        "addergraph summary resnet20 --first adder --last adder",
    ),
    Command(
        "check",
        "commands.diagnose.check",
        """Look for mistakes in a network, and say how to fix them.

        FILE is a model (.safetensors), the text of a graph (.ag), or the name of a network. The
        exit status is 1 when there is a finding.
        """,
        "addergraph check resnet20 --batch 128",
    ),
    Command(
        "diagnose",
        "commands.diagnose.diagnose",
        """Show gradients, filters and activations, layer by layer.

        MODEL is a model file (.safetensors) or the name of a network. A copy of it is trained for
        some steps, during which gradients are recorded; filters and activations are those before.
        """,
        "addergraph diagnose small-adder --data digits",
        "addergraph diagnose m.safetensors --data digits --learning-rate 0.01 -o pictures",
    ),
    Command(
        "plot",
        "commands.diagnose.plot",
        """Draw training curves from logs.

        Each LOG is a .csv or .jsonl file with a row for each epoch, as train writes it.
        """,
        "addergraph plot adder/log.csv conv/log.jsonl -o curves.png",
    ),
    Command(
        "import",
        "commands.import_weights.import_weights",
        """Turn an ONNX model or the authors' weights into a model.

        FILE is an ONNX model (.onnx), as PyTorch and others export it, or a state dict with the
        names of github.com/huawei-noah/AdderNet: .safetensors, or, where PyTorch is installed,
        .pth. Nodes that are not read here, and keys that are missing, unexpected or of a wrong
        shape, are named. ONNX models need the package onnx: pip install 'addergraph[onnx]'.
        """,
        "addergraph import ResNet20-AdderNet.pth --network resnet20 -o resnet20.safetensors",
        "addergraph import net.onnx -o net.safetensors",
        "addergraph import net.onnx --adders inner -o adders.safetensors",
    ),
    Command(
        "inspect",
        "commands.show.inspect",
        """Print the graph as declared and as compiled, or views of it.

        FILE is a model (.safetensors), the text of a graph (.ag), or the name of a network.
        """,
        "addergraph inspect small-adder",
        "addergraph inspect m.safetensors --plan --census",
        "addergraph inspect m.safetensors --after hoist",
        "addergraph inspect m.safetensors --svg graph.svg",
        "addergraph inspect m.safetensors --svg fused.svg --after fuse",
        "addergraph inspect m.safetensors --dot | dot -Tpdf > graph.pdf",
    ),
    Command(
        "compile",
        "commands.native.compile_library",
        """Write a C library: object, archive, header, example program.

        FILE is a model (.safetensors), the text of a graph (.ag), or the name of a network. With
        --train the library learns, too: a model's step of training is compiled with it.
        """,
        "addergraph compile m.safetensors --output build",
        "addergraph compile net.ag --weights net.npz -o build --target aarch64-linux-gnu",
        "addergraph compile q.safetensors -o build --board microbit --package arduino",
        "addergraph compile m.safetensors --train -o build --batch 4 --target thumbv7em-f32",
    ),
    Command(
        "export-onnx",
        "commands.export_onnx.export_onnx",
        """Write an ONNX model, which other runtimes execute.

        MODEL is a model (.safetensors), an int8 model that quantize made, the text of a graph
        (.ag), or the name of a network. Adder layers are functions of standard operators. Needs
        the package onnx: pip install 'addergraph[onnx]'.
        """,
        "addergraph export-onnx m.safetensors -o m.onnx",
        "addergraph export-onnx net.ag --weights net.npz -o net.onnx",
    ),
    Command(
        "size",
        "commands.size.size",
        """Print what a compiled library takes of flash, RAM and stack.

        LIBRARY_OR_FOLDER is a static library that compile wrote (.a), or its folder. The exit
        status is 1 when it has no room on the board.
        """,
        "addergraph size build --board microbit",
    ),
    Command(
        "certify",
        "commands.certify.certify",
        """Check that compiled code multiplies nothing.

        FILE is an object, a static archive or a shared library for x86-64, AArch64, Thumb or
        RISC-V, or a module of WebAssembly (.wasm). Every instruction is decoded; it must be known
        and must not multiply. Needs capstone but for WebAssembly: pip install
        'addergraph[certify]'. The exit status is 1 when something is refused.
        """,
        "addergraph certify build/libnet.a",
        "addergraph certify build/net.wasm",
        "addergraph certify firmware/net.o --json net.certificate.json",
    ),
    Command(
        "run",
        "commands.native.run",
        """Run a network on arrays from a file.

        FILE is a model (.safetensors), the text of a graph (.ag), or the name of a network.
        """,
        "addergraph run m.safetensors --input x.npz --output y.npz",
        "addergraph run --native build --input x.npz --output y.npz",
    ),
    Command(
        "verify",
        "commands.native.verify",
        """Compare native code with the NumPy reference.

        FILE is a model (.safetensors), the text of a graph (.ag), or the name of a network. The
        exit status is 1 when an output differs by more than rounding can explain, or with
        --layers a layer, of which the first is named.
        """,
        "addergraph verify m.safetensors",
        "addergraph verify m.safetensors --native build --samples 1000",
        "addergraph verify m.safetensors --layers --plot errors.png",
    ),
    Command(
        "demo",
        "commands.demo.demo",
        """Draw digits in the browser, and see a network read them.

        Serves a page to this machine, on which an int8 network, compiled to WebAssembly, answers
        while you draw and shows what its layers give, and to which you can teach signs. MODEL is a
        model of adders alone that was trained on --data digits (train --model all-adder), or an
        int8 model that quantize made from one, which cannot be taught; without it one is trained
        first. Needs wasm-ld (Debian: apt-get install lld).
        """,
        "addergraph demo",
        "addergraph demo q.safetensors --write page",
    ),
    Command(
        "bench",
        "bench.bench.run",
        """Time an image in NumPy and natively, beside the peak.

        FILE is a model (.safetensors), the text of a graph (.ag), or the name of a network;
        small-adder where it is not given. The exit status is 1 when a measured share of the peak
        is above 1.
        """,
        "addergraph bench m.safetensors --batch 1 --threads 1",
        "addergraph bench m.safetensors --profile",
        "addergraph bench --layers --plot roofline.png",
        "addergraph bench --layers --dtype u8 --threads all --only ResNet-20",
        "addergraph bench --layers --weights m.safetensors",
        "addergraph bench --layers --tune 60",
    ),
    Command(
        "cache",
        "commands.cache.cache",
        """Say where compiled code is kept and how much it is.

        The folder is that of the user's caches, or the one that ADDERGRAPH_CACHE names; nothing is
        kept where that is empty. A folder or file that others may write is never used.
        """,
        "addergraph cache --clear",
    ),
):
    commands.add_command(command)
