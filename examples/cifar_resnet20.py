"""CIFAR-10 with the adder ResNet-20, as in the AdderNet release (Chen et al., CVPR 2020).

    python examples/cifar_resnet20.py cifar10:~/data --epochs 400 --batch 256

The data set is not downloaded: docs/data.md says which file to get from where. Look at val_accuracy
in the log: it jumps about while the learning rate is high, because the running statistics of the
batch norms lag behind filters that move by a fixed distance each step, and settles in the last
quarter, where the cosine nears 0. The release reports 91.84 % after 400 epochs. At any time,
`addergraph plot build/cifar/log.csv -o curves.png` draws the curves so far; `addergraph check
resnet20 --batch 256` says what it needs of memory.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from addergraph import Model, zoo
from addergraph.data import Augment, Loader, load
from addergraph.diagnostics import pictures, plots, read_log
from addergraph.training.schedules import cosine


def epoch(step: object, loader: Loader, labels: np.ndarray, number: int, rate: float) -> float:
    """One epoch of training; the mean loss."""
    total = 0.0
    for x, index in loader.epoch(number):
        loss, _ = step(x, labels[index], rate)  # type: ignore[operator]
        if not np.isfinite(loss):
            raise SystemExit(f"the loss is {loss}: lower --learning-rate")
        total += loss * len(index)
    return total / len(labels)


def trained(options: argparse.Namespace, log: Path) -> Model:
    """The network after the last epoch; a row of `log` for each."""
    data = load(options.data)
    model = zoo.build("resnet20", data.shape, data.class_count)
    normalize = data.normalize()
    loader = Loader(
        data.x_train,
        batch_size=options.batch,
        augment=Augment(padding=4, flip=0.5),
        normalize=normalize,
    )
    x_test = normalize.apply(data.x_test)
    step = model.train_step(min(options.batch, len(data.x_train)))
    schedule = cosine(options.learning_rate, options.epochs)
    log.write_text("epoch,learning_rate,loss,val_loss,val_accuracy,images_per_second\n")
    for number in range(options.epochs):
        start = time.perf_counter()
        loss = epoch(step, loader, data.y_train, number, schedule(number))
        speed = len(data.x_train) / (time.perf_counter() - start)
        found = model.evaluate(x_test, data.y_test)
        row = (number + 1, schedule(number), loss, found["loss"], found["accuracy"], speed)
        with log.open("a") as file:
            file.write(",".join(map(repr, row)) + "\n")
        print(f"epoch {number + 1}: loss {loss:.4f}, val_accuracy {found['accuracy']:.4f}")
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("data", help="cifar10:PATH")
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--output", type=Path, default=Path("build/cifar"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    log = options.output / "log.csv"
    pictures.require_picture(options.output / "curves.png")

    model = trained(options, log)
    model.save(options.output / "resnet20.safetensors")
    pictures.save(plots.plot_curves({"resnet20": read_log(log)}), options.output / "curves.png")
    print(f"wrote resnet20.safetensors, log.csv and curves.png to {options.output}")


if __name__ == "__main__":
    main()
