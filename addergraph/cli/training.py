"""The commands around a training: their options and help."""

from __future__ import annotations

from typing import Any

import click

from .options import FAILED, data, ends, example, normalize, threads, weights


@click.command(
    epilog=example(
        "  addergraph train --data digits --epochs 30 -o m.safetensors",
        "  addergraph train --model resnet20 --data cifar10:PATH --recipe cvpr2020 "
        "--epochs 400 --batch 256 --resume",
        "  addergraph train --model m.safetensors --quantize-bits 4 --recipe integers "
        "-o m4.safetensors",
    )
)
@data
@click.option(
    "--validation", metavar="NAME[:PATH]",
    help="Held-out images: the training part of this.  [default: the test part of --data]",
)  # fmt: skip
@click.option(
    "--model", "network", default="small-adder", show_default=True, metavar="NAME|FILE",
    help="A built-in network, as small-adder or resnet20; or a model file, to train on.",
)  # fmt: skip
@ends
@click.option(
    "--recipe", default="digits", show_default=True, metavar="NAME|FILE.toml",
    help="cvpr2020, digits, integers or quick; or a file as `addergraph recipe` prints it.",
)  # fmt: skip
@click.option("--epochs", type=click.IntRange(1), help="[default: the recipe's]")
@click.option("--batch", type=click.IntRange(1), help="[default: the recipe's]")
@click.option(
    "--learning-rate", type=float, help="At the start of the schedule.  [default: the recipe's]"
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True,
    help="Of the weights at the start, the order of the samples, and their augmentation.",
)  # fmt: skip
@click.option(
    "--quantize-bits", type=click.IntRange(2, 8), metavar="BITS",
    help="Train a model file on, rounding as integers of so many bits will.",
)  # fmt: skip
@threads
@click.option(
    "--engine", type=click.Choice(["native", "reference"]), default="native", show_default=True,
    help="Compiled code, or the same training step in NumPy (slow).",
)  # fmt: skip
@click.option(
    "--checkpoint", metavar="FOLDER",
    help="Checkpoints after each epoch, log.csv and log.jsonl.  [default: none; with --resume or "
    "--checkpoint-steps, OUTPUT with .run for .safetensors]",
)  # fmt: skip
@click.option(
    "--checkpoint-steps", type=click.IntRange(0), default=0, metavar="STEPS",
    help="Checkpoints within epochs, too, after so many steps.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on from the checkpoint, if there is one.")
@click.option(
    "-o", "--output", default="model.safetensors", show_default=True, metavar="FILE.safetensors"
)
def train(**options: Any) -> None:
    """Train a network and write it to a model file."""
    from .commands import train

    train.train(train.Training(**options))


@click.command(
    epilog=example(
        "  addergraph evaluate m.safetensors --data digits",
        "  addergraph evaluate q.safetensors --data cifar10:PATH --normalize statistics",
    )
)
@click.argument("file", metavar="MODEL")
@weights
@data
@normalize
@threads
def evaluate(**options: Any) -> None:
    """Print the accuracy on held-out images.

    MODEL is a model (.safetensors), one of integers that quantize made, or the text of a graph
    (.ag) with its weights. The images are the test part of the data; all of them where there is
    none. They have to enter as the network was trained on them, which train prints.
    """
    from .commands import evaluate

    evaluate.evaluate(evaluate.Evaluation(**options))


@click.command(epilog=example("  addergraph recipe cvpr2020 > my.toml"))
@click.argument("name", required=False)
def recipe(name: str | None) -> None:
    """Print a recipe as a file that train reads back.

    NAME is a built-in recipe or a file; without it they are listed.
    """
    from .commands import train

    train.show_recipe(name)


@click.command(epilog=example("  addergraph check resnet20 --batch 128"))
@click.argument("file")
@click.option(
    "--batch", type=click.IntRange(1),
    help="Also what a training with such batches needs of memory, and whether that is there.",
)  # fmt: skip
def check(file: str, batch: int | None) -> int:
    """Look for mistakes in a network, and say how to fix them.

    FILE is a model (.safetensors), the text of a graph (.ag), or the name of a network. The exit
    status is 1 when there is a finding.
    """
    from .commands import diagnose

    return 0 if diagnose.check(file, batch) else FAILED


@click.command(
    epilog=example(
        "  addergraph diagnose small-adder --data digits",
        "  addergraph diagnose m.safetensors --data digits --learning-rate 0.01 -o pictures",
    )
)
@click.argument("network", metavar="MODEL")
@data
@normalize
@click.option("--steps", type=click.IntRange(1), default=100, show_default=True)
@click.option(
    "--every", type=click.IntRange(1), default=5, show_default=True,
    help="Record the gradients once in so many steps.",
)  # fmt: skip
@click.option("--batch", type=click.IntRange(2), default=64, show_default=True)
@click.option("--learning-rate", type=float, default=0.1, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@threads
@click.option("-o", "--output", metavar="FOLDER", help="Write pictures and diagnosis.json there.")
def diagnose(**options: Any) -> None:
    """Show gradients, filters and activations, layer by layer.

    MODEL is a model file (.safetensors) or the name of a network. A copy of it is trained for some
    steps, during which gradients are recorded; filters and activations are those before.
    """
    from .commands import diagnose

    diagnose.diagnose(diagnose.Options(**options))


@click.command(epilog=example("  addergraph plot adder/log.csv conv/log.jsonl -o curves.png"))
@click.argument("logs", metavar="LOG...", nargs=-1, required=True)
@click.option("-o", "--output", required=True, metavar="FILE.png|svg|pdf")
def plot(logs: tuple[str, ...], output: str) -> None:
    """Draw training curves from logs.

    Each LOG is a .csv or .jsonl file with a row for each epoch, as train writes it.
    """
    from .commands import diagnose

    diagnose.plot(logs, output)


@click.command(
    name="import",
    epilog=example(
        "  addergraph import ResNet20-AdderNet.pth --network resnet20 -o resnet20.safetensors"
    ),
)
@click.argument("file")
@click.option(
    "--network", required=True, metavar="NAME",
    help="resnet20, resnet32, resnet18 or resnet50; resnet20-conv and so on for convolutions.",
)  # fmt: skip
@click.option("-o", "--output", required=True, metavar="FILE.safetensors")
def import_(**options: Any) -> None:
    """Turn a checkpoint of the authors' release into a model file.

    FILE is a state dict with the names of github.com/huawei-noah/AdderNet: .safetensors, or, where
    PyTorch is installed, .pth. All keys that are missing, unexpected or of a wrong shape are named.
    """
    from .commands import import_weights

    import_weights.import_weights(**options)
