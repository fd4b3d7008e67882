"""CIFAR-10 with the adder ResNet-20, as in the AdderNet release (Chen et al., CVPR 2020).

    python examples/cifar_resnet20.py cifar10:~/data

The data set is not downloaded: docs/data.md says which file to get from where. A run survives
being killed: the same command goes on from the last checkpoint. The release reports
91.84 % after 400 epochs. At any time, `addergraph plot build/cifar/log.csv -o curves.png` draws the
curves so far.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from addergraph import zoo
from addergraph.data import load
from addergraph.diagnostics import pictures, plots, read_log
from addergraph.training.recipes import find


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("data", help="cifar10:PATH")
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--output", type=Path, default=Path("build/cifar"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    picture = options.output / "curves.png"
    pictures.require_picture(picture)

    data = load(options.data)
    recipe = dataclasses.replace(find("cvpr2020"), epochs=options.epochs, batch_size=options.batch)
    model = zoo.build("resnet20", data.shape, data.class_count)
    model.fit(
        data.x_train,
        data.y_train,
        data.x_test,
        data.y_test,
        **recipe.arguments(),
        normalize=recipe.data.normalization(data),
        checkpoint=options.output,
        resume=True,
    )
    model.save(options.output / "resnet20.safetensors")
    pictures.save(plots.plot_curves({"resnet20": read_log(options.output / "log.csv")}), picture)
    print(f"wrote resnet20.safetensors, log.csv and curves.png to {options.output}")


if __name__ == "__main__":
    main()
