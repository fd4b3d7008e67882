"""Transfer: a checkpoint of the AdderNet release, fine-tuned on handwritten digits.

    python examples/transfer.py ResNet20-AdderNet.pth

The digits become images like those of CIFAR: 32x32, three equal channels, mean 0 and deviation 1.
All layers start from the checkpoint but the last, which knows other classes. Each line has the
accuracy on the test images after each epoch. With --from-scratch a second line is of the same
network without the checkpoint: what the import is worth is the distance between the two.
"""

from __future__ import annotations

import argparse

import numpy as np

from addergraph import Model, zoo
from addergraph.cli.commands.import_weights import imported
from addergraph.data import digits
from addergraph.training.schedules import cosine

SHAPE = (32, 32, 3)


def like_cifar(x: np.ndarray) -> np.ndarray:
    """Images f32[N,8,8,1] in 0..1 as f32[N,32,32,3] of mean 0 and deviation 1."""
    grey = (x - 0.305) / 0.376  # mean and deviation of the digits' pixels
    return grey.repeat(4, axis=1).repeat(4, axis=2).repeat(3, axis=3).astype(np.float32)


def with_weights_of(source: Model, classes: int) -> Model:
    """A network for `classes` classes with the weights of `source` in all layers but the last."""
    model = zoo.build(source.name, SHAPE, classes)
    kept = {name: a for name, a in source.weights.items() if not name.startswith("last")}
    model.weights = model.weights | kept
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("checkpoint", help=".pth or .safetensors of the release's ResNet-20")
    parser.add_argument("--images", type=int, default=400, help="how many digits to train on")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--from-scratch", action="store_true", help="also without the checkpoint")
    parser.add_argument("--output", default="transfer.safetensors")
    options = parser.parse_args()

    data = digits.load()
    x, y = like_cifar(data.x_train[: options.images]), data.y_train[: options.images]
    x_test, y_test = like_cifar(data.x_test), data.y_test
    fine_tuned = with_weights_of(imported(options.checkpoint, "resnet20", SHAPE), digits.CLASSES)
    networks = {"imported": fine_tuned}
    if options.from_scratch:
        networks["from scratch"] = zoo.build("resnet20", SHAPE, digits.CLASSES)
    for name, model in networks.items():
        history = model.fit(
            x,
            y,
            x_test,
            y_test,
            epochs=options.epochs,
            batch_size=32,
            learning_rate=cosine(0.02, options.epochs),
            verbose=0,
        ).history
        print(f"{name:<13}", *(f"{accuracy:.4f}" for accuracy in history["val_accuracy"]))
    fine_tuned.save(options.output)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
